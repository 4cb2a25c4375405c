// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// SetServices replaces the whole set of services. The set is copied.
func (e *Engine) SetServices(services []lb.Service) {
	services = cloneServices(services)
	e.set(func(in *inputs) { in.services, in.servicesSet = services, true })
}

// SetBackends replaces the whole set of backends, by service name, of one source. A service has the
// backends of all sources; of two with one address, the one whose source's name is first counts.
// The set is copied.
func (e *Engine) SetBackends(source string, backends map[string][]lb.Backend) {
	whole := cloneBackends(backends)
	e.set(func(in *inputs) { in.backends[source] = whole })
}

// SetServicesAndBackends is SetServices and SetBackends in one step, for a source that has both: a
// service that changes its name is never without its backends.
func (e *Engine) SetServicesAndBackends(services []lb.Service, source string, backends map[string][]lb.Backend) {
	services, whole := cloneServices(services), cloneBackends(backends)
	e.set(func(in *inputs) {
		in.services, in.servicesSet = services, true
		in.backends[source] = whole
	})
}

func cloneServices(services []lb.Service) []lb.Service {
	services = slices.Clone(services)
	for i := range services {
		services[i].VIPs = slices.Clone(services[i].VIPs)
	}
	return services
}

func cloneBackends(backends map[string][]lb.Backend) map[string][]lb.Backend {
	whole := make(map[string][]lb.Backend, len(backends))
	for service, list := range backends {
		whole[service] = slices.Clone(list)
	}
	return whole
}

// SetNextHops replaces the whole set of resolved addresses. The set is copied.
func (e *Engine) SetNextHops(hops map[netip.Addr]lb.NextHop) {
	hops = maps.Clone(hops)
	e.set(func(in *inputs) { in.hops = hops })
}

// SetDrains replaces the whole set of an operator's drains. The set is copied.
func (e *Engine) SetDrains(drains map[lb.Target]Drain) {
	drains = maps.Clone(drains)
	e.set(func(in *inputs) { in.drains = drains })
}

// Together makes what change hands over one step: Run takes in all of it or nothing. change calls Set
// methods, and waits for nothing that the engine does.
func (e *Engine) Together(change func()) {
	e.together.RLock()
	defer e.together.RUnlock()
	change()
}

// SetHealth replaces the whole set of what local checks say; a backend that is not in it is up. The
// set is copied.
func (e *Engine) SetHealth(health map[lb.Target]Health) {
	health = maps.Clone(health)
	e.set(func(in *inputs) { in.health = health })
}

// LearnNextHops adds resolved addresses to the set, for a change of services that is about to need
// them. It takes nothing back: what is resolved already stays as it is, and what is not resolved here
// is left out. It lasts until the next SetNextHops.
func (e *Engine) LearnNextHops(hops map[netip.Addr]lb.NextHop) {
	e.set(func(in *inputs) {
		all := maps.Clone(in.hops) // what in points to is never written to
		if all == nil {
			all = make(map[netip.Addr]lb.NextHop, len(hops))
		}
		for addr, hop := range hops {
			if hop.Resolved() && !all[addr].Resolved() {
				all[addr] = hop
			}
		}
		in.hops = all
	})
}

// set changes the inputs and says so to Run.
func (e *Engine) set(change func(*inputs)) {
	e.mu.Lock()
	change(&e.in)
	e.in.version++
	e.mu.Unlock()
	select {
	case e.changed <- struct{}{}:
	default: // already said, and not yet looked at
	}
}

// snapshot is the inputs as they are now. What they point to is never written to again.
func (e *Engine) snapshot() inputs {
	e.together.Lock() // waits for the end of a change in parts
	defer e.together.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	in := e.in
	in.backends = maps.Clone(in.backends)
	return in
}
