// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

var webVIP = lb.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: lb.TCP}

// leaving is a running engine with three backends, of which the first is to leave: drains take
// 10 minutes, the grace is 30 s.
func leaving(t *testing.T, flows lb.FlowMode) *fixture {
	t.Helper()
	b := newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = 0 }).run(t)
	b.SetServicesAndBackends([]lb.Service{leavingService(t, flows)}, "a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3"))
	synctest.Wait()
	b.dp.TakeCalls()
	return b
}

func leavingService(t *testing.T, flows lb.FlowMode) lb.Service {
	t.Helper()
	s := service(t, "web", vip1)
	s.VIPs[0].Ring.Size = 53
	s.VIPs[0].Flows = flows
	s.VIPs[0].Leave = lb.Leave{Drain: 10 * time.Minute, Grace: 30 * time.Second}
	return s
}

// real is the status of a backend; false if there is none.
func (b *fixture) real(addr string) (engine.RealStatus, bool) {
	for _, s := range b.Status().Services {
		for _, v := range s.VIPs {
			for _, r := range v.Reals {
				if r.Backend.Addr == netip.MustParseAddr(addr) {
					return r, true
				}
			}
		}
	}
	return engine.RealStatus{}, false
}

// states are those of the first VIP's slots.
func (b *fixture) states() [lb.SlotStateLen]int { return b.Status().Services[0].VIPs[0].States }

// client is a connection to the VIP.
type client struct {
	b   *fixture
	tag uint64
	// hash decides on the slot.
	hash uint32
}

func (c client) send(begins bool) lb.RealID {
	r, _ := c.b.dp.Send(enginetest.Packet{VIP: webVIP, Tag: c.tag, Hash: c.hash, Begins: begins})
	return r.ID
}

// clientOf opens a connection that goes to a certain real.
func (b *fixture) clientOf(t *testing.T, id lb.RealID, tag uint64) client {
	t.Helper()
	slot := slices.IndexFunc(b.dp.Slots(webVIP), func(s lb.Slot) bool { return s.Cur() == id })
	if slot < 0 {
		t.Fatalf("real %d has no slot", id)
	}
	c := client{b: b, tag: tag, hash: uint32((uint64(slot)<<32 + 1<<31) / 53)}
	if got := c.send(true); got != id {
		t.Fatalf("the connection goes to real %d, want %d", got, id)
	}
	return c
}

func (b *fixture) weight(weight uint32) {
	set := backends("10.0.0.1", "10.0.0.2", "10.0.0.3")
	set["web"][0].Weight = weight
	b.SetBackends("a", set)
}

func (b *fixture) down() {
	b.SetHealth(map[lb.Target]engine.Health{leavingTarget(): {Down: true}})
}

func (b *fixture) remove() { b.SetBackends("a", backends("10.0.0.2", "10.0.0.3")) }

func (b *fixture) drain(d time.Duration) {
	now := time.Now()
	b.SetDrains(map[lb.Target]engine.Drain{leavingTarget(): {Since: now, Until: now.Add(d)}})
}

func leavingTarget() lb.Target {
	return lb.Target{VIP: webVIP, Backend: netip.MustParseAddr("10.0.0.1")}
}

