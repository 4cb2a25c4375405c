// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// inputs are the whole sets that the sources handed over last.
type inputs struct {
	// version counts the changes, from 1 on.
	version     uint64
	services    []lb.Service
	servicesSet bool
	// backends is by source, then by service name.
	backends map[string]map[string][]lb.Backend
	hops     map[netip.Addr]lb.NextHop
	// drains are an operator's; health is the checks'.
	drains map[lb.Target]Drain
	health map[lb.Target]Health
	// routes are the source routes; nil before they are known.
	routes *routeSet
	// hopsLeft are next hops that a previous run left. For a time after the start they stand in for
	// those that are not resolved yet, so that a restart loses no packet.
	hopsLeft map[netip.Addr]lb.NextHop
}

// reported tells whether the services and all of these sources are known.
func (in inputs) reported(sources []string) bool {
	return in.servicesSet && len(in.silent(sources)) == 0
}

// silent are the sources that have not reported.
func (in inputs) silent(sources []string) []string {
	return slices.DeleteFunc(slices.Clone(sources), func(s string) bool {
		_, ok := in.backends[s]
		return ok
	})
}

// hop is the next hop of a tunnel, or one with a problem. To this machine there is none.
func (in inputs) hop(t lb.Tunnel) lb.NextHop {
	if t.Encap == lb.Local {
		return lb.NextHop{}
	}
	hop, ok := in.hops[t.Destination]
	if hop.Resolved() {
		return hop
	}
	if left, isLeft := in.hopsLeft[t.Destination]; isLeft {
		return left
	}
	if !ok {
		return lb.NextHop{Problem: "not resolved yet"}
	}
	return hop
}

// realKey is what makes a real the same one. All of it is fixed for the life of the real's id: a
// change of the tunnel makes another real with another id, so that a record never becomes one of
// another kind under a slot that names it.
type realKey struct {
	vip    lb.VIP
	addr   netip.Addr
	tunnel lb.Tunnel
}

func keyOf(r lb.Real) realKey { return realKey{vip: r.VIP, addr: r.Backend.Addr, tunnel: r.Tunnel} }

// desired is what the inputs ask for, before ids: VIPs by address, each with its reals by address.
type desired struct {
	vips     []desiredVIP
	problems []Problem
}

type desiredVIP struct {
	vip     lb.VIP
	service string
	ring    lb.Ring
	flows   lb.FlowMode
	leave   lb.Leave
	options lb.Options
	reals   []desiredReal
}

type desiredReal struct {
	key     realKey
	backend lb.Backend // as configured
	share   uint32     // of new flows by the ring, in the unit of weights; 0 if cause is not CauseNone
	percent uint8      // of the weight
	cause   Cause
	drain   Drain // with CauseDrain
	hop     lb.NextHop
}

// Health is what local checks say of a backend of one VIP.
type Health struct {
	Down bool
	// Percent is how much of its weight the backend gets, 1 to 100; 0 stands for 100.
	Percent uint8
}

// Problem is a contradiction in the inputs, and what was left out because of it. Fields that do not
// apply are zero. Problems are comparable.
type Problem struct {
	Service string
	VIP     lb.VIP
	Backend netip.Addr
	Source  string
	Text    string
}

// attrs are the fields for a log line.
func (p Problem) attrs() []slog.Attr {
	var a []slog.Attr
	if p.Service != "" {
		a = append(a, slog.String("service", p.Service))
	}
	if p.VIP.Addr.IsValid() {
		a = append(a, slog.String("vip", p.VIP.String()))
	}
	if p.Backend.IsValid() {
		a = append(a, slog.String("real", p.Backend.String()))
	}
	if p.Source != "" {
		a = append(a, slog.String("source", p.Source))
	}
	return a
}

// fold turns the inputs into the desired value. Its result depends on no order among the inputs'
// elements but that of services with one name.
func fold(in inputs) desired {
	var d desired
	services := slices.Clone(in.services)
	slices.SortStableFunc(services, func(a, b lb.Service) int { return cmp.Compare(a.Name, b.Name) })
	owner := make(map[lb.VIP]string)
	for i, s := range services {
		if i > 0 && services[i-1].Name == s.Name {
			d.problem(Problem{Service: s.Name, Text: "service is there twice: the second is left out"})
			continue
		}
		backends := d.union(s.Name, in.backends)
		d.uniqueServerIDs(s.Name, backends)
		for _, v := range s.VIPs {
			if other, taken := owner[v.VIP]; taken {
				d.problem(Problem{Service: s.Name, VIP: v.VIP, Text: fmt.Sprintf("VIP is that of service %q already: left out", other)})
				continue
			}
			owner[v.VIP] = s.Name
			d.addVIP(s.Name, v, backends, in)
		}
	}
	slices.SortFunc(d.vips, func(a, b desiredVIP) int { return a.vip.Compare(b.vip) })
	return d
}

