// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/discovery/static"
	"github.com/remora-lb/remora/lb/engine"
)

// assembly is the one place where the services of the file and of Consul are put together for the
// engine. Its methods may be called from any goroutine.
type assembly struct {
	engine *engine.Engine
	// resolve asks for next hops until ctx ends.
	resolve func(context.Context, []netip.Addr) map[netip.Addr]lb.NextHop
	// admit takes note of what the engine will have, and returns the backends without the verdicts
	// that others make.
	admit func([]lb.Service, map[string][]lb.Backend) map[string][]lb.Backend

	mu sync.Mutex // guards what follows, and keeps what is handed over in order
	// file is the file's; services are those that Consul names beside it, and backends what Consul
	// says of services of either kind.
	file     static.Set
	services []lb.Service
	backends map[string][]lb.Backend
	// known are the addresses whose next hops were asked for.
	known map[netip.Addr]bool
	// complete adds the VIPs that routers still send packets for. Nil for none.
	complete func([]lb.Service, map[string][]lb.Backend) ([]lb.Service, map[string][]lb.Backend)
}

func newAssembly(e *engine.Engine, resolve func(context.Context, []netip.Addr) map[netip.Addr]lb.NextHop) *assembly {
	return &assembly{engine: e, resolve: resolve, known: make(map[netip.Addr]bool)}
}

// setFile makes this what the file says, and hands all over.
func (a *assembly) setFile(set static.Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.file = set
	a.handOver()
}

// setConsul makes this what Consul says, and hands all over once the next hops of new backends are
// known: a server gets packets as soon as it is in a ring. Backends are read only from then on.
func (a *assembly) setConsul(services []lb.Service, backends map[string][]lb.Backend) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.services, a.backends = services, backends
	a.learn()
	a.handOver()
}

// learnTime is how long a change waits for the link addresses of servers that are new.
const learnTime = 250 * time.Millisecond

// learn has the engine know the next hops of backends that are new. The caller holds mu.
func (a *assembly) learn() {
	known := make(map[netip.Addr]bool, len(a.known))
	var fresh []netip.Addr
	for _, list := range a.backends {
		for _, b := range list {
			if !a.known[b.Addr] && !known[b.Addr] {
				fresh = append(fresh, b.Addr)
			}
			known[b.Addr] = true
		}
	}
	a.known = known
	if len(fresh) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), learnTime)
	defer cancel()
	a.engine.LearnNextHops(a.resolve(ctx, fresh))
}

// handOver gives the engine all services and their backends in one step, so that a service that
// goes from the file to Consul, or back, is never without. The file's backends go before Consul's,
// and its VIPs before those that are claimed. The caller holds mu.
func (a *assembly) handOver() {
	services := slices.Clone(a.file.Services)
	taken := make(map[lb.VIP]bool)
	for _, s := range services {
		for _, v := range s.VIPs {
			taken[v.VIP] = true
		}
	}
	for _, s := range a.services {
		if !slices.ContainsFunc(s.VIPs, func(v lb.ServiceVIP) bool { return taken[v.VIP] }) {
			services = append(services, s)
		}
	}
	backends := make(map[string][]lb.Backend, len(services))
	for _, s := range services {
		if backends[s.Name] = a.file.Backends[s.Name]; len(backends[s.Name]) == 0 {
			backends[s.Name] = a.backends[s.Name]
		}
	}
	if a.complete != nil {
		services, backends = a.complete(services, backends)
	}
	// A server that goes must not count as healthy in between, because the checks know it no more.
	a.engine.Together(func() {
		a.engine.SetServicesAndBackends(services, staticSource, a.admit(services, backends))
	})
}

// again hands all over once more.
func (a *assembly) again() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handOver()
}