func TestAbsence(t *testing.T) {
	tests := []struct {
		name string
		do   func(b *fixture)
		then func(b *fixture) // a second later
		want engine.Cause
		// until is from the beginning.
		until time.Duration
	}{
		{name: "down by its source", do: func(b *fixture) {
			set := backends("10.0.0.1", "10.0.0.2", "10.0.0.3")
			set["web"][0].Down = true
			b.SetBackends("a", set)
		}, want: engine.CauseDown, until: 30 * time.Second},
		{name: "down by a check", do: (*fixture).down, want: engine.CauseDown, until: 30 * time.Second},
		{name: "weight 0", do: func(b *fixture) { b.weight(0) }, want: engine.CauseWeight, until: 10 * time.Minute},
		{name: "removed", do: (*fixture).remove, want: engine.CauseRemoved, until: 10 * time.Minute},
		{name: "drained", do: func(b *fixture) { b.drain(7 * time.Minute) }, want: engine.CauseDrain, until: 7 * time.Minute},
		{name: "down and then removed", do: (*fixture).down, then: (*fixture).remove, want: engine.CauseRemoved, until: 30 * time.Second},
		{name: "down and then drained", do: (*fixture).down, then: func(b *fixture) { b.drain(time.Minute) },
			want: engine.CauseDown, until: 30 * time.Second},
		{name: "removed and then down", do: (*fixture).remove, then: func(b *fixture) {
			b.down()
			b.weight(1)
		}, want: engine.CauseDown, until: 31 * time.Second},
		{name: "drained and then removed", do: func(b *fixture) { b.drain(7 * time.Minute) }, then: (*fixture).remove,
			want: engine.CauseRemoved, until: 7 * time.Minute},
		{name: "weight 0 and then drained for longer", do: func(b *fixture) { b.weight(0) },
			then: func(b *fixture) { b.drain(14 * time.Minute) }, want: engine.CauseDrain, until: 14*time.Minute + time.Second},
		{name: "drained for longer", do: func(b *fixture) { b.drain(time.Minute) },
			then: func(b *fixture) { b.drain(2 * time.Minute) }, want: engine.CauseDrain, until: 2*time.Minute + time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, lb.FlowTransitions)
				c := b.clientOf(t, 1, 1)
				began := time.Now()
				tt.do(b)
				synctest.Wait()
				if tt.then != nil {
					time.Sleep(time.Second)
					tt.then(b)
					synctest.Wait()
				}
				r, ok := b.real("10.0.0.1")
				if !ok || r.Use != lb.RealDraining || r.Slots != 0 || r.PrevSlots == 0 {
					t.Fatalf("not draining: %+v", r)
				}
				if r.Absence.Cause != tt.want || !r.Absence.Until.Equal(began.Add(tt.until)) {
					t.Errorf("absent for %v until %v, want %v and %v", r.Absence.Cause, r.Absence.Until.Sub(began), tt.want, tt.until)
				}
				b.expectRetirement(t, c, began.Add(tt.until), tt.want == engine.CauseRemoved)
			})
		})
	}
}

// expectRetirement follows the first real, which has a connection and leaves, to its end.
func (b *fixture) expectRetirement(t *testing.T, c client, until time.Time, removed bool) {
	t.Helper()
	time.Sleep(time.Until(until) - time.Millisecond)
	if got := c.send(false); got != 1 {
		t.Errorf("before the end the connection goes to real %d", got)
	}
	if r, _ := b.real("10.0.0.1"); r.Drained(b.Status().Swept) {
		t.Error("it is said to be drained while it has a connection")
	}
	b.dp.TakeCalls()
	time.Sleep(time.Millisecond)
	synctest.Wait()
	want := []string{"SetReals 1", "SetRing 0"}
	if removed {
		want = append(want, "DeleteReals [1]")
	}
	calls := slices.DeleteFunc(b.dp.TakeCalls(), func(c string) bool { return c == "SweepFlows" })
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls at the end (-want +got):\n%s", diff)
	}
	if got := c.send(false); got == 1 {
		t.Error("after the end the connection goes to the real still")
	}
	r, there := b.real("10.0.0.1")
	if there == removed || there && (r.Use != lb.RealRetired || !r.Drained(b.Status().Swept)) {
		t.Errorf("after the end it is there: %v, %+v", there, r)
	}
}

func TestAbsenceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		c := b.clientOf(t, 1, 1)
		b.drain(time.Minute)
		time.Sleep(40 * time.Second)
		b.SetDrains(nil)
		synctest.Wait()
		r, _ := b.real("10.0.0.1")
		if r.Use != lb.RealActive || r.Absence != (engine.Absence{}) || r.Slots == 0 {
			t.Errorf("after its drain: %+v", r)
		}
		b.down()
		synctest.Wait()
		if r, _ := b.real("10.0.0.1"); !r.Absence.Until.Equal(time.Now().Add(30 * time.Second)) {
			t.Errorf("the next absence ends in %v", time.Until(r.Absence.Until))
		}
		if got := c.send(false); got != 1 {
			t.Errorf("the connection goes to real %d", got)
		}
	})
}

