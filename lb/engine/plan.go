// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// planner gives desired VIPs and reals their ids and rings, which makes them a state.
type planner struct {
	now      time.Time
	in       inputs
	ids      *ids
	last     state // the last plan: what is not desired any more may have flows
	pasts    *pasts
	absences *absences
	flows    flowCounts
	unnamed  map[lb.RealID]time.Time
	want     state
	problems []Problem
	// held tells that something is held as a previous run left it, and so are targets.
	held bool
	// uses are those of the reals of the VIP that is being placed.
	uses map[lb.RealID]lb.RealUse
}

// hold keeps what a previous run left as it is, but for next hops. That goes for whole VIPs: a ring
// written while a source is silent would lack that source's backends.
func (p *planner) hold(adopted *state) {
	if adopted == nil {
		return
	}
	p.held = true
	for id, r := range adopted.reals {
		r.NextHop = p.in.hop(r.Tunnel)
		p.want.reals[id] = r
	}
	for vip, v := range adopted.vips {
		p.want.vips[vip] = v
		p.want.rings[v.RingID] = adopted.rings[v.RingID]
	}
}

// place adds a VIP with its reals and its ring. The members of the ring are all reals that get new
// flows, with no regard to their next hops: a ring must be the same on every balancer, so it cannot
// depend on one balancer's neighbours. Packets to a real without a MAC address are dropped and
// counted as nexthop_unknown. With no member all slots are zero, so that no packet goes to a real
// that is no longer there.
func (p *planner) place(ctx context.Context, v desiredVIP, before []lb.Real) {
	p.uses = make(map[lb.RealID]lb.RealUse, len(v.reals))
	members := p.placeReals(v)
	for _, r := range before {
		if _, wanted := p.want.reals[r.ID]; !wanted {
			p.leave(v, r)
		}
	}
	id, ok := p.ids.ring(v.vip)
	if !ok {
		p.problem(v, "VIP left out: no ring id is free")
		return
	}
	ring, err := p.pasts.ring(ctx, p, v, id, members)
	if err != nil {
		p.problem(v, fmt.Sprintf("VIP left out: %v", err))
		return
	}
	p.want.rings[id] = ring
	options := v.options
	if p.held {
		options = withoutTargets(options)
	}
	p.want.vips[v.vip] = lb.VIPEntry{VIP: v.vip, Service: v.service, RingID: id, Ring: v.ring, Flows: v.flows, Options: options}
}

// placeReals adds the VIP's reals and returns those that take part in its ring.
func (p *planner) placeReals(v desiredVIP) (members []maglev.Member) {
	for _, r := range v.reals {
		id, ok := p.ids.real(r.key)
		if !ok {
			p.problem(v, fmt.Sprintf("backend %s left out: no real id is free", r.key.addr))
			continue
		}
		backend := r.backend
		backend.Down = false // is in Use
		p.add(lb.Real{
			ID:         id,
			VIP:        v.vip,
			Backend:    backend,
			Tunnel:     r.key.tunnel,
			NextHop:    r.hop,
			Use:        p.absences.update(r.key, r.cause, r.drain, v.leave, p.now).use(p.now),
			Generation: p.ids.generation(id),
		})
		if r.cause == CauseNone {
			delete(p.unnamed, id)
		}
		if r.share > 0 {
			members = append(members, maglev.Member{ID: id, Addr: r.key.addr, Weight: r.share})
		}
	}
	return members
}

// leave keeps a real that is not desired any more, for as long as it may have flows.
func (p *planner) leave(v desiredVIP, r lb.Real) {
	led := isLedTo(v.options, r)
	if v.flows == lb.FlowNever && !led {
		return
	}
	absence := p.absences.update(keyOf(r), CauseRemoved, Drain{}, v.leave, p.now)
	r.Use = absence.use(p.now)
	if r.Use == lb.RealRetired || !p.mayHaveFlows(v.vip, r.ID) && !led {
		return
	}
	r.Backend.Weight, r.Backend.Routed = 0, false
	r.NextHop = p.in.hop(r.Tunnel)
	p.add(r)
}

// isLedTo tells whether packets may find a real of a VIP with these options by its server id. Connections that
// do so need not be in the flow table: an absence of such a real ends at its deadline only.
func isLedTo(o lb.Options, r lb.Real) bool {
	return o.HasServerIDs() && r.Backend.ServerID != 0
}

func (p *planner) add(r lb.Real) {
	p.want.reals[r.ID] = r
	p.uses[r.ID] = r.Use
}

// mayHaveFlows tells whether packets of any flow can still go to a real that gets no new ones. They
// cannot once a look over the flow table found none that began when no slot named it any more.
func (p *planner) mayHaveFlows(vip lb.VIP, id lb.RealID) bool {
	if p.pasts.names(vip, id) {
		delete(p.unnamed, id)
	}
	return mayHaveFlows(id, p.unnamed, p.flows)
}

func mayHaveFlows(id lb.RealID, unnamed map[lb.RealID]time.Time, flows flowCounts) bool {
	since, ok := unnamed[id]
	return !ok || !flows.began.After(since) || flows.of[id] > 0
}

// forget drops what is remembered of reals and VIPs that are gone.
func (p *planner) forget() {
	for key := range p.absences.of {
		if _, wanted := p.want.reals[p.ids.reals[key]]; !wanted {
			p.absences.end(key)
		}
	}
	for vip := range p.pasts.of {
		if !p.want.has(vip) {
			p.pasts.end(vip)
		}
	}
}

func (p *planner) problem(v desiredVIP, text string) {
	p.problems = append(p.problems, Problem{Service: v.service, VIP: v.vip, Text: text})
}
