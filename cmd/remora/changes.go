// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/event"
)

// This file makes events of what those know who do not know events.

// announcementEvent is a VIP's new state, from the state before, which has no VIP if there was none.
func announcementEvent(before, now announce.Status) event.Event {
	from := "none"
	if before.VIP != (lb.VIP{}) {
		from = before.State.String()
	}
	return event.Event{Kind: event.KindAnnouncement, VIP: now.VIP, From: from, To: now.State.String(),
		Cause: fmt.Sprintf("%s: %s", now.Code, now.Reason)}
}

// sessionTeller tells which sessions with routers changed. Its method may be called from any goroutine.
type sessionTeller struct {
	events event.Sink

	mu   sync.Mutex
	last map[netip.Addr]bgp.Session // guarded by mu
}

func newSessionTeller(events event.Sink) *sessionTeller {
	return &sessionTeller{events: events, last: make(map[netip.Addr]bgp.Session)}
}

// see takes in all sessions. Those that are tried in vain go from state to state every few seconds: only
// their beginning and their end is told.
func (t *sessionTeller) see(sessions []bgp.Session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, now := range sessions {
		before, known := t.last[now.Peer]
		if !known {
			before = bgp.Session{State: bgp.Idle, BFD: now.BFD}
		}
		t.last[now.Peer] = now
		if (before.State == bgp.Established) != (now.State == bgp.Established) {
			t.events.Emit(sessionEvent(before, now))
		}
		if before.BFD != now.BFD {
			t.events.Emit(event.Event{Kind: event.KindBFD, Peer: now.Peer, From: before.BFD, To: now.BFD})
		}
	}
}

func sessionEvent(before, now bgp.Session) event.Event {
	e := event.Event{Kind: event.KindSession, Peer: now.Peer, From: string(before.State), To: string(now.State),
		Cause: fmt.Sprintf("AS %d", now.ASN)}
	if now.State != bgp.Established {
		e.Level, e.Cause = slog.LevelWarn, now.LastError
	}
	return e
}