func TestHealthWeighs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowNever)
		b.weight(100)
		synctest.Wait()
		whole, _ := b.real("10.0.0.1")
		for _, tt := range []struct {
			percent   uint8
			low, high int
		}{{0, whole.Slots, whole.Slots}, {100, whole.Slots, whole.Slots}, {200, whole.Slots, whole.Slots}, {1, 17, 18}} {
			b.SetHealth(map[lb.Target]engine.Health{leavingTarget(): {Percent: tt.percent}})
			synctest.Wait()
			r, _ := b.real("10.0.0.1")
			if r.Slots < tt.low || r.Slots > tt.high || r.Backend.Weight != 100 {
				t.Errorf("at %d %%: %d slots, want %d to %d; weight %d", tt.percent, r.Slots, tt.low, tt.high, r.Backend.Weight)
			}
		}
		// Half of a weight of 1, beside two of weight 1: a fifth of 53 slots.
		b.weight(1)
		b.SetHealth(map[lb.Target]engine.Health{leavingTarget(): {Percent: 50}})
		synctest.Wait()
		if r, _ := b.real("10.0.0.1"); r.Slots < 10 || r.Slots > 11 {
			t.Errorf("at half of weight 1: %d slots, want 10 or 11", r.Slots)
		}
	})
}

// TestLifeOfASlot: moving for a window, then lingering while a flow is elsewhere, then stable; the
// removed real stays for as long as that flow, and not for longer.
func TestLifeOfASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		s := leavingService(t, lb.FlowTransitions)
		s.VIPs[0].Leave.Drain = time.Hour
		b.SetServices([]lb.Service{s})
		c := b.clientOf(t, 1, 1)
		b.remove()
		synctest.Wait()
		began := time.Now()
		moved := b.states()[lb.SlotMoving]
		if moved < 17 || b.states()[lb.SlotStable] != 53-moved {
			t.Fatalf("states after the change: %v", b.states())
		}
		for range 30 {
			if got := c.send(false); got != 1 {
				t.Fatalf("the connection goes to real %d", got)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			want := [lb.SlotStateLen]int{lb.SlotStable: 53 - moved, lb.SlotMoving: moved}
			if time.Since(began) > 16*time.Minute {
				want = [lb.SlotStateLen]int{lb.SlotStable: 52, lb.SlotLingering: 1}
			} else if time.Since(began) >= 15*time.Minute {
				continue
			}
			if got := b.states(); got != want {
				t.Fatalf("states after %v: %v, want %v", time.Since(began), got, want)
			}
		}
		time.Sleep(14 * time.Minute) // 15 since its last packet
		synctest.Wait()
		if r, ok := b.real("10.0.0.1"); !ok || r.Flows != 1 || r.Active != 0 || r.Drained(b.Status().Swept) {
			t.Errorf("the real of a silent flow: %v, %+v", ok, r)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := b.states()[lb.SlotStable]; got != 53 {
			t.Errorf("states when the flow is forgotten: %v", b.states())
		}
		if _, ok := b.real("10.0.0.1"); ok || len(b.dp.Flows()) > 0 {
			t.Errorf("the real is there: %v, flows: %v", ok, b.dp.Flows())
		}
		b.dp.TakeCalls()
		time.Sleep(time.Hour) // nothing to do
		b.expectCalls(t)
	})
}

