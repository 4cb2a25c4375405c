// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// routeSet is a whole set of source routes, maybe of millions: it does not change once it is made, and
// two are the same only if they are one.
type routeSet struct {
	routes   []lb.SourceRoute
	backends []netip.Addr // that they name, sorted, each once
}

func newRouteSet(routes []lb.SourceRoute) *routeSet {
	seen := make(map[netip.Addr]bool)
	s := &routeSet{routes: routes}
	for _, r := range routes {
		if !seen[r.Backend] {
			seen[r.Backend] = true
			s.backends = append(s.backends, r.Backend)
		}
	}
	slices.SortFunc(s.backends, netip.Addr.Compare)
	return s
}

// SetSourceRoutes replaces the whole set of source routes. It is not copied, since there may be millions:
// the caller does not write to it any more.
func (e *Engine) SetSourceRoutes(routes []lb.SourceRoute) {
	next := newRouteSet(routes)
	e.set(func(in *inputs) {
		if in.routes == nil || !slices.Equal(in.routes.routes, routes) {
			in.routes = next
		}
	})
}

// routed are the backends of a VIP with source routes: those of its service, by address, and those that
// the routes name beside them, which get no packets but the routes'.
func (s *routeSet) routed(backends []lb.Backend) []lb.Backend {
	if s == nil {
		return backends
	}
	backends = slices.Clone(backends)
	for _, addr := range s.backends {
		i, found := slices.BinarySearchFunc(backends, addr, func(b lb.Backend, a netip.Addr) int { return b.Addr.Compare(a) })
		if !found {
			backends = slices.Insert(backends, i, lb.Backend{Addr: addr})
		}
		backends[i].Routed = true
	}
	return backends
}

// uniqueServerIDs takes a server's number away from all backends but the first that has it.
func (d *desired) uniqueServerIDs(service string, backends []lb.Backend) {
	owner := make(map[uint32]netip.Addr)
	for i := range backends {
		b := &backends[i]
		if b.ServerID == 0 {
			continue
		}
		if other, taken := owner[b.ServerID]; taken {
			d.problem(Problem{Service: service, Backend: b.Addr,
				Text: fmt.Sprintf("server id %d is that of backend %s already: no packet finds this one by it", b.ServerID, other)})
			b.ServerID = 0
			continue
		}
		owner[b.ServerID] = b.Addr
	}
}

// targets are the ways to reals beside the rings, sorted. They do not change once they are made.
type targets struct {
	servers []lb.ServerTarget
	routes  []lb.RouteTarget
}

// newTargets are those of a state's VIPs. A real that is draining keeps its number, so that its
// connections find it, unless another real has it that is active. Routes lead only to active ones.
func newTargets(s state) *targets {
	t := &targets{}
	reals := make(map[lb.VIP][]lb.Real) // of VIPs that have targets: few do
	for vip, v := range s.vips {
		if v.Options.HasServerIDs() || v.Options.SourceRoutes {
			reals[vip] = nil
		}
	}
	if len(reals) == 0 {
		return t
	}
	for _, r := range s.reals {
		if list, ok := reals[r.VIP]; ok {
			reals[r.VIP] = append(list, r)
		}
	}
	for _, vip := range slices.SortedFunc(maps.Keys(reals), lb.VIP.Compare) {
		v := s.vips[vip]
		if v.Options.HasServerIDs() {
			t.addServers(v.RingID, reals[vip])
		}
		if v.Options.SourceRoutes {
			t.addRoutes(v.RingID, reals[vip])
		}
	}
	return t
}

// addServers sorts the reals.
func (t *targets) addServers(ring lb.RingID, reals []lb.Real) {
	slices.SortFunc(reals, func(a, b lb.Real) int {
		return cmp.Or(cmp.Compare(a.Backend.ServerID, b.Backend.ServerID), cmp.Compare(a.Use, b.Use), cmp.Compare(a.ID, b.ID))
	})
	last := uint32(0)
	for _, r := range reals {
		if id := r.Backend.ServerID; id != last && r.Use.Receives() {
			t.servers = append(t.servers, lb.ServerTarget{Ring: ring, ServerID: id, Real: r.ID})
			last = id
		}
	}
}

// addRoutes sorts the reals.
func (t *targets) addRoutes(ring lb.RingID, reals []lb.Real) {
	slices.SortFunc(reals, func(a, b lb.Real) int { return a.Backend.Addr.Compare(b.Backend.Addr) })
	for _, r := range reals {
		if r.Backend.Routed && r.Use == lb.RealActive {
			t.routes = append(t.routes, lb.RouteTarget{Ring: ring, Backend: r.Backend.Addr, Real: r.ID})
		}
	}
}

// withoutTargets are the options of a VIP that is new while targets are held: those of its ring, if there
// are any, were another VIP's.
func withoutTargets(o lb.Options) lb.Options {
	o.ConnectionIDs, o.TCPIDs, o.UDPIDs, o.SourceRoutes = lb.ConnectionIDsOff, false, false, false
	return o
}

func (t *targets) len() int {
	if t == nil {
		return 0
	}
	return len(t.servers) + len(t.routes)
}

func (t *targets) equal(u *targets) bool {
	return t != nil && u != nil && slices.Equal(t.servers, u.servers) && slices.Equal(t.routes, u.routes)
}

type (
	setTargets struct {
		targets *targets
		repeat  bool
	}
	setSourceRoutes struct{ routes *routeSet }
)

// diffTargets is what is to be done about targets and source routes. Between the writing of reals and
// that of VIPs once is enough for those that come and those that go: a packet follows a target only to a
// real that may receive, and a number without a target goes by the ring. Source routes are never written
// for repair, since there may be millions; nor while targets are held, to which new ones need not lead.
func diffTargets(have *realised, want state, all bool) (steps []step) {
	if want.targets == nil {
		return nil
	}
	changed := have.doubtTargets || !have.targets.equal(want.targets)
	if changed || all && want.targets.len() > 0 {
		steps = append(steps, setTargets{targets: want.targets, repeat: !changed})
	}
	if want.routes != nil && (have.doubtRoutes || have.routes != want.routes) {
		steps = append(steps, setSourceRoutes{want.routes})
	}
	return steps
}

func (s setTargets) repeats() bool      { return s.repeat }
func (s setSourceRoutes) repeats() bool { return false }

func (s setTargets) String() string {
	return fmt.Sprintf("set targets servers=%d routes=%d", len(s.targets.servers), len(s.targets.routes))
}

func (s setSourceRoutes) String() string {
	return fmt.Sprintf("set source routes %d", len(s.routes.routes))
}

func (s setTargets) apply(e *Engine) error {
	e.have.doubtTargets = true
	if err := e.dp.SetTargets(s.targets.servers, s.targets.routes); err != nil {
		return fmt.Errorf("set %d targets: %v", s.targets.len(), err)
	}
	e.have.targets, e.have.doubtTargets = s.targets, false
	return nil
}

func (s setSourceRoutes) apply(e *Engine) error {
	e.have.doubtRoutes = true
	if err := e.dp.SetSourceRoutes(s.routes.routes); err != nil {
		return fmt.Errorf("set %d source routes: %v", len(s.routes.routes), err)
	}
	e.have.routes, e.have.doubtRoutes = s.routes, false
	return nil
}
