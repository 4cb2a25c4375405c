// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// service compares a service, its backends and its VIPs.
func (p *comparer) service(s lb.Service) {
	backends := p.config.Backends[s.Name]
	where := "service " + s.Name
	_, dynamic := p.config.Sources[s.Name]
	if dynamic {
		p.add(KindBehaviour, where, "its backends and weights come from Consul", "choices differ for as long as Katran is told another set, or later")
	}
	if h, ok := p.config.Health[s.Name]; ok {
		p.add(KindBehaviour, where, "remora checks its backends, and Katran does not", "choices differ for as long as what tells Katran of weights has another verdict")
		if h.SlowStart.Duration > 0 {
			p.add(KindBehaviour, where, "slow_start", "choices differ while a backend that recovered has a part of its weight")
		}
		if h.HTTP.WeightHeader != "" || h.HTTP.WeightBody {
			p.add(KindBehaviour, where, "weight_from", "choices differ unless Katran is given these weights")
		}
	}
	p.sameHash(where, backends)
	for _, v := range s.VIPs {
		p.vip(v, backends, dynamic)
	}
	for _, b := range backends {
		p.backend(where, s, b)
	}
}

// sameHash finds backends that have one way over a ring.
func (p *comparer) sameHash(where string, backends []lb.Backend) {
	first := map[uint64]netip.Addr{}
	for _, b := range backends {
		if b.Weight == 0 {
			continue
		}
		h := maglev.AddrHash(b.Addr)
		if other, ok := first[h]; ok {
			p.add(KindChoice, where, fmt.Sprintf("%s and %s have the same hash", other, b.Addr),
				"remora lets the lower address go first, Katran whichever its sorting does: they may be exchanged for all their packets")
			continue
		}
		first[h] = b.Addr
	}
}

func (p *comparer) backend(where string, s lb.Service, b lb.Backend) {
	p.reals[b.Addr] = true
	if b.Local {
		p.add(KindBuild, where, fmt.Sprintf("backend %s is local", b.Addr), "Katran has that as a build option, and needs a flag on each VIP")
	}
	ids := false
	for _, v := range s.VIPs {
		ids = ids || v.Options.HasServerIDs()
	}
	if b.ServerID == 0 || !ids {
		return
	}
	if other, ok := p.ids[b.ServerID]; ok && other != b.Addr {
		p.add(KindChoice, where, fmt.Sprintf("server_id %d is %s here and %s elsewhere", b.ServerID, b.Addr, other), "Katran has one table of ids for all VIPs")
	}
	if b.ServerID > maxServerID {
		p.add(KindChoice, where, fmt.Sprintf("server_id %d of %s", b.ServerID, b.Addr), fmt.Sprintf("Katran has ids up to %d in its usual table, and none from 2147483648 on", maxServerID))
	}
	p.ids[b.ServerID] = b.Addr
}

// vip compares a VIP; what a dynamic source has is not known.
func (p *comparer) vip(v lb.ServiceVIP, backends []lb.Backend, dynamic bool) {
	p.vips++
	where := v.VIP.String()
	if p.encaps[v.Encap] == "" {
		p.encaps[v.Encap] = where
	}
	if v.Ring.Size != RingSize {
		p.add(KindChoice, where, fmt.Sprintf("ring of %d slots, and not %d", v.Ring.Size, RingSize),
			"nearly all packets get other servers, also than in a Katran with such a ring")
	}
	p.ringHash(where, v.Ring.Hash, dynamic || weighted(backends))
	p.address(where, v.VIP, backends)
	p.flows(where, v)
	p.options(where, v)
}

// ringHash compares how weights fill a ring; without them both hashes are one.
func (p *comparer) ringHash(where string, h lb.RingHash, weights bool) {
	if !weights {
		return
	}
	name := "maglev-v2, as its example of a server has"
	if h == lb.MaglevV1 {
		name = "maglev, as its library has by default"
	}
	p.add(KindBuild, where, fmt.Sprintf("ring of %s with weights", h), "Katran needs the hash function "+name+", or packets get other servers")
}

// weighted tells whether weights decide on a ring of the backends.
func weighted(backends []lb.Backend) bool {
	members, other := 0, false
	for _, b := range backends {
		if b.Weight != 0 {
			members++
			other = other || b.Weight != 1
		}
	}
	return members > 1 && other
}

// address compares what VIPs and backends there can be.
func (p *comparer) address(where string, v lb.VIP, backends []lb.Backend) {
	switch {
	case v.IsPrefix() && v.Addr.Is4():
		p.add(KindChoice, where, "VIP of an IPv4 prefix", "Katran has none: packets pass it by")
	case v.IsPrefix():
		p.add(KindBuild, where, "VIP of a prefix", "Katran has them as a build option")
	}
	if v.Addr.Is4() {
		return
	}
	for _, b := range backends {
		if b.Addr.Is4() {
			p.add(KindPacket, where, fmt.Sprintf("IPv6 VIP with the IPv4 backend %s", b.Addr), "Katran writes packets that no server can read")
			return
		}
	}
}

// flows compares what is remembered. Both choose alike while no ring changes.
func (p *comparer) flows(where string, v lb.ServiceVIP) {
	protocol := v.VIP.Protocol
	switch {
	case v.Flows == lb.FlowAlways && protocol == lb.UDP && p.config.Table.UDPIdle != 30*time.Second:
		p.add(KindBehaviour, where, fmt.Sprintf("UDP flows are new after a pause of %s", p.config.Table.UDPIdle), "in Katran after 30s")
	case v.Flows == lb.FlowTransitions && protocol == lb.TCP:
		p.add(KindBehaviour, where, "flows are remembered only while their slots change (flows.tcp: transitions)",
			"Katran remembers all: a flow that comes from another balancer is taken as the ring then is, in both")
	case v.Flows == lb.FlowNever && protocol == lb.TCP:
		p.add(KindBuild, where, "flows go where the ring says (flows.tcp: never)", "Katran needs the flag NO_LRU, or keeps those that remora moves when servers change")
	case v.Flows == lb.FlowNever:
		p.add(KindBuild, where, "flows go where the ring says (flows.udp: stateless)", "Katran needs the flag NO_LRU, or keeps those that remora moves when servers change")
	case v.Flows == lb.FlowQUIC:
		p.add(KindBehaviour, where, "flows are remembered only while their slots change (flows.udp: quic)",
			"Katran remembers all until they pause for 30s")
	}
}

// options compares what decides beside the ring.
func (p *comparer) options(where string, v lb.ServiceVIP) {
	o := v.Options
	switch o.Fragments {
	case lb.FragmentsByClient:
		p.add(KindChoice, where, "fragments: hash-3-tuple", "Katran hashes ports, too, and drops fragments")
	case lb.FragmentsPass:
		p.add(KindBehaviour, where, "fragments: pass", "Katran drops fragments")
	}
	if o.ConnectionIDs == lb.ConnectionIDsQUICLB {
		p.add(KindChoice, where, "connection_ids: quic-lb", "Katran does not know their form, and takes their packets by table or ring")
	}
	for _, option := range []struct {
		on   bool
		name string
	}{{o.TCPIDs, "tcp_ids"}, {o.UDPIDs, "udp_ids"}, {o.SourceRoutes, "source_routes"}} {
		if option.on {
			p.add(KindBuild, where, option.name, "Katran has it as a build option, without which table and ring decide")
		}
	}
}