// TestSweepDuringFailuresProvesNothing: flows that began while their slots moved are remembered until
// that is over in the data plane too, not only in what is to be written.
func TestSweepDuringFailuresProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		s := leavingService(t, lb.FlowTransitions)
		s.VIPs[0].Leave.Drain = time.Hour
		b.SetServices([]lb.Service{s})
		b.remove()
		time.Sleep(14 * time.Minute)
		clients := make(map[client]lb.RealID)
		for i, slot := range b.dp.Slots(webVIP) {
			if slot.State() == lb.SlotMoving {
				c := client{b: b, tag: uint64(i + 1), hash: uint32((uint64(i)<<32 + 1<<31) / 53)}
				clients[c] = c.send(true)
			}
		}
		check := func(when string) {
			t.Helper()
			for c, want := range clients {
				if got := c.send(false); got != want {
					t.Errorf("%s connection %d goes to real %d, want %d", when, c.tag, got, want)
				}
			}
		}
		b.dp.FailWith(func(verb string) error {
			if verb == "SetRing" {
				return errors.New("no memory")
			}
			return nil
		})
		time.Sleep(2 * time.Minute)
		if b.Status().LastError == "" {
			t.Error("nothing failed")
		}
		check("while rings cannot be written")
		b.dp.FailWith(nil)
		time.Sleep(2 * time.Minute)
		check("at the end")
	})
}

// TestLateWriteIsLateChange: a change that could not be written for a while is remembered for a window
// from when it was.
func TestLateWriteIsLateChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		s := leavingService(t, lb.FlowTransitions)
		s.VIPs[0].Leave.Drain = time.Hour
		b.SetServices([]lb.Service{s})
		b.dp.FailWith(func(string) error { return errors.New("no memory") })
		b.remove()
		time.Sleep(10 * time.Minute)
		c := b.clientOf(t, 1, 1) // as if nothing had changed
		b.dp.FailWith(nil)
		time.Sleep(14 * time.Minute)
		if got := c.send(false); got != 1 {
			t.Errorf("the connection goes to real %d", got)
		}
	})
}

func TestFlowModes(t *testing.T) {
	tests := []struct {
		name          string
		before, after lb.FlowMode
		// kept tells that a flow keeps the real that is removed.
		kept bool
	}{
		{"always", lb.FlowAlways, lb.FlowAlways, true},
		{"never", lb.FlowNever, lb.FlowNever, false},
		{"transitions", lb.FlowTransitions, lb.FlowTransitions, true},
		{"always, then transitions", lb.FlowAlways, lb.FlowTransitions, true},
		{"transitions, then always", lb.FlowTransitions, lb.FlowAlways, true},
		{"always, then never", lb.FlowAlways, lb.FlowNever, false},
		{"transitions, then never", lb.FlowTransitions, lb.FlowNever, false},
		{"never, then transitions", lb.FlowNever, lb.FlowTransitions, false},
		{"never, then always", lb.FlowNever, lb.FlowAlways, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, tt.before)
				c := b.clientOf(t, 1, 1)
				b.remove()
				synctest.Wait()
				states := b.states()
				if atOnce := states[lb.SlotStable] == 53; atOnce == tt.before.HasTransitions() {
					t.Errorf("states after the change: %v", states)
				}
				c.send(false)
				b.SetServices([]lb.Service{leavingService(t, tt.after)})
				synctest.Wait()
				time.Sleep(time.Minute)
				if got := c.send(false); (got == 1) != tt.kept {
					t.Errorf("the connection goes to real %d", got)
				}
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				if states := b.states(); states[lb.SlotStable] != 53 {
					t.Errorf("states at the end: %v", states)
				}
				if _, there := b.real("10.0.0.1"); there {
					t.Error("the removed real is there still")
				}
				for _, f := range b.dp.Flows() {
					if f.Real == 1 || tt.after != lb.FlowAlways {
						t.Errorf("remembered at the end: %+v", f)
					}
				}
			})
		})
	}
}

