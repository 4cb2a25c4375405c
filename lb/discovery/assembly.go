// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/static"
)

// FileSource is the name under which the engine has the backends of all services.
const FileSource = "file"

// Checks are how the backends of a service that Consul defines are checked, as PrepareChecks made them;
// nil for not at all. Here nobody looks into them.
type Checks any

// Engine is what an Assembly hands over to.
type Engine interface {
	LearnNextHops(map[netip.Addr]lb.NextHop)
	SetServicesAndBackends(services []lb.Service, source string, backends map[string][]lb.Backend)
	// Together has what do hands over in force in one step.
	Together(do func())
}

// AssemblyConfig is what an Assembly works with.
type AssemblyConfig struct {
	Engine Engine
	// File is what the file says at the start: nothing is handed over that lacks it.
	File static.Set
	// Resolve asks for next hops until ctx ends.
	Resolve func(context.Context, []netip.Addr) map[netip.Addr]lb.NextHop
	// Admit takes note of what the engine will have, and returns the backends without the verdicts
	// that others make.
	Admit func([]lb.Service, map[string][]lb.Backend) map[string][]lb.Backend
	// Check says how the backends of services that Consul defines are checked. Nil for not at all.
	Check func(map[string]Checks)
	// PrepareChecks makes such checks. Nil for none.
	PrepareChecks func(config.Health) (Checks, error)
	// Complete adds the VIPs that routers still send packets for. Nil for none.
	Complete func([]lb.Service, map[string][]lb.Backend) ([]lb.Service, map[string][]lb.Backend)
}

// Assembly is the one place where the services of the file and of Consul are put together for the
// engine. Its methods may be called from any goroutine.
type Assembly struct {
	cfg AssemblyConfig

	mu sync.Mutex // guards what follows, and keeps what is handed over in order
	// file is the file's; services are those that Consul names beside it, and backends what Consul
	// says of services of either kind.
	file     static.Set
	services []lb.Service
	backends map[string][]lb.Backend
	// known are the addresses whose next hops were asked for.
	known map[netip.Addr]bool
}

// NewAssembly makes one that has handed nothing over yet.
func NewAssembly(cfg AssemblyConfig) *Assembly {
	return &Assembly{cfg: cfg, file: cfg.File, known: make(map[netip.Addr]bool)}
}

// FileSet is what a configuration says of services.
func FileSet(c *config.Config) static.Set {
	return static.Set{Services: c.Services, Backends: c.Backends}
}

// SetFile makes this what the file says, and hands all over.
func (a *Assembly) SetFile(set static.Set) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.file = set
	a.handOver()
}

// setConsul makes this what Consul says, and hands all over once the next hops of new backends are
// known: a server gets packets as soon as it is in a ring. Backends are read only from then on. Checks
// are those of services that are defined in Consul.
func (a *Assembly) setConsul(services []lb.Service, backends map[string][]lb.Backend, checks map[string]Checks) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cfg.Check != nil {
		a.cfg.Check(checks)
	}
	a.services, a.backends = services, backends
	a.learn()
	a.handOver()
}

// learnTime is how long a change waits for the link addresses of servers that are new.
const learnTime = 250 * time.Millisecond

// learn has the engine know the next hops of backends that are new. The caller holds mu.
func (a *Assembly) learn() {
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
	a.cfg.Engine.LearnNextHops(a.cfg.Resolve(ctx, fresh))
}

// handOver gives the engine all services and their backends in one step, so that a service that
// goes from the file to Consul, or back, is never without. The file's backends go before Consul's,
// and its VIPs before those that are claimed. The caller holds mu.
func (a *Assembly) handOver() {
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
	if a.cfg.Complete != nil {
		services, backends = a.cfg.Complete(services, backends)
	}
	// A server that goes must not count as healthy in between, because the checks know it no more.
	a.cfg.Engine.Together(func() {
		a.cfg.Engine.SetServicesAndBackends(services, FileSource, a.cfg.Admit(services, backends))
	})
}

// Again hands all over once more.
func (a *Assembly) Again() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handOver()
}
