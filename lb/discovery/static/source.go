// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package static is the source of backends from the configuration file.
package static

import (
	"context"
	"slices"
	"sync"

	"github.com/remora-lb/remora/lb"
)

// Source hands over the backends of all services, by service name. It may be used from several
// goroutines; there is nothing to close.
type Source struct {
	mu sync.Mutex
	// backends is guarded by mu; nobody else has it.
	backends map[string][]lb.Backend
	// changed holds a token while Run has a set to hand over.
	changed chan struct{}
}

// New makes a source that begins with the given set. The set stays the caller's.
func New(backends map[string][]lb.Backend) *Source {
	return &Source{backends: clone(backends), changed: make(chan struct{}, 1)}
}

// Replace makes this the set. The set stays the caller's.
func (s *Source) Replace(backends map[string][]lb.Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backends = clone(backends)
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
func (s *Source) Run(ctx context.Context, handOver func(map[string][]lb.Backend)) error {
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
func (s *Source) set() map[string][]lb.Backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	return clone(s.backends)
}

func clone(backends map[string][]lb.Backend) map[string][]lb.Backend {
	c := make(map[string][]lb.Backend, len(backends))
	for service, list := range backends {
		c[service] = slices.Clone(list)
	}
	return c
}