// TestGoneRealLosesItsFlowsAtOnce: also while rings cannot be written, and while it was active until now.
// Their packets go to others, none is dropped.
func TestGoneRealLosesItsFlowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		s := leavingService(t, lb.FlowTransitions)
		s.VIPs[0].Leave.Drain = 0
		b.SetServices([]lb.Service{s})
		b.down()
		synctest.Wait()
		// A flow of a slot that the first real will have again, remembered as that moves.
		slot := slices.IndexFunc(b.dp.Slots(webVIP), func(s lb.Slot) bool { return s.State() == lb.SlotMoving })
		c := client{b: b, tag: 1, hash: uint32((uint64(slot)<<32 + 1<<31) / 53)}
		if got := c.send(false); got != 1 {
			t.Fatalf("an unknown flow of a moving slot goes to real %d", got)
		}
		b.SetHealth(nil)
		synctest.Wait()
		b.dp.FailWith(func(verb string) error {
			if verb == "SetRing" {
				return errors.New("no memory")
			}
			return nil
		})
		b.remove()
		synctest.Wait()
		if r, _ := b.real("10.0.0.1"); r.Use != lb.RealRetired {
			t.Errorf("the real that goes is %v", r.Use)
		}
		b.dp.FailWith(nil)
		time.Sleep(time.Minute)
		if got := c.send(false); got != 2 && got != 3 {
			t.Errorf("the connection goes to real %d", got)
		}
	})
}

// TestFlowsOfTheDead: a daemon that was killed right after it deleted the real with the greatest id leaves
// flows that name it. No later real has them.
func TestFlowsOfTheDead(t *testing.T) {
	for name, fails := range map[string]int{"": 0, "the first looks fail": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { meetTheDead(t, fails) })
		})
	}
}

func meetTheDead(t *testing.T, fails int) {
	b := leaving(t, lb.FlowTransitions)
	s := leavingService(t, lb.FlowTransitions)
	s.VIPs[0].Leave.Drain = 0
	b.SetServicesAndBackends([]lb.Service{s}, "a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"))
	synctest.Wait()
	c := b.clientOf(t, 4, 1) // of a slot that settles
	if _, known := b.dp.Flows()[1]; !known {
		t.Fatal("the flow is not remembered")
	}
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3"))
	synctest.Wait()
	b.stop()
	b.dp.FailWith(func(verb string) error {
		if fails--; verb == "SweepFlows" && fails >= 0 {
			return errors.New("busy")
		}
		return nil
	})
	b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = b.dp.Adopted(), []string{"a"} }).run(t)
	b.SetServicesAndBackends([]lb.Service{s}, "a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.7"))
	time.Sleep(time.Second)
	synctest.Wait()
	for addr, id := range b.ids() {
		if id == 4 {
			t.Errorf("%s has the id of the dead", addr)
		}
	}
	if f, known := b.dp.Flows()[c.tag]; known {
		t.Errorf("remembered still: %+v", f)
	}
	time.Sleep(16 * time.Minute)
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8"))
	synctest.Wait()
	if r, ok := b.real("10.0.0.8"); !ok || r.ID != 4 || r.Generation != 2 {
		t.Errorf("after its rest the id is that of %+v, want 4 in generation 2", r.Real)
	}
}

// TestSecondAbsence: a backend that goes, comes back and goes again within the window keeps the flows of
// its first life for as long as the second absence lasts.
func TestSecondAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		first := b.clientOf(t, 1, 1)
		all := func() { b.SetBackends("a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3")) }
		for _, step := range []func(){b.remove, all} {
			step()
			time.Sleep(3 * time.Minute)
			synctest.Wait()
		}
		second := b.clientOf(t, 1, 2)
		b.remove()
		synctest.Wait()
		for range 9 {
			for _, c := range []client{first, second} {
				if got := c.send(false); got != 1 {
					t.Fatalf("connection %d goes to real %d", c.tag, got)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, there := b.real("10.0.0.1"); there {
			t.Error("the backend is there after its second absence")
		}
	})
}

