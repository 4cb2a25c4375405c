// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package static is the source of services and backends that the configuration file names.
package static

import (
	"context"
	"slices"
	"sync"

	"github.com/remora-lb/remora/lb"
)

// Set is all that the file says of services: they, and their backends by service name.
type Set struct {
	Services []lb.Service
	Backends map[string][]lb.Backend
}

// Source hands over whole sets. It may be used from several goroutines; there is nothing to close.
type Source struct {
	mu sync.Mutex
	// present is guarded by mu; nobody else has it.
	present Set
	// changed holds a token while Run has a set to hand over.
	changed chan struct{}
}

// New makes a source that begins with the given set. The set stays the caller's.
func New(set Set) *Source {
	return &Source{present: clone(set), changed: make(chan struct{}, 1)}
}

// Replace makes this the set. The set stays the caller's.
func (s *Source) Replace(set Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.present = clone(set)
	s.wake()
}

// wake has Run hand over the set.
func (s *Source) wake() {
	select {
	case s.changed <- struct{}{}:
	default: // a token is there already, and leads to the present set
	}
}

// Run hands the whole set over, at once and after every Replace, until ctx ends; then it returns
// nil. Of sets that follow each other faster than handOver returns, only the last is handed over.
// What handOver receives is its own; it is called from this goroutine. Run is for one goroutine at
// a time.
func (s *Source) Run(ctx context.Context, handOver func(Set)) error {
	s.wake()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
			handOver(s.set())
		}
	}
}

// set is a copy of the present set.
func (s *Source) set() Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return clone(s.present)
}

func clone(set Set) Set {
	c := Set{Services: slices.Clone(set.Services), Backends: make(map[string][]lb.Backend, len(set.Backends))}
	for i := range c.Services {
		c.Services[i].VIPs = slices.Clone(c.Services[i].VIPs)
	}
	for service, list := range set.Backends {
		c.Backends[service] = slices.Clone(list)
	}
	return c
}