// union is a service's backends over all sources, sorted by address, each address once.
func (d *desired) union(service string, sources map[string]map[string][]lb.Backend) []lb.Backend {
	type found struct {
		lb.Backend
		source string
	}
	var all []found
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		for _, b := range sources[source][service] {
			if !b.Addr.IsValid() || b.Addr.Is4In6() || b.Addr.Zone() != "" {
				d.problem(Problem{Service: service, Backend: b.Addr, Source: source,
					Text: "backend left out: its address is not a plain IPv4 or IPv6 address"})
				continue
			}
			b.Routed = false // routes say so
			all = append(all, found{b, source})
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.source, b.source), cmp.Compare(b.Weight, a.Weight))
	})
	var list []lb.Backend
	for i, b := range all {
		if i > 0 && all[i-1].Addr == b.Addr {
			winner := all[i-1].source
			all[i].source = winner // the next one with this address lost to the same source
			d.problem(Problem{Service: service, Backend: b.Addr, Source: b.source,
				Text: fmt.Sprintf("backend is there twice: that of source %q counts", winner)})
			continue
		}
		list = append(list, b.Backend)
	}
	return list
}

// addVIP adds a VIP with a real for each backend that its tunnel can reach.
func (d *desired) addVIP(service string, v lb.ServiceVIP, backends []lb.Backend, in inputs) {
	dv := desiredVIP{vip: v.VIP, service: service, ring: v.Ring, flows: flowMode(v), leave: v.Leave, options: v.Options}
	if v.Options.SourceRoutes {
		backends = in.routes.routed(backends)
	}
	for _, b := range backends {
		tunnel, err := v.TunnelTo(b)
		if err != nil {
			d.problem(Problem{Service: service, VIP: v.VIP, Backend: b.Addr, Text: fmt.Sprintf("backend left out: %v", err)})
			continue
		}
		r := desiredReal{
			key:     realKey{vip: v.VIP, addr: b.Addr, tunnel: tunnel},
			backend: b,
			hop:     in.hop(tunnel),
		}
		r.judge(in)
		dv.reals = append(dv.reals, r)
	}
	dv.share()
	d.vips = append(d.vips, dv)
}

// flowMode is the VIP's; UDP has no packet that says that it begins a flow.
func flowMode(v lb.ServiceVIP) lb.FlowMode {
	if v.VIP.Protocol == lb.UDP && v.Flows == lb.FlowTransitions {
		return lb.FlowNever
	}
	return v.Flows
}

// judge decides whether the real gets new flows, and how many. To a backend of weight 0 source routes may
// still lead them.
func (r *desiredReal) judge(in inputs) {
	target := lb.Target{VIP: r.key.vip, Backend: r.key.addr}
	health := in.health[target]
	drain, drained := in.drains[target]
	switch {
	case r.backend.Down || health.Down:
		r.cause = CauseDown
	case drained:
		r.cause, r.drain = CauseDrain, drain
	case r.backend.Weight == 0 && !r.backend.Routed:
		r.cause = CauseWeight
	default:
		r.percent = 100
		if health.Percent != 0 {
			r.percent = min(health.Percent, 100)
		}
	}
}

// share gives each real its share of new flows. Where a percentage counts, the unit is a hundredth of
// a weight, so that it does so for a weight of 1 too; MaglevV2 makes the same ring of shares in any
// unit. MaglevV1 does not, and there nobody gets less than 1.
func (v *desiredVIP) share() {
	inHundredths := v.ring.Hash == lb.MaglevV2 && slices.ContainsFunc(v.reals, func(r desiredReal) bool {
		return r.cause == CauseNone && r.percent != 100
	})
	for i := range v.reals {
		r := &v.reals[i]
		switch hundredths := r.backend.Weight * uint32(r.percent); {
		case r.cause != CauseNone, r.backend.Weight == 0:
		case inHundredths:
			r.share = hundredths
		default:
			r.share = max(1, hundredths/100)
		}
	}
}

func (d *desired) problem(p Problem) { d.problems = append(d.problems, p) }