// TestTwoAbsencesAtATime: a backend that leaves two reals behind, of two tunnels, has an absence for each,
// over a restart too.
func TestTwoAbsencesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory *engine.Memory
		b := newFixture(t, nil, func(c *engine.Config) { c.OnMemory = func(m *engine.Memory) { memory = m } }).run(t)
		s := leavingService(t, lb.FlowTransitions)
		all := backends("10.0.0.1", "10.0.0.2", "10.0.0.3")
		b.SetServicesAndBackends([]lb.Service{s}, "a", all)
		synctest.Wait()
		s.VIPs[0].Tunnel.IPIP4 = netip.MustParsePrefix("172.17.0.0/16")
		b.SetServicesAndBackends([]lb.Service{s}, "a", all) // all reals are others now
		time.Sleep(4 * time.Minute)
		b.remove()
		time.Sleep(time.Second)
		synctest.Wait()
		until := func() map[lb.RealID]time.Time {
			all := make(map[lb.RealID]time.Time)
			for _, r := range b.Status().Services[0].VIPs[0].Reals {
				all[r.ID] = r.Absence.Until
			}
			return all
		}
		before := until()
		b.stop()
		adopted := b.dp.Adopted()
		adopted.Memory = memory
		b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = adopted, []string{"a"} }).run(t)
		b.SetServices([]lb.Service{s})
		b.remove()
		synctest.Wait()
		if diff := cmp.Diff(before, until()); diff != "" || len(before) != 6 {
			t.Errorf("ends of absences after the restart (-before +after):\n%s", diff)
		}
	})
}

// TestFlowsSurviveAnotherSize: what is remembered when a ring gets another size stays where it is, though
// the slots that the entries name are those of the old ring.
func TestFlowsSurviveAnotherSize(t *testing.T) {
	for _, tt := range []struct {
		name    string
		size    uint32
		restart bool // soon afterwards, with memory
		lost    bool // or without
	}{
		{name: "more slots", size: 211},
		{name: "fewer slots", size: 13},
		{name: "restarted", size: 211, restart: true},
		{name: "restarted without memory", size: 13, restart: true, lost: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var memory *engine.Memory
				b := newFixture(t, nil, func(c *engine.Config) { c.OnMemory = func(m *engine.Memory) { memory = m } }).run(t)
				s := leavingService(t, lb.FlowTransitions)
				s.VIPs[0].Leave.Drain = time.Hour
				services := []lb.Service{s}
				b.SetServicesAndBackends(services, "a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3"))
				synctest.Wait()
				clients := b.remembered(t)
				s.VIPs[0].Ring.Size = tt.size
				b.SetServices(services)
				synctest.Wait()
				if x := b.export(t); len(x.Flows) > 0 {
					t.Errorf("flows are exported of which the slots are not known: %+v", x.Flows)
				}
				time.Sleep(3 * time.Minute)
				if tt.restart {
					b.stop()
					adopted := b.dp.Adopted()
					if adopted.Memory = memory; tt.lost {
						adopted.Memory = nil
					}
					b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = adopted, []string{"a"} }).run(t)
					b.SetServices(services)
					b.remove()
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				for range 3 {
					for c, want := range clients {
						c.b = b
						if got := c.send(false); got != want {
							t.Errorf("connection %d goes to real %d, want %d", c.tag, got, want)
						}
					}
					time.Sleep(10 * time.Minute)
					synctest.Wait()
				}
				time.Sleep(16 * time.Minute)
				synctest.Wait()
				if got := b.states()[lb.SlotStable]; got != int(tt.size) || len(b.dp.Flows()) > 0 {
					t.Errorf("at the end: states %v, flows %v", b.states(), b.dp.Flows())
				}
			})
		})
	}
}

// remembered removes the first backend, and opens connections before and after; all are remembered.
func (b *fixture) remembered(t *testing.T) map[client]lb.RealID {
	t.Helper()
	clients := make(map[client]lb.RealID)
	for i := range uint64(106) {
		c := client{b: b, tag: i + 1, hash: uint32(i * (1 << 32 / 106))}
		if i%2 == 0 {
			clients[c] = c.send(true)
		}
		if i == 105 {
			b.remove()
			synctest.Wait()
		}
	}
	for i := range uint64(106) {
		c := client{b: b, tag: i + 1, hash: uint32(i * (1 << 32 / 106))}
		if _, open := clients[c]; !open {
			clients[c] = c.send(true)
		}
		c.send(false)
	}
	known := b.dp.Flows()
	maps.DeleteFunc(clients, func(c client, _ lb.RealID) bool { _, ok := known[c.tag]; return !ok })
	if len(clients) < 20 {
		t.Fatalf("only %d connections are remembered", len(clients))
	}
	return clients
}

