// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Fleet is what balancers are told of the servers behind their VIP.
type Fleet struct {
	Backends []lb.Backend
	// Drains are the backends among them that an operator drains.
	Drains []netip.Addr
}

// serverState is what may be sent to a server.
type serverState uint8

const (
	serverAbsent  serverState = iota // not configured, and without flows
	serverActive                     // gets new flows and its own
	serverDrained                    // its own flows only, as an operator wants it
	serverRemoved                    // its own flows only, since it is not configured any more
	serverDoubted                    // its own flows only: it is down, but has time to come back
	serverDown                       // nothing: it is down, and its flows are given to others
)

// keepsFlows tells whether the server's flows must go on being sent to it.
func (s serverState) keepsFlows() bool { return s != serverAbsent && s != serverDown }

// servers is the fleet as it is meant to be. The goroutine of a scenario changes it, that of the packets
// reads it, so the methods below want mu to be held, but for change.
type servers struct {
	mu  sync.Mutex
	all []server
	// changes are when they were made: from when they were asked for until the last balancer had them,
	// with no end while one has not.
	changes []span
}

type server struct {
	addr   netip.Addr
	weight uint32
	state  serverState
	past   []spell
}

// spell is an earlier state of a server, and when the last balancer left it; zero if that is not known
// yet.
type spell struct {
	state serverState
	until time.Time
}

// initialWeight leaves room for lighter and heavier ones.
const initialWeight = 10

// newServers has n active servers, and as many that are absent.
func newServers(n int) *servers {
	s := &servers{all: make([]server, 2*n)}
	for i := range s.all {
		s.all[i] = server{addr: netip.AddrFrom4([4]byte{10, 201, byte(i >> 8), byte(i)}), weight: initialWeight}
		if i < n {
			s.all[i].state = serverActive
		}
	}
	return s
}

// change has f change the fleet and apply make it so.
func (s *servers) change(f func(), apply func(Fleet) error) error {
	s.mu.Lock()
	f()
	s.changes = append(s.changes, span{from: time.Now()})
	fleet := s.fleet()
	s.mu.Unlock()
	if err := apply(fleet); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.changes[len(s.changes)-1].to = now
	for i := range s.all {
		for j := range s.all[i].past {
			if p := &s.all[i].past[j]; p.until.IsZero() {
				p.until = now
			}
		}
	}
	return nil
}

func (s *servers) fleet() Fleet {
	var f Fleet
	for _, one := range s.all {
		if one.state == serverAbsent || one.state == serverRemoved {
			continue
		}
		down := one.state == serverDown || one.state == serverDoubted
		f.Backends = append(f.Backends, lb.Backend{Addr: one.addr, Weight: one.weight, Down: down})
		if one.state == serverDrained {
			f.Drains = append(f.Drains, one.addr)
		}
	}
	return f
}

// set gives a server a state.
func (s *servers) set(i int, state serverState) {
	one := &s.all[i]
	one.past = append(one.past, spell{state: one.state})
	one.state = state
}

// in are the servers in one of these states.
func (s *servers) in(states ...serverState) (found []int) {
	for i, one := range s.all {
		if slices.Contains(states, one.state) {
			found = append(found, i)
		}
	}
	return found
}

// turn gives n random servers that are in one of these states another one; fewer, if there are no
// more.
func (s *servers) turn(rng *rand.Rand, n int, to serverState, from ...serverState) {
	found := s.in(from...)
	rng.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	for _, i := range found[:min(n, len(found))] {
		s.set(i, to)
	}
}

// reweight gives n random active servers another weight.
func (s *servers) reweight(rng *rand.Rand, n int) {
	active := s.in(serverActive)
	for range n {
		s.all[active[rng.IntN(len(active))]].weight = uint32(1 + rng.IntN(2*initialWeight))
	}
}

// index is that of the server with the address, -1 if there is none.
func (s *servers) index(addr netip.Addr) int {
	a := addr.As4()
	i := int(a[2])<<8 | int(a[3])
	if i >= len(s.all) || s.all[i].addr != addr {
		return -1
	}
	return i
}

// was tells whether the server has been in such a state for a balancer since then.
func (s *servers) was(i int, since time.Time, such func(serverState) bool) bool {
	one := s.all[i]
	return such(one.state) || slices.ContainsFunc(one.past, func(p spell) bool {
		return (p.until.IsZero() || p.until.After(since)) && such(p.state)
	})
}
