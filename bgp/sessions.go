// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"net/netip"
	"sync"
	"time"
)

// SessionState is the state of a session (RFC 4271 section 8.2.2).
type SessionState string

// The states.
const (
	Idle        SessionState = "idle"
	Connect     SessionState = "connect"
	Active      SessionState = "active"
	OpenSent    SessionState = "opensent"
	OpenConfirm SessionState = "openconfirm"
	Established SessionState = "established"
)

// Session is what there is to know about one peer.
type Session struct {
	Peer  netip.Addr
	ASN   uint32
	State SessionState
	// Since is when the session took its state; for a session that is not established, when it
	// was last established or the speaker was made.
	Since time.Time
	// LastError is the last thing that went wrong, also if it has passed; empty if nothing did.
	LastError string
	// LastErrorAt is when that was.
	LastErrorAt time.Time
	// Routes are how many routes the peer is sent: 0 unless the session is established.
	Routes int
	// Flaps counts how often an established session was lost.
	Flaps uint64
	// BFD is the state of the BFD session: off, or as in package bfd.
	BFD string
}

// Uptime is how long the session has been established; 0 if it is not.
func (s Session) Uptime(now time.Time) time.Duration {
	if s.State != Established {
		return 0
	}
	return now.Sub(s.Since)
}

// bfdOff is Session.BFD without a BFD session.
const bfdOff = "off"

// sessions are the states of all peers. Its methods may be called concurrently.
type sessions struct {
	mu    sync.Mutex
	peers []Session
	// counts are how many routes each peer gets when it is established, in the order of peers.
	counts []int
	// wasUp tells of each peer whether it has been established before, in the order of peers.
	wasUp []bool

	// telling is held while changed runs, so that the last call has the last state.
	telling sync.Mutex
	changed func([]Session)
}

func newSessions(peers []Peer, now time.Time, changed func([]Session)) *sessions {
	s := &sessions{counts: make([]int, len(peers)), wasUp: make([]bool, len(peers)), changed: changed}
	for _, p := range peers {
		s.peers = append(s.peers, Session{Peer: p.Address, ASN: p.ASN, State: Idle, Since: now, BFD: bfdOff})
	}
	return s
}

// list returns a copy.
func (s *sessions) list() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Session, len(s.peers))
	copy(list, s.peers)
	for i := range list {
		if list[i].State == Established {
			list[i].Routes = s.counts[i]
		}
	}
	return list
}

// update changes a peer's session, if there is such a peer.
func (s *sessions) update(peer netip.Addr, change func(*Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.peers {
		if s.peers[i].Peer == peer {
			change(&s.peers[i])
			s.wasUp[i] = s.wasUp[i] || s.peers[i].State == Established
		}
	}
}

// setState notes a new state and returns the one before.
func (s *sessions) setState(peer netip.Addr, state SessionState, now time.Time) (before SessionState) {
	s.update(peer, func(p *Session) {
		before = p.State
		if (state == Established) != (before == Established) {
			p.Since = now
		}
		if before == Established && state != Established {
			p.Flaps++
		}
		p.State = state
	})
	if before != state {
		s.tell()
	}
	return before
}

func (s *sessions) setBFD(peer netip.Addr, state string) {
	s.update(peer, func(p *Session) { p.BFD = state })
	s.tell()
}

// everEstablished tells whether peer i has been established before.
func (s *sessions) everEstablished(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wasUp[i]
}

// setError tells nobody: a change of state comes with it, or nothing changed.
func (s *sessions) setError(peer netip.Addr, text string) {
	s.update(peer, func(p *Session) { p.LastError, p.LastErrorAt = text, time.Now() })
}

// lastError returns a peer's last error.
func (s *sessions) lastError(peer netip.Addr) (text string) {
	s.update(peer, func(p *Session) { text = p.LastError })
	return text
}

// count notes how many of the routes each peer gets.
func (s *sessions) count(peers []Peer, routes table) {
	counts := make([]int, len(peers))
	for i, p := range peers {
		for prefix := range routes {
			if p.wants(prefix) {
				counts[i]++
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = counts
}

func (s *sessions) tell() {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.changed(s.list())
}
