// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"strconv"
	"time"
)

// State is the state of a session (RFC 5880 section 4.1).
type State uint8

// The states, by their numbers on the wire.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

func (s State) String() string {
	switch s {
	case AdminDown:
		return "admin down"
	case Down:
		return "down"
	case Init:
		return "init"
	case Up:
		return "up"
	}
	return "state " + strconv.Itoa(int(s))
}

// diagnostic says why the session last left the state Up (RFC 5880 section 4.1).
type diagnostic uint8

const (
	diagNone              diagnostic = 0
	diagDetectionExpired  diagnostic = 1
	diagNeighbourSignaled diagnostic = 3
	diagAdminDown         diagnostic = 7
)

// slowInterval is the shortest time between two packets while a session is not up (RFC 5880
// section 6.8.3).
const slowInterval = time.Second

// machine is the state of one session as a pure type: packets and times go in, packets and
// deadlines come out.
type machine struct {
	// interval is both how often we want to send and how often we can receive.
	interval   time.Duration
	multiplier uint8
	mine       uint32

	state State
	diag  diagnostic
	// polling tells that the packets ask for an answer, which ends it: the peer then knows our
	// present interval.
	polling bool

	// What the peer said last.
	yours            uint32
	remoteTx         time.Duration
	remoteRx         time.Duration
	remoteMultiplier uint8
	received         time.Time
}

func newMachine(cfg Config, discriminator uint32) *machine {
	return &machine{
		interval:   cfg.Interval,
		multiplier: cfg.Multiplier,
		mine:       discriminator,
		state:      Down,
		remoteRx:   time.Microsecond, // RFC 5880 section 6.8.1
	}
}

// accepts tells whether a packet from the peer's address is for this session.
func (m *machine) accepts(p packet) bool { return p.yours == 0 || p.yours == m.mine }

// receive takes a packet in. It returns whether the peer wants an answer at once.
func (m *machine) receive(now time.Time, p packet) (answer bool) {
	if m.state == AdminDown {
		return false
	}
	m.yours, m.received = p.mine, now
	m.remoteTx, m.remoteRx, m.remoteMultiplier = p.desiredTx, p.requiredRx, p.multiplier
	if p.final {
		m.polling = false
	}
	m.transition(p.state)
	return p.poll
}

// transition is the state machine of RFC 5880 section 6.8.6, for a packet with the peer's state.
func (m *machine) transition(remote State) {
	switch {
	case remote == AdminDown && m.state != Down:
		m.set(Down, diagNeighbourSignaled)
	case m.state == Down && remote == Down:
		m.set(Init, diagNone)
	case m.state == Down && remote == Init:
		m.set(Up, diagNone)
	case m.state == Init && (remote == Init || remote == Up):
		m.set(Up, diagNone)
	case m.state == Up && remote == Down:
		m.set(Down, diagNeighbourSignaled)
	}
}

func (m *machine) set(s State, d diagnostic) {
	m.state, m.diag = s, d
	m.polling = s == Up // tell the peer about the shorter interval
}

// deadline is when the peer counts as gone if nothing more comes; the zero time if nothing is
// awaited.
func (m *machine) deadline() time.Time {
	detect := m.detectionTime()
	if m.yours == 0 || detect == 0 {
		return time.Time{}
	}
	return m.received.Add(detect)
}

// detectionTime is as in RFC 5880 section 6.8.4.
func (m *machine) detectionTime() time.Duration {
	return time.Duration(m.remoteMultiplier) * max(m.interval, m.remoteTx)
}

// expire takes note that the deadline passed.
func (m *machine) expire() {
	m.yours = 0
	if m.state == Up || m.state == Init {
		m.set(Down, diagDetectionExpired)
	}
}

// close ends the session; the next packet tells the peer.
func (m *machine) close() { m.set(AdminDown, diagAdminDown) }

// desiredTx is how often we want to send.
func (m *machine) desiredTx() time.Duration {
	if m.state == Up {
		return m.interval
	}
	return max(m.interval, slowInterval)
}

// transmitInterval is the time between two packets without jitter; 0 if the peer wants none.
func (m *machine) transmitInterval() time.Duration {
	if m.remoteRx == 0 {
		return 0
	}
	return max(m.desiredTx(), m.remoteRx)
}

// jittered shortens an interval at random by up to a quarter, and with multiplier 1 by at least a
// tenth (RFC 5880 section 6.8.7). random is in [0, 1).
func (m *machine) jittered(interval time.Duration, random float64) time.Duration {
	most := 1.0
	if m.multiplier == 1 {
		most = 0.9
	}
	return time.Duration(float64(interval) * (0.75 + (most-0.75)*random))
}

// packet is what to send now; final answers a poll.
func (m *machine) packet(final bool) packet {
	return packet{
		state:      m.state,
		diag:       m.diag,
		poll:       m.polling && !final,
		final:      final,
		multiplier: m.multiplier,
		mine:       m.mine,
		yours:      m.yours,
		desiredTx:  m.desiredTx(),
		requiredRx: m.interval,
	}
}
