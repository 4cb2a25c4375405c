// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package nexthop finds the link address that the frames to an address go to, and keeps it current.
//
// The packet program sends frames out of the interface that they came in by. So for each wanted
// address the kernel's route is looked up, the gateway on that interface (or the address itself, if
// it is on the link) is picked, and its neighbour entry gives the link address. The kernel's
// notifications about links, routes and neighbours say when to look again. Frames sent by the
// packet program neither resolve a neighbour nor keep it fresh, so the kernel is asked to do both.
//
// table.go, route.go, neighbour.go and probe.go decide, without touching the kernel; kernel.go and
// subscribe.go are netlink; session.go connects the two.
package nexthop

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/remora-lb/remora/lb"
	events "github.com/remora-lb/remora/lb/event"
)

// Watcher resolves a set of addresses and tells when a next hop changes. Its methods may be called
// from any goroutine. The owner calls Close after Run and Resolve have returned.
type Watcher struct {
	cfg    Config
	kernel kernel // nil if Config.asksKernel says no
	close  func()

	counters counters
	changed  chan struct{} // capacity 1: wanted was replaced

	mu     sync.Mutex
	wanted []netip.Addr
}

// counters are written by a session and read by Stats.
type counters struct {
	wanted, unresolved, stale atomic.Int64
	probes, resyncs           atomic.Uint64
}

// Stats says how a running Watcher is doing.
type Stats struct {
	// Wanted is the number of addresses, and Unresolved of those among them with a Problem.
	Wanted, Unresolved int
	// Stale is the number of neighbours that are used although the kernel has not heard of them
	// for a while. A neighbour that stays stale cannot be confirmed.
	Stale int
	// Probes counts the attempts to have a neighbour resolved or confirmed.
	Probes uint64
	// Resyncs counts the full reads of the kernel's state that were made because notifications
	// were lost or could not be read; those made at intervals do not count.
	Resyncs uint64
}

// New prepares a Watcher and starts nothing. It belongs to the network namespace of the calling
// thread, wherever Run is called later. If that namespace is not that of Run's thread too, Run
// needs CAP_SYS_ADMIN; apart from that, CAP_NET_ADMIN is all that is needed.
func New(cfg Config) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check next hop settings: %v", err)
	}
	w := &Watcher{cfg: cfg.withDefaults(), close: func() {}, changed: make(chan struct{}, 1)}
	if !w.cfg.asksKernel() {
		return w, nil
	}
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	w.kernel, w.close = k, sync.OnceFunc(k.close)
	return w, nil
}

// Close frees what New opened. Calling it again does nothing.
func (w *Watcher) Close() { w.close() }

// Want replaces the whole set of addresses to resolve. It does not block.
func (w *Watcher) Want(addrs []netip.Addr) {
	w.mu.Lock()
	w.wanted = slices.Clone(addrs)
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default: // Run has not yet seen the last signal, and will find this set with it
	}
}

// Run resolves the wanted addresses and calls Config.OnChange, until ctx ends; it then returns nil.
// An error means that the kernel's notifications could not be subscribed to at the start; whatever
// goes wrong later is logged and tried again. Only one Run may be under way.
func (w *Watcher) Run(ctx context.Context) error {
	s := newSession(w.cfg, w.kernel, &w.counters)
	s.publish = func(hops map[netip.Addr]lb.NextHop) (done bool) {
		w.cfg.OnChange(hops)
		return false
	}
	s.setWanted(w.currentlyWanted())
	return s.run(ctx, w.changed, w.currentlyWanted)
}

func (w *Watcher) currentlyWanted() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted
}

// Resolve returns the next hops of addrs, as soon as none has a Problem or when ctx ends. It is
// meant for one use without Run, and leaves the wanted set, OnChange and Stats alone.
func (w *Watcher) Resolve(ctx context.Context, addrs []netip.Addr) map[netip.Addr]lb.NextHop {
	hops := make(map[netip.Addr]lb.NextHop, len(addrs))
	if len(addrs) == 0 {
		return hops
	}
	cfg := w.cfg
	cfg.Log, cfg.Events = slog.New(slog.DiscardHandler), events.ToLog(nil) // the caller has the result
	s := newSession(cfg, w.kernel, &counters{})
	s.publish = func(now map[netip.Addr]lb.NextHop) (done bool) {
		hops = now
		return allResolved(now)
	}
	s.setWanted(addrs)
	if err := s.run(ctx, nil, nil); err != nil {
		return unresolved(addrs, err.Error())
	}
	if len(hops) == 0 {
		return unresolved(addrs, "the kernel was not asked in time")
	}
	return hops
}

func allResolved(hops map[netip.Addr]lb.NextHop) bool {
	for h := range maps.Values(hops) {
		if !h.Resolved() {
			return false
		}
	}
	return true
}

func unresolved(addrs []netip.Addr, problem string) map[netip.Addr]lb.NextHop {
	hops := make(map[netip.Addr]lb.NextHop, len(addrs))
	for _, a := range addrs {
		hops[a] = lb.NextHop{Problem: problem}
	}
	return hops
}

// Stats reads the counters; those of Run, not of Resolve.
func (w *Watcher) Stats() Stats {
	return Stats{
		Wanted:     int(w.counters.wanted.Load()),
		Unresolved: int(w.counters.unresolved.Load()),
		Stale:      int(w.counters.stale.Load()),
		Probes:     w.counters.probes.Load(),
		Resyncs:    w.counters.resyncs.Load(),
	}
}
