// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// WatchKind is what is read.
type WatchKind string

// The kinds. The names are stable.
const (
	// WatchService is a service of a Watch; Name is the watch's.
	WatchService WatchKind = "service"
	// WatchClaims is a service that may claim; Name is Consul's.
	WatchClaims WatchKind = "claims"
	// WatchCatalogue is the list of services; it has no name.
	WatchCatalogue WatchKind = "catalogue"
	// WatchFolder is a folder of the key-value store; Name is its prefix.
	WatchFolder WatchKind = "folder"
)

func serviceKind(claims bool) WatchKind {
	if claims {
		return WatchClaims
	}
	return WatchService
}

// WatchStatus is how the reading of one thing goes since it began.
type WatchStatus struct {
	Kind WatchKind
	Name string
	// Index is Consul's, of the last whole answer; Changed is when it changed last, Answered when that
	// answer came. They are zero if there was none.
	Index             uint64
	Changed, Answered time.Time
	// Errors counts queries without a whole answer; Failing tells that the last was one.
	Errors  uint64
	Failing bool
}

// watching is the status of all readers that run. Its methods may be called from any goroutine.
type watching struct {
	mu  sync.Mutex
	all map[*WatchStatus]bool // what they point to is guarded by mu
}

// begin adds a reader's status; end takes it away.
func (w *watching) begin(s *WatchStatus) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[*WatchStatus]bool)
	}
	w.all[s] = true
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, s)
	}
}

// note takes in the end of a query.
func (w *watching) note(s *WatchStatus, f Facts, whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Failing = !whole
	if !whole {
		s.Errors++
		return
	}
	if f.Index != s.Index || s.Answered.IsZero() {
		s.Index, s.Changed = f.Index, f.At
	}
	s.Answered = f.At
}

// Watches is the status of all that is read now, by kind and name.
func (s *Source) Watches() []WatchStatus {
	w := &s.connections.watching
	w.mu.Lock()
	list := make([]WatchStatus, 0, len(w.all))
	for one := range w.all {
		list = append(list, *one)
	}
	w.mu.Unlock()
	slices.SortFunc(list, func(a, b WatchStatus) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}
