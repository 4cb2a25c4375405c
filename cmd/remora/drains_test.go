// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/store"
	"github.com/remora-lb/remora/test/require"
)

// drainBed is the drains with what is around them: an engine's status, and a flow table.
type drainBed struct {
	*drains
	dir    string
	real   engine.RealStatus
	more   []engine.RealStatus // of the same backend
	swept  time.Time
	table  flowCount
	gone   bool // the flow table
	handed map[lb.Target]engine.Drain
	now    time.Time
	events *event.Log // of all its lives
}

func drainTarget() lb.Target {
	return lb.Target{
		VIP:     lb.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: lb.TCP},
		Backend: netip.MustParseAddr("10.20.0.11"),
	}
}

func newDrainBed(t *testing.T) *drainBed {
	t.Helper()
	b := &drainBed{dir: t.TempDir(), now: time.Now(), events: event.NewLog(nil)}
	b.real.Backend.Addr, b.real.VIP = drainTarget().Backend, drainTarget().VIP
	b.start(t)
	return b
}

// start is what a daemon does that begins.
func (b *drainBed) start(t *testing.T) {
	t.Helper()
	s, err := store.Open(b.dir)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	b.drains = &drains{
		store: s, log: slog.New(slog.DiscardHandler), events: b.events, added: make(chan struct{}, 1), set: make(map[lb.Target]*drain),
		status: b.engineStatus,
		hand:   func(d map[lb.Target]engine.Drain) { b.handed = d },
		count: func() (map[lb.Target]flowCount, error) {
			if b.gone {
				return nil, errors.New("no flow table")
			}
			return map[lb.Target]flowCount{drainTarget(): b.table}, nil
		},
	}
	b.drains.load(b.now)
}

func (b *drainBed) engineStatus() engine.Status {
	return engine.Status{Settled: true, Swept: b.swept, Services: []engine.ServiceStatus{
		{VIPs: []engine.VIPStatus{{VIPEntry: lb.VIPEntry{VIP: drainTarget().VIP}, Reals: append([]engine.RealStatus{b.real}, b.more...)}}},
	}}
}

// drain begins one, and has the engine take it in.
func (b *drainBed) drain(t *testing.T, timeout time.Duration) {
	t.Helper()
	require.NoError(t, b.add(map[lb.Target]time.Time{drainTarget(): b.now.Add(timeout)}, b.now))
	d := b.handed[drainTarget()]
	b.real.Use, b.real.PrevSlots = lb.RealDraining, 10
	b.real.Absence = engine.Absence{Cause: engine.CauseDrain, Since: d.Since, Until: d.Until}
}

// after looks when some time has passed, with so many flows in the flow table.
func (b *drainBed) after(d time.Duration, flows, active int) {
	b.now = b.now.Add(d)
	b.swept, b.table = b.now, flowCount{flows, active}
	b.real.Flows, b.real.Active = flows, active
	b.look(b.now)
}

func (b *drainBed) expect(t *testing.T, when string, state control.DrainState, flows, active int) {
	t.Helper()
	list := b.list(control.Selection{}.Names)
	if len(list) != 1 || list[0].State != state || list[0].Flows != flows || list[0].Active != active {
		t.Fatalf("%s: %+v, want state %d with %d active of %d flows", when, list, state, active, flows)
	}
	if _, handed := b.handed[drainTarget()]; !handed {
		t.Errorf("%s: the engine does not know of the drain", when)
	}
}

// TestDrainIsDone when no flow is seen, but says so only: the engine goes on with it until the deadline.
func TestDrainIsDone(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Minute)
	b.after(30*time.Second, 7, 0)
	b.expect(t, "half a minute without a packet", control.DrainRunning, 7, 0)
	b.after(40*time.Second, 7, 2)
	b.expect(t, "flows are active", control.DrainRunning, 7, 2)
	b.after(time.Minute, 7, 0)
	b.expect(t, "none was for a minute", control.DrainDone, 7, 0)
	if d := b.handed[drainTarget()]; !d.Until.Equal(b.real.Absence.Until) {
		t.Errorf("the engine's deadline is %v", d.Until)
	}
	b.after(time.Minute, 7, 1)
	b.expect(t, "one wakes", control.DrainRunning, 7, 1)
	b.after(time.Minute, 0, 0)
	b.real.Unnamed = b.now
	b.after(time.Minute, 0, 0)
	b.expect(t, "nothing is left", control.DrainDone, 0, 0)
}

func TestDrainOfStatelessFlowsIsDoneAtOnce(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Minute)
	b.real.PrevSlots, b.real.Unnamed = 0, b.now
	b.after(time.Second, 0, 0)
	b.expect(t, "after a look over the flow table", control.DrainDone, 0, 0)
}

func TestDrainDeadline(t *testing.T) {
	for _, tc := range []struct {
		name          string
		flows, active int
		want          control.DrainState
	}{
		{"no flow", 0, 0, control.DrainDone},
		{"flows that are not active", 7, 0, control.DrainDone},
		{"active flows", 7, 2, control.DrainExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newDrainBed(t)
			b.drain(t, 10*time.Second)
			b.after(9900*time.Millisecond, tc.flows, tc.active)
			b.real.Use, b.real.Flows, b.real.Active = lb.RealRetired, 0, 0 // as others have its flows
			b.now = b.now.Add(time.Second)
			b.look(b.now)
			b.expect(t, "after the deadline", tc.want, tc.flows, tc.active)
			b.start(t)
			b.look(b.now)
			b.expect(t, "after a restart", tc.want, tc.flows, tc.active)
		})
	}
}

