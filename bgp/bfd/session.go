// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"context"
	"io"
	"math/rand/v2"
	"time"
)

// inboxLen is how many received packets may wait for their session. More are dropped: what counts
// is the last.
const inboxLen = 8

// session drives a machine with the clock and a socket. Only run's goroutine touches the machine.
type session struct {
	machine *machine
	conn    io.Writer
	inbox   chan packet
	changed func(State, bool)

	// send fires when the next packet is due, expiry at the machine's deadline.
	send, expiry *time.Timer
	// stalled tells that expiry was late once since the last packet, see detect.
	stalled bool
}

func newSession(cfg Config, conn io.Writer) *session {
	return &session{
		machine: newMachine(cfg, rand.Uint32()|1), // 0 is no discriminator
		conn:    conn,
		inbox:   make(chan packet, inboxLen),
		changed: cfg.OnChange,
	}
}

// deliver hands over a packet from the peer's address.
func (s *session) deliver(p packet) {
	select {
	case s.inbox <- p:
	default:
	}
}

func (s *session) run(ctx context.Context) {
	s.send, s.expiry = time.NewTimer(0), time.NewTimer(time.Hour)
	s.expiry.Stop()
	defer s.send.Stop()
	defer s.expiry.Stop()
	for {
		before := s.machine.state
		select {
		case <-ctx.Done():
			s.machine.close()
			s.transmit(false)
			s.changed(AdminDown, false)
			return
		case p := <-s.inbox:
			s.receive(p)
		case <-s.expiry.C:
			s.detect(time.Now())
		case <-s.send.C:
			s.transmit(false)
			s.arm()
		}
		if after := s.machine.state; after != before {
			s.changed(after, s.machine.diag == diagDetectionExpired)
			s.send.Reset(0) // the peer learns of it at once
		}
	}
}

func (s *session) receive(p packet) {
	if !s.machine.accepts(p) {
		return
	}
	before := s.machine.transmitInterval()
	answer := s.machine.receive(time.Now(), p)
	s.stalled = false
	s.watch()
	if answer {
		s.transmit(true)
	}
	// The peer counts its detection time from now with an interval shorter than that of the
	// running timer, or wants packets again.
	if after := s.machine.transmitInterval(); after < before || before == 0 {
		s.arm()
	}
}

// watch sets the expiry timer to the machine's deadline.
func (s *session) watch() {
	if d := s.machine.deadline(); d.IsZero() {
		s.expiry.Stop()
	} else {
		s.expiry.Reset(time.Until(d))
	}
}

// detect takes note that nothing came until the deadline. A timer that fires much too late says
// that this process stood still, not the peer: what came meanwhile is still to be read, so the
// peer gets one interval more.
func (s *session) detect(now time.Time) {
	late := now.Sub(s.machine.deadline())
	if late > s.machine.interval && !s.stalled {
		s.stalled = true
		s.expiry.Reset(s.machine.interval)
		return
	}
	s.machine.expire()
}

// arm sets the time of the next packet.
func (s *session) arm() {
	interval := s.machine.transmitInterval()
	if interval == 0 {
		s.send.Stop()
		return
	}
	s.send.Reset(s.machine.jittered(interval, rand.Float64()))
}

// transmit sends a packet. Errors are what BFD is there to find: the peer is not there (connection
// refused) or not reachable, and the next packet is due soon.
func (s *session) transmit(final bool) {
	_, _ = s.conn.Write(s.machine.packet(final).encode())
}