// TestAnotherRing: of another size or hash, it begins anew, but what is remembered counts.
func TestAnotherRing(t *testing.T) {
	for name, ring := range map[string]lb.Ring{"size": {Size: 61}, "hash": {Size: 53, Hash: lb.MaglevV1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, lb.FlowTransitions)
				b.remove()
				synctest.Wait()
				s := leavingService(t, lb.FlowTransitions)
				s.VIPs[0].Ring = ring
				b.SetServices([]lb.Service{s})
				synctest.Wait()
				if got := b.states()[lb.SlotMoving]; got > 0 {
					t.Errorf("%d slots move", got)
				}
				time.Sleep(12 * time.Second)
				synctest.Wait()
				if got := b.states()[lb.SlotStable]; got != int(ring.Size) {
					t.Errorf("states after a look: %v", b.states())
				}
				if _, there := b.real("10.0.0.1"); there {
					t.Error("the removed real, which no slot names, is there still")
				}
			})
		})
	}
}

// TestRemovedVIP leaves nothing behind, also of what a previous run left of it.
func TestRemovedVIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		b.remove()
		c := b.clientOf(t, 2, 1)
		synctest.Wait()
		b.clientOf(t, 2, 2).send(false)
		b.stop()
		b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = b.dp.Adopted(), []string{"a"} }).run(t)
		c.b = b
		b.SetServices(nil)
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.expectDump(t, "")
		if flows := b.dp.Flows(); len(flows) > 0 {
			t.Errorf("flows of no VIP are remembered: %v", flows)
		}
		b.SetServices([]lb.Service{leavingService(t, lb.FlowTransitions)})
		synctest.Wait()
		if got := b.states()[lb.SlotStable]; got != 53 {
			t.Errorf("states of the new VIP: %v", b.states())
		}
	})
}

// TestRestart has an engine end while slots change and a real leaves.
func TestRestart(t *testing.T) {
	tests := []struct {
		name   string
		memory bool
		// after is when the slots that moved are stable, from the change on.
		after time.Duration
	}{
		{"with memory", true, 15 * time.Minute},
		{"without", false, 20 * time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, lb.FlowTransitions)
				var memory *engine.Memory
				again := func(b *fixture) *fixture {
					b.stop()
					adopted := b.dp.Adopted()
					if tt.memory {
						adopted.Memory = memory
					}
					return newFixture(t, b.dp, func(c *engine.Config) {
						c.Adopted, c.Sources = adopted, []string{"a"}
						c.OnMemory = func(m *engine.Memory) { memory = m }
					}).run(t)
				}
				b = again(b)
				services := []lb.Service{leavingService(t, lb.FlowTransitions)}
				b.SetServicesAndBackends(services, "a", backends("10.0.0.1", "10.0.0.2", "10.0.0.3"))
				synctest.Wait()
				c := b.clientOf(t, 1, 1)
				b.remove()
				synctest.Wait()
				slots := b.dp.Slots(webVIP)
				time.Sleep(5 * time.Minute)
				synctest.Wait()

				kept := memory
				b = again(b)
				synctest.Wait()
				if diff := cmp.Diff(kept, memory, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
					t.Errorf("while all is held, other things are to be remembered (-before +after):\n%s", diff)
				}
				b.SetServices(services)
				b.remove()
				synctest.Wait()
				if !slices.Equal(slots, b.dp.Slots(webVIP)) {
					t.Error("the restart changed slots")
				}
				c.b = b
				if got := c.send(false); got != 1 {
					t.Errorf("the connection goes to real %d", got)
				}
				r, _ := b.real("10.0.0.1")
				left := 5 * time.Minute
				if !tt.memory {
					left = 10 * time.Minute
				}
				if got := time.Until(r.Absence.Until); got != left {
					t.Errorf("the real has %v left, want %v", got, left)
				}
				time.Sleep(tt.after - 5*time.Minute - time.Second)
				synctest.Wait()
				if got := b.states()[lb.SlotStable]; got == 53 {
					t.Error("all slots are stable too early")
				}
				time.Sleep(12 * time.Second)
				synctest.Wait()
				if got := b.states()[lb.SlotStable]; got != 53 {
					t.Errorf("states after the window: %v", b.states())
				}
			})
		})
	}
}

