// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/lb/store"
)

// Saver writes what is judged to disk, behind the back of the one who judges: of several that
// come while one is written, the last is. Its methods may be called from any goroutine.
type Saver struct {
	store *store.Store
	log   *slog.Logger

	mu   sync.Mutex
	next *Judged // guarded by mu; nil if all is saved
	more chan struct{}
}

// NewSaver makes one that writes to a store, which stays the caller's.
func NewSaver(s *store.Store, log *slog.Logger) *Saver {
	return &Saver{store: s, log: log, more: make(chan struct{}, 1)}
}

// save has j written soon. It does not block.
func (s *Saver) save(j *Judged) {
	s.mu.Lock()
	s.next = j
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// saveInterval is the least time between two writes: with many services, each is a large file.
const saveInterval = 200 * time.Millisecond

// Run writes until ctx ends, and then what is left.
func (s *Saver) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			s.Flush()
			return nil
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
		case <-s.more:
			s.Flush()
		}
		pause.Reset(saveInterval)
	}
}

// Flush writes what is to be written. A failure is no reason to stop: it costs the next start its
// memory of what is held, and the data plane has the backends.
func (s *Saver) Flush() {
	s.mu.Lock()
	j := s.next
	s.next = nil
	s.mu.Unlock()
	if j == nil {
		return
	}
	if err := s.store.Save(governorName, governor.RecordVersion, j); err != nil {
		s.log.Error("last known good backends not saved", "error", err)
	}
}
