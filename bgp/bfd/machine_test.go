// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

const (
	ourID   = 7
	peersID = 8
)

// newTestMachine has an interval of 100 ms and is in a state.
func newTestMachine(s State) *machine {
	m := newMachine(Config{Interval: 100 * time.Millisecond, Multiplier: 3}, ourID)
	m.state = s
	return m
}

// from is a packet of the peer in a state.
func from(s State) packet {
	return packet{state: s, multiplier: 5, mine: peersID, yours: ourID, desiredTx: 200 * time.Millisecond, requiredRx: 50 * time.Millisecond}
}

// TestTransitions is the whole table of RFC 5880 section 6.8.6.
func TestTransitions(t *testing.T) {
	for _, tc := range []struct {
		state, received, want State
		diag                  diagnostic
	}{
		{Down, AdminDown, Down, diagNone},
		{Down, Down, Init, diagNone},
		{Down, Init, Up, diagNone},
		{Down, Up, Down, diagNone},
		{Init, AdminDown, Down, diagNeighbourSignaled},
		{Init, Down, Init, diagNone},
		{Init, Init, Up, diagNone},
		{Init, Up, Up, diagNone},
		{Up, AdminDown, Down, diagNeighbourSignaled},
		{Up, Down, Down, diagNeighbourSignaled},
		{Up, Init, Up, diagNone},
		{Up, Up, Up, diagNone},
		{AdminDown, Down, AdminDown, diagNone},
		{AdminDown, Up, AdminDown, diagNone},
	} {
		t.Run(tc.state.String()+" receives "+tc.received.String(), func(t *testing.T) {
			m := newTestMachine(tc.state)
			m.receive(time.Now(), from(tc.received))
			if m.state != tc.want || m.diag != tc.diag {
				t.Errorf("state %v with diagnostic %d, want %v with %d", m.state, m.diag, tc.want, tc.diag)
			}
		})
	}
}

func TestExpiry(t *testing.T) {
	for _, tc := range []struct{ state, want State }{{Up, Down}, {Init, Down}, {Down, Down}} {
		m := newTestMachine(tc.state)
		if !m.deadline().IsZero() {
			t.Errorf("%v: there is a deadline before the first packet", tc.state)
		}
		now := time.Now()
		m.receive(now, from(Up))
		// Five packets may be missing, and the peer sends one per 200 ms.
		if got, want := m.deadline(), now.Add(time.Second); !got.Equal(want) {
			t.Errorf("%v: the deadline is after %v, want 1s", tc.state, got.Sub(now))
		}
		m.expire()
		if m.state != tc.want || m.yours != 0 || !m.deadline().IsZero() {
			t.Errorf("%v: after the deadline %+v", tc.state, m)
		}
	}
}

func TestIntervals(t *testing.T) {
	for _, tc := range []struct {
		name     string
		state    State
		remoteRx time.Duration
		want     time.Duration
	}{
		{"not up: slow", Down, 50 * time.Millisecond, time.Second},
		{"up: ours", Up, 50 * time.Millisecond, 100 * time.Millisecond},
		{"up: the peer cannot follow", Up, 400 * time.Millisecond, 400 * time.Millisecond},
		{"the peer wants none", Up, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newTestMachine(tc.state)
			m.remoteRx = tc.remoteRx
			if got := m.transmitInterval(); got != tc.want {
				t.Errorf("interval %v, want %v", got, tc.want)
			}
		})
	}
}

func TestJitter(t *testing.T) {
	for _, tc := range []struct {
		multiplier uint8
		random     float64
		want       time.Duration
	}{
		{3, 0, 75 * time.Millisecond},
		{3, 1, 100 * time.Millisecond},
		{1, 0, 75 * time.Millisecond},
		{1, 1, 90 * time.Millisecond},
	} {
		m := newTestMachine(Up)
		m.multiplier = tc.multiplier
		if got := m.jittered(100*time.Millisecond, tc.random).Round(time.Microsecond); got != tc.want {
			t.Errorf("multiplier %d, random %v: %v, want %v", tc.multiplier, tc.random, got, tc.want)
		}
	}
}

// TestPoll checks that a session that comes up asks until it is answered.
func TestPoll(t *testing.T) {
	m := newTestMachine(Init)
	if answer := m.receive(time.Now(), from(Up)); answer {
		t.Error("a packet without poll is answered")
	}
	if p := m.packet(false); !p.poll || p.final || p.desiredTx != 100*time.Millisecond {
		t.Errorf("the first packet is %+v", p)
	}
	asks := from(Up)
	asks.poll = true
	if answer := m.receive(time.Now(), asks); !answer {
		t.Error("a poll is not answered")
	}
	if p := m.packet(true); p.poll || !p.final {
		t.Errorf("the answer is %+v", p)
	}
	answers := from(Up)
	answers.final = true
	m.receive(time.Now(), answers)
	if p := m.packet(false); p.poll || p.final {
		t.Errorf("after the answer the packet is %+v", p)
	}
}

func TestValidate(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	require.NoError(t, Config{Local: v4, Remote: v4}.Validate())
	require.ErrorSays(t, Config{Local: v4, Remote: v6, Interval: time.Millisecond}.Validate(), "Local: is of another family", "Interval: 1ms")
	require.ErrorSays(t, Config{Remote: netip.MustParseAddr("fe80::1%eth0")}.Validate(), "Local: invalid IP", "Remote: fe80::1%eth0")
}