// TestDrainDeadlineWithoutDaemon: that is no drain that was done.
func TestDrainDeadlineWithoutDaemon(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before        flowCount // that were known when the daemon ended
		done          bool      // by then
		table         flowCount
		gone          bool
		want          control.DrainState
		flows, active int
	}{
		{name: "active flows", before: flowCount{7, 2}, table: flowCount{5, 1}, want: control.DrainExpired, flows: 5, active: 1},
		{name: "none are left", before: flowCount{7, 2}, want: control.DrainExpired},
		{name: "the flow table is gone", before: flowCount{7, 2}, gone: true, want: control.DrainExpired, flows: 7, active: 2},
		{name: "it was done", before: flowCount{7, 0}, done: true, want: control.DrainDone, flows: 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newDrainBed(t)
			b.drain(t, 10*time.Minute)
			if tc.done {
				b.after(2*time.Minute, tc.before.flows, tc.before.active)
			} else {
				b.after(2*time.Minute, 9, 0)
				b.after(time.Second, tc.before.flows, tc.before.active) // a change, which is saved
			}
			b.now, b.table, b.gone = b.now.Add(time.Hour), tc.table, tc.gone
			b.start(t)
			b.look(b.now)
			b.expect(t, "after the restart", tc.want, tc.flows, tc.active)
		})
	}
}

// TestDrainAfterRestart: as it was, before the flow table was looked over too, and with a deadline that
// does not follow the wall clock.
func TestDrainAfterRestart(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Minute)
	until := b.handed[drainTarget()].Until
	b.after(2*time.Minute, 7, 0)
	b.swept = time.Time{}
	b.start(t)
	b.look(b.now)
	b.expect(t, "after the restart", control.DrainDone, 7, 0)
	again := b.handed[drainTarget()].Until
	if !again.Equal(until) || again == again.Round(0) {
		t.Errorf("the deadline is %v, was %v", again, until)
	}
}

// TestDrainDeadlineSoonAfterRestart: before the engine has looked over the flow table, it is counted.
func TestDrainDeadlineSoonAfterRestart(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Second)
	b.start(t)
	b.table = flowCount{7, 2}
	b.now = b.now.Add(9900 * time.Millisecond)
	b.look(b.now)
	b.now = b.now.Add(time.Second)
	b.look(b.now)
	b.expect(t, "after the deadline", control.DrainExpired, 7, 2)
}

// TestDrainOfTwoTunnels: a backend whose tunnel changed is drained when both of its reals are.
func TestDrainOfTwoTunnels(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Minute)
	old := b.real
	old.Absence.Cause, old.Flows, old.Active = engine.CauseRemoved, 5, 1
	b.more = []engine.RealStatus{old}
	b.after(2*time.Minute, 7, 0)
	b.expect(t, "the old real has an active flow", control.DrainRunning, 12, 1)
	b.more[0].Active = 0
	b.after(time.Second, 7, 0)
	b.expect(t, "none has", control.DrainDone, 12, 0)
}

// told are the events of the drain: from>to.
func (b *drainBed) told() string {
	var list []string
	events, _ := b.events.After(0)
	for _, e := range events {
		list = append(list, e.From+">"+e.To)
	}
	return strings.Join(list, " ")
}

// TestDrainEvents: each change is told, also what happened while no daemon ran.
func TestDrainEvents(t *testing.T) {
	b := newDrainBed(t)
	b.drain(t, 10*time.Minute)
	b.after(2*time.Minute, 7, 0)
	b.after(time.Second, 7, 2)
	b.now = b.now.Add(time.Hour)
	b.start(t)
	b.drain(t, time.Minute)
	_, err := b.end([]lb.Target{drainTarget()})
	require.NoError(t, err)
	const want = "none>running running>done done>running running>expired expired>running running>ended"
	if got := b.told(); got != want {
		t.Errorf("it tells %s, want %s", got, want)
	}
}

// TestDrainIsSavedLater: what cannot be saved is saved when it can be, also if nothing else changes.
func TestDrainIsSavedLater(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  bool
	}{{"a drain", false}, {"none is left", true}} {
		t.Run(tc.name, func(t *testing.T) {
			b := newDrainBed(t)
			if tc.end {
				b.drain(t, time.Hour)
			}
			block := filepath.Join(b.dir, drainsName+".new") // where the next content is written
			require.NoError(t, os.MkdirAll(filepath.Join(block, "x"), 0o700))
			var err error
			if tc.end {
				_, err = b.end([]lb.Target{drainTarget()})
			} else {
				err = b.add(map[lb.Target]time.Time{drainTarget(): b.now.Add(time.Hour)}, b.now)
			}
			require.ErrorSays(t, err, "the old content stays")
			b.look(b.now)
			require.NoError(t, os.RemoveAll(block))
			b.look(b.now)
			b.start(t)
			if got := len(b.set); (got == 0) != tc.end {
				t.Errorf("%d drains after a restart", got)
			}
		})
	}
}