// TestLedConnections: those that find a removed server by its server id are in no table, so it stays until its
// deadline, whatever the flow table says.
func TestLedConnections(t *testing.T) {
	for _, flows := range []lb.FlowMode{lb.FlowTransitions, lb.FlowAlways, lb.FlowNever} {
		t.Run(flows.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, led := ledAway(t, flows)
				began := time.Now()
				b.SetBackends("a", numbered("10.0.0.1"))
				for time.Since(began) < time.Hour {
					synctest.Wait()
					if got := led(); got != 2 {
						t.Fatalf("after %v the connection goes to real %d", time.Since(began), got)
					}
					if r, ok := b.real("10.0.0.2"); !ok || r.Use != lb.RealDraining || r.Drained(b.Status().Swept) ||
						b.Status().ByTarget()[lb.Target{VIP: webVIP, Backend: r.Backend.Addr}].Drained(b.Status().Swept) {
						t.Fatalf("after %v its real is there: %v, %+v", time.Since(began), ok, r)
					}
					time.Sleep(20*time.Minute - time.Millisecond) // longer than the window
					if got := led(); got != 2 {
						t.Fatalf("after %v the connection goes to real %d", time.Since(began), got)
					}
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				if got := led(); got != 1 {
					t.Errorf("at the end the connection goes to real %d", got)
				}
				if r, ok := b.real("10.0.0.2"); ok {
					t.Errorf("at the end its real is there: %+v", r)
				}
			})
		})
	}
}

// ledAway has a connection that goes to server 2 by its id, from a slot of server 1. Drains take an hour.
func ledAway(t *testing.T, flows lb.FlowMode) (b *fixture, send func() lb.RealID) {
	t.Helper()
	b = newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = 0 }).run(t)
	b.SetServicesAndBackends(ledServices(t, flows, true), "a", numbered("10.0.0.1", "10.0.0.2"))
	synctest.Wait()
	hash := b.clientOf(t, 1, 1).hash
	return b, func() lb.RealID {
		r, _ := b.dp.Send(enginetest.Packet{VIP: webVIP, Tag: 2, Hash: hash, ServerID: 2})
		return r.ID
	}
}

func ledServices(t *testing.T, flows lb.FlowMode, led bool) []lb.Service {
	t.Helper()
	s := leavingService(t, flows)
	s.VIPs[0].Leave.Drain, s.VIPs[0].Options.TCPIDs = time.Hour, led
	return []lb.Service{s}
}

// TestNoLongerLed: where server ids count no more, the flow table says again when a removed server may go.
func TestNoLongerLed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := ledAway(t, lb.FlowTransitions)
		b.SetBackends("a", numbered("10.0.0.1"))
		time.Sleep(20 * time.Minute)
		if _, ok := b.real("10.0.0.2"); !ok {
			t.Error("the removed server is gone before its deadline")
		}
		applied := b.Status().LastApply
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := b.Status(); !s.LastApply.Equal(applied) || !s.LastPass.After(applied) {
			t.Errorf("while it is waited for, the last pass was at %v, and all was planned anew at %v and %v", s.LastPass, applied, s.LastApply)
		}
		b.SetServices(ledServices(t, lb.FlowTransitions, false))
		time.Sleep(time.Minute)
		synctest.Wait()
		if r, ok := b.real("10.0.0.2"); ok {
			t.Errorf("the removed server is there still: %+v", r)
		}
	})
}
