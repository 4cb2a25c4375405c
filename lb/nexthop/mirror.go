// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// This file keeps a session's table equal to the kernel's state.

// subscribe opens a subscription, which replaces that which there may be, and starts its reader.
// The state has to be read afterwards.
func (s *session) subscribe() error {
	sub, err := s.kernel.subscribe()
	if err != nil {
		return err
	}
	s.unsubscribe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.inbox.fill(sub)
	}()
	s.sub, s.readerDone = sub, done
	return nil
}

// unsubscribe ends the subscription and its reader. What they left in the inbox is thrown away: it is
// older than what will be read now, and the notification that would correct it may be lost.
func (s *session) unsubscribe() {
	if s.sub == nil {
		return
	}
	s.sub.close()
	<-s.readerDone
	s.sub = nil
	s.inbox.take()
}

// subscribeLater plans another subscription after a failure, later each time. One that still gives
// notifications goes on until then.
func (s *session) subscribeLater(now time.Time, what string, err error) {
	wait := s.resubscribe.next(now)
	s.log.Warn(what, "err", err, "retry_in", wait)
	s.subscribeAt = now.Add(wait)
}

// subscribeAgain replaces a subscription that failed, and has everything read.
func (s *session) subscribeAgain(now time.Time) {
	if err := s.subscribe(); err != nil {
		s.subscribeLater(now, "cannot subscribe to the kernel's notifications", err)
		return
	}
	s.resyncForced, s.resyncAt = true, now
}

// readNews applies what the kernel reported.
func (s *session) readNews(now time.Time) {
	n := s.inbox.take()
	for key, entry := range n.neighbours {
		if key.index == s.table.link.index {
			s.setNeighbour(key.addr, entry)
		}
	}
	if n.links {
		s.readLink(now)
	}
	if n.links || n.routes {
		s.routesAt = now
		if s.routesRest.After(now) {
			s.routesAt = s.routesRest
		}
	}
	if n.failure != nil && s.subscribeAt.IsZero() {
		s.subscribeLater(now, "notifications of the kernel were lost", n.failure)
	}
}

func (s *session) setNeighbour(addr netip.Addr, entry neighbour) {
	if s.table.neighbours[addr] == entry {
		return
	}
	s.changed = true
	if entry == (neighbour{}) {
		delete(s.table.neighbours, addr)
		return
	}
	s.table.neighbours[addr] = entry
}

// readLink reads the interface. One that was made anew has other neighbours.
func (s *session) readLink(now time.Time) {
	l, err := s.kernel.link(s.cfg.Interface)
	if err != nil {
		s.resyncLater(now, "cannot read the interface", err)
		return
	}
	if l == s.table.link {
		return
	}
	remade := l.index != s.table.link.index
	s.table.link, s.changed = l, true
	if remade {
		s.readNeighbours(now)
	}
}

func (s *session) readNeighbours(now time.Time) bool {
	if s.table.fixed != nil {
		return true
	}
	entries, err := s.kernel.neighbours(s.table.link.index)
	if err != nil {
		s.resyncLater(now, "cannot read the neighbours", err)
		return false
	}
	if !maps.Equal(entries, s.table.neighbours) {
		s.table.neighbours, s.changed = entries, true
	}
	return true
}

// resyncLater plans a resync after a failure to read, later each time.
func (s *session) resyncLater(now time.Time, what string, err error) {
	if s.resyncForced && !s.resyncAt.IsZero() {
		return // planned already
	}
	wait := s.rereads.next(now)
	s.log.Warn(what, "err", err, "resync_in", wait)
	s.resyncForced, s.resyncAt = true, now.Add(wait)
}

// resync reads everything. What happens meanwhile is also notified, and applied after it, so nothing
// is missed.
func (s *session) resync(now time.Time) {
	if s.resyncForced {
		s.counters.resyncs.Add(1)
	}
	s.resyncForced = false
	l, err := s.kernel.link(s.cfg.Interface)
	if err != nil {
		s.resyncLater(now, "cannot read the interface", err)
		return
	}
	if l != s.table.link {
		s.table.link, s.changed = l, true
	}
	if !s.readNeighbours(now) {
		return
	}
	s.synced = true
	s.resyncAt = now.Add(s.cfg.ResyncInterval)
	s.lookUpAll(now)
}

// lookUpAll looks up the route to every wanted address.
func (s *session) lookUpAll(now time.Time) {
	s.routesAt = time.Time{}
	if s.table.fixed != nil {
		return
	}
	start := time.Now()
	for _, dst := range s.wanted {
		if !s.lookUp(now, dst) {
			return
		}
	}
	end := time.Now()
	s.routesRest = end.Add(lookUpRest * end.Sub(start))
}

// lookUpNew looks up the routes to addresses that have none yet, and forgets those of addresses
// that are not wanted any more.
func (s *session) lookUpNew(now time.Time) {
	s.newlyWanted = false
	if s.table.fixed != nil {
		return
	}
	maps.DeleteFunc(s.table.routes, func(dst netip.Addr, _ route) bool {
		_, found := slices.BinarySearchFunc(s.wanted, dst, netip.Addr.Compare)
		return !found
	})
	for _, dst := range s.wanted {
		if _, ok := s.table.routes[dst]; !ok && !s.lookUp(now, dst) {
			return
		}
	}
}

// lookUp looks up one route. A failure leaves the old one in force.
func (s *session) lookUp(now time.Time, dst netip.Addr) (ok bool) {
	r, err := s.kernel.route(dst, s.table.link)
	if err != nil {
		s.resyncLater(now, "cannot look up a route", err)
		return false
	}
	if old, ok := s.table.routes[dst]; !ok || !old.equal(r) {
		s.table.routes[dst], s.changed = r, true
	}
	return true
}
