// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// planner gives desired VIPs and reals their ids and rings, which makes them a state.
type planner struct {
	in       inputs
	ids      *ids
	built    map[lb.RingID]*ring // rings of the last plan
	want     state
	problems []Problem
}

// hold keeps what a previous run left as it is, but for next hops. That goes for whole VIPs: a ring
// written while a source is silent would lack that source's backends.
func (p *planner) hold(adopted *state) {
	if adopted == nil {
		return
	}
	for id, r := range adopted.reals {
		r.NextHop = p.in.hop(r.Tunnel.Destination)
		p.want.reals[id] = r
	}
	for vip, v := range adopted.vips {
		p.want.vips[vip] = v
		p.want.rings[v.RingID] = adopted.rings[v.RingID]
	}
}

// place adds a VIP with its reals and its ring. The members of the ring are all reals of weight
// above 0, with no regard to their next hops: a ring must be the same on every balancer, so it
// cannot depend on one balancer's neighbours. Packets to a real without a MAC address are dropped
// and counted as nexthop_unknown. With no member all slots are zero, so that no packet goes to a
// real that is no longer there.
func (p *planner) place(v desiredVIP) {
	var members []maglev.Member
	for _, r := range v.reals {
		id, ok := p.ids.real(r.key)
		if !ok {
			p.problem(v, fmt.Sprintf("backend %s left out: no real id is free", r.key.addr))
			continue
		}
		p.want.reals[id] = lb.Real{
			ID:      id,
			VIP:     v.vip,
			Backend: lb.Backend{Addr: r.key.addr, Weight: r.weight},
			Tunnel:  r.key.tunnel,
			NextHop: r.hop,
		}
		if r.weight > 0 {
			members = append(members, maglev.Member{ID: id, Addr: r.key.addr, Weight: r.weight})
		}
	}
	id, ok := p.ids.ring(v.vip)
	if !ok {
		p.problem(v, "VIP left out: no ring id is free")
		return
	}
	ring, err := p.ring(id, v, members)
	if err != nil {
		p.problem(v, fmt.Sprintf("VIP left out: %v", err))
		return
	}
	p.want.rings[id] = ring
	p.want.vips[v.vip] = lb.VIPEntry{VIP: v.vip, Service: v.service, RingID: id, Ring: v.ring}
}

// ring is the VIP's ring, the one of the last plan if it has the same content.
func (p *planner) ring(id lb.RingID, v desiredVIP, members []maglev.Member) (*ring, error) {
	if r := p.built[id]; r.holds(v.ring, members) && r.vip == v.vip {
		return r, nil
	}
	return newRing(v.vip, v.ring, members)
}

func (p *planner) problem(v desiredVIP, text string) {
	p.problems = append(p.problems, Problem{Service: v.service, VIP: v.vip, Text: text})
}
