// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/store"
)

// What is saved, and the version of its layout.
const (
	memoryName, memoryVersion = "rings", 1
	drainsName, drainsVersion = "drains", 1
)

// saver keeps the engine's memory on disk, behind the engine's back: of several that come while one
// is written, the last is. Its methods may be called from any goroutine.
type saver struct {
	store *store.Store
	log   *slog.Logger

	mu   sync.Mutex
	next *engine.Memory // guarded by mu; nil if all is saved
	more chan struct{}  // room for one: says that next is not nil
}

func newSaver(s *store.Store, log *slog.Logger) *saver {
	return &saver{store: s, log: log, more: make(chan struct{}, 1)}
}

// save has m written soon. It does not block.
func (s *saver) save(m *engine.Memory) {
	s.mu.Lock()
	s.next = m
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// saveRetry is how long after a failure the same is tried again.
const saveRetry = 10 * time.Second

// run writes until ctx ends, and then what is left.
func (s *saver) run(ctx context.Context) error {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return nil
		case <-s.more:
		case <-retry.C:
		}
		if !s.flush() {
			retry.Reset(saveRetry)
		}
	}
}

// flush writes what is to be written, and tells whether nothing is left. A failure is no reason to
// stop: rings are read back from the data plane where the file says less.
func (s *saver) flush() bool {
	s.mu.Lock()
	m := s.next
	s.next = nil
	s.mu.Unlock()
	if m == nil {
		return true
	}
	err := s.store.Save(memoryName, memoryVersion, m)
	if err == nil {
		return true
	}
	s.log.Error("history of rings not saved", "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = m
	}
	return false
}

// loadMemory is what an earlier run saved; nil if there is nothing that can be used.
func loadMemory(s *store.Store, log *slog.Logger) *engine.Memory {
	var m engine.Memory
	if !s.Recall(memoryName, memoryVersion, &m, log) {
		return nil
	}
	return &m
}
