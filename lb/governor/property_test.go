// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

// world is a governor under random inputs for one service.
type world struct {
	t   *rapid.T
	g   *Governor
	now time.Time
	// offered is the last whole answer, and failing tells that the latest one was not whole.
	offered []Backend
	failing bool
	local   map[netip.Addr]Verdict
}

var worldKey = Key{"consul", "web"}

func newWorld(t *rapid.T) *world {
	g, err := New(drawConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, g: g, now: start}
}

func drawConfig(t *rapid.T) Config {
	cfg := DefaultConfig()
	cfg.MaxReals = rapid.IntRange(0, 3).Draw(t, "max reals")
	cfg.MaxWeightPercent = rapid.SampledFrom([]int{0, 10, 25, 50, 99}).Draw(t, "max weight percent")
	cfg.Hold = time.Duration(rapid.IntRange(1, 10).Draw(t, "hold")) * time.Minute
	cfg.EmptyHold = cfg.Hold + time.Duration(rapid.IntRange(0, 10).Draw(t, "longer hold"))*time.Minute
	return cfg
}

func drawBackends(t *rapid.T) []Backend {
	var list []Backend
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 12), 0, 12, rapid.ID).Draw(t, "backends") {
		list = append(list, Backend{
			Backend: lb.Backend{
				Addr:   netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}),
				Weight: rapid.SampledFrom([]uint32{1, 1, 1, 10, 0, math.MaxUint32}).Draw(t, "weight"),
			},
			State: rapid.SampledFrom([]State{Active, Active, Active, Active, Drain, Down}).Draw(t, "state"),
		})
	}
	return list
}

func drawVerdicts(t *rapid.T) map[netip.Addr]Verdict {
	verdicts := make(map[netip.Addr]Verdict)
	for n := range 12 {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)})
		verdicts[addr] = rapid.SampledFrom([]Verdict{LocalUnknown, LocalUp, LocalUp, LocalDown}).Draw(t, "verdict")
	}
	return verdicts
}

func (w *world) backends() []Backend {
	s, _ := w.g.Service(worldKey)
	return s.Backends
}

func (w *world) offer(list []Backend) Result {
	w.offered, w.failing = list, false
	return w.g.Offer(Offer{Source: worldKey.Source, Service: worldKey.Service, Backends: list, Complete: true, At: w.now})
}

func (w *world) fail() Result {
	w.failing = true
	fault := Rule(rapid.IntRange(int(RuleIncomplete), int(RuleDecode)).Draw(w.t, "fault"))
	return w.g.Offer(Offer{Source: worldKey.Source, Service: worldKey.Service, Backends: drawBackends(w.t), Fault: fault, At: w.now})
}

// step does something at random, some time after the last step.
func (w *world) step() Result {
	w.now = w.now.Add(time.Duration(rapid.IntRange(0, 200).Draw(w.t, "seconds")) * time.Second)
	switch rapid.IntRange(0, 5).Draw(w.t, "step") {
	case 0, 1:
		return w.offer(drawBackends(w.t))
	case 2:
		return w.fail()
	case 3:
		w.local = drawVerdicts(w.t)
		return w.g.SetLocal("web", w.local, w.now)
	default:
		return w.g.Tick(w.now)
	}
}

// anyStep is a step, or what an operator does.
func (w *world) anyStep() (r Result) {
	var err error
	switch rapid.IntRange(0, 9).Draw(w.t, "any step") {
	case 0:
		r, err = w.g.Accept("web", w.now)
	case 1:
		minutes := rapid.IntRange(1, 20).Draw(w.t, "minutes")
		r, err = w.g.Freeze("web", Freeze{Author: "alice", Reason: "a move", Expiry: w.now.Add(time.Duration(minutes) * time.Minute)}, w.now)
	case 2:
		r, err = w.g.Unfreeze("web", w.now)
	default:
		r = w.step()
	}
	if err != nil && (len(r.Events) > 0 || len(r.Changed) > 0) {
		w.t.Fatalf("refused, and did something: %v", err)
	}
	return r
}

// through are the holds that ended in a way that lets their change through, by object.
func through(r Result) map[string]Outcome {
	ended := make(map[string]Outcome)
	for _, e := range r.Events {
		if e.Outcome != Began && e.Outcome != Gone {
			ended[e.Hold.Object] = e.Outcome
		}
	}
	return ended
}

// lossesBetween are the losses of new flows, by address.
func lossesBetween(before, after []Backend) map[netip.Addr]uint64 {
	losses := make(map[netip.Addr]uint64)
	for _, b := range before {
		var left uint32
		if i, ok := find(after, b.Addr); ok {
			left = after[i].takes()
		}
		if b.takes() > left {
			losses[b.Addr] = uint64(b.takes() - left)
		}
	}
	return losses
}

// TestAnswersThatAreNotWholeChangeNothing: whatever was before.
func TestAnswersThatAreNotWholeChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			w.step()
		}
		w.g.Tick(w.now)
		before := w.backends()
		r := w.fail()
		if len(r.Changed) > 0 || !slices.Equal(before, w.backends()) {
			t.Fatalf("from %q to %q", format(before), format(w.backends()))
		}
	})
}

// TestNoStepRemovesMore: within any step of time, losses that are neither confirmed nor expired fit
// the blast radius, judged by what there was at most in the step.
func TestNoStepRemovesMore(t *testing.T) {
	type lost struct {
		at     time.Time
		weight uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		cfg := w.g.cfg
		var recent []lost
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := w.backends()
			r := w.step()
			recent = slices.DeleteFunc(recent, func(l lost) bool { return w.now.Sub(l.at) >= cfg.Step })
			base := capacity(before)
			for _, l := range recent {
				base += l.weight
			}
			ended := through(r)
			already := len(recent)
			for addr, weight := range lossesBetween(before, w.backends()) {
				if _, free := ended[addr.String()]; free || w.local[addr] == LocalDown {
					continue
				}
				recent = append(recent, lost{w.now, weight})
			}
			var sum uint64
			for _, l := range recent {
				sum += l.weight
			}
			if len(recent) > max(already, cfg.MaxReals) && sum*100 > base*uint64(cfg.MaxWeightPercent) {
				t.Fatalf("%d reals and weight %d of %d were lost within %v", len(recent), sum, base, cfg.Step)
			}
		}
	})
}

// TestServiceIsNotBlanked: it goes from some capacity to none only by losses that all expired or
// were confirmed, and only as a whole answer says so.
func TestServiceIsNotBlanked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before := w.backends()
			r := w.step()
			if capacity(before) == 0 || capacity(w.backends()) > 0 {
				continue
			}
			if capacity(w.offered) > 0 {
				t.Fatalf("blanked, though %q is offered", format(w.offered))
			}
			ended := through(r)
			for addr := range lossesBetween(before, w.backends()) {
				if _, ok := ended[addr.String()]; !ok && w.local[addr] != LocalDown {
					t.Fatalf("blanked, though the loss of %s neither expired nor was confirmed", addr)
				}
			}
			for _, outcome := range ended {
				if outcome == Expired && w.failing {
					t.Fatal("a loss expired while the source was not heard")
				}
			}
		}
	})
}

// TestGainsAreNotDelayed: except by damping or a freeze.
func TestGainsAreNotDelayed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.step()
		}
		list := drawBackends(t)
		w.offer(list)
		damped := make(map[string]bool)
		for _, h := range w.g.Held() {
			damped[h.Object] = h.Rule == RuleDamping
		}
		accepted := w.backends()
		for _, b := range list {
			i, there := find(accepted, b.Addr)
			switch {
			case there && accepted[i].takes() >= b.takes(), !there && b.takes() == 0:
			case damped[b.Addr.String()]:
			default:
				t.Fatalf("%s takes less than offered: accepted %q, offered %q", b.Addr, format(accepted), format(list))
			}
		}
	})
}

// TestItSettles: under an answer that does not change, every backend changes once at most, and
// within the longest time the answer is what is accepted.
func TestItSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.step()
		}
		list := drawBackends(t)
		before := w.backends()
		w.offer(list)
		changes := make(map[netip.Addr]int)
		countChanges(changes, before, w.backends())
		end := w.now.Add(max(w.g.cfg.EmptyHold, w.g.cfg.Damping.MaxSuppress))
		for next := w.g.Next(); !next.IsZero(); next = w.g.Next() {
			if next.After(end) {
				t.Fatalf("the next tick is at %v, after %v", next, end)
			}
			before := w.backends()
			w.now = later(w.now, next)
			if rapid.Bool().Draw(t, "repeat the answer") {
				w.offer(list)
			}
			w.g.Tick(w.now)
			countChanges(changes, before, w.backends())
		}
		want, _ := normal(list)
		if got := w.backends(); !slices.Equal(got, want) || len(w.g.Held()) > 0 {
			t.Fatalf("accepted %q, offered %q, held %v", format(got), format(want), w.g.Held())
		}
		for addr, n := range changes {
			if n > 1 {
				t.Fatalf("%s changed %d times", addr, n)
			}
		}
	})
}

func countChanges(changes map[netip.Addr]int, before, after []Backend) {
	for n := range 12 {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)})
		if describe(before, addr) != describe(after, addr) {
			changes[addr]++
		}
	}
}

// TestFreezeHoldsEverything: until it ends.
func TestFreezeHoldsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 10).Draw(t, "steps before") {
			w.step()
		}
		end := w.now.Add(24 * time.Hour)
		if _, err := w.g.Freeze("web", Freeze{Author: "alice", Reason: "a move", Expiry: end}, w.now); err != nil {
			t.Fatal(err)
		}
		before := w.backends()
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if r := w.step(); len(r.Changed) > 0 || !slices.Equal(before, w.backends()) {
				t.Fatalf("from %q to %q", format(before), format(w.backends()))
			}
		}
	})
}

// TestFlapsAreBounded: however a backend flaps, it leaves no more often than its penalty allows.
// The bound: each loss adds 1 to the penalty, which is never over Suppress + 1; so there are no more
// losses than that and what decays of it.
func TestFlapsAreBounded(t *testing.T) {
	steady, flapping := parse(t, count(9)), parse(t, count(10))
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.g.cfg.MaxReals, w.g.cfg.Step = 1, time.Second
		d := w.g.cfg.Damping
		w.offer(flapping)
		losses := 0
		for range rapid.IntRange(1, 300).Draw(t, "flaps") {
			before := w.backends()
			w.offer(steady)
			losses += len(lossesBetween(before, w.backends()))
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
			w.offer(flapping)
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
			w.g.Tick(w.now)
		}
		decays := math.Ln2 * w.now.Sub(start).Seconds() / d.HalfLife.Seconds()
		if bound := (d.Suppress + 1) * (1 + decays); float64(losses) > bound {
			t.Fatalf("%d losses within %v, the bound is %.1f", losses, w.now.Sub(start), bound)
		}
	})
}

// TestOrderOfServicesDoesNotMatter: what is offered about several services, in any order that keeps
// each service's own, gives the same output.
func TestOrderOfServicesDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := drawConfig(t)
		queues := make([][]Offer, 3)
		for i := range queues {
			at := start
			for range rapid.IntRange(0, 6).Draw(t, "offers") {
				at = at.Add(time.Duration(rapid.IntRange(0, 120).Draw(t, "seconds")) * time.Second)
				queues[i] = append(queues[i], Offer{
					Source: "consul", Service: fmt.Sprint(i), Backends: drawBackends(t), At: at,
					Complete: rapid.IntRange(0, 4).Draw(t, "whole") > 0,
				})
			}
		}
		one, other := runInOrder(t, cfg, queues), runInOrder(t, cfg, queues)
		if diff := cmp.Diff(one, other, compared); diff != "" {
			t.Fatalf("outputs (-one +other):\n%s", diff)
		}
	})
}

// output is all that a governor says, except the order of events about different services.
type output struct {
	Services []Service
	Held     []Hold
	Record   Record
	Counters Counters
	Next     time.Time
	Events   map[string][]Event
}

func runInOrder(t *rapid.T, cfg Config, queues [][]Offer) output {
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	left := slices.Clone(queues)
	events := make(map[string][]Event)
	for slices.ContainsFunc(left, func(q []Offer) bool { return len(q) > 0 }) {
		i := rapid.IntRange(0, len(left)-1).Draw(t, "turn")
		if len(left[i]) == 0 {
			continue
		}
		o := left[i][0]
		left[i] = left[i][1:]
		events[o.Service] = append(events[o.Service], g.Offer(o).Events...)
	}
	return output{g.Services(), g.Held(), g.Record(), g.Counters(), g.Next(), events}
}

// TestRestart: a governor that is made from the record of another has the same output at once, and
// if the next answer is whole, from then on.
func TestRestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.anyStep()
		}
		w.g.Tick(w.now)
		restored := restoreFromJSON(t, w.g, w.now)
		wantSame(t, w.g, restored)
		if _, known := w.g.Service(worldKey); !known {
			return
		}
		restored.SetLocal("web", w.local, w.now)
		list := drawBackends(t)
		twins := []*Governor{w.g, restored}
		for _, g := range twins {
			w.g = g
			w.offer(list)
		}
		for range rapid.IntRange(0, 10).Draw(t, "steps after") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "seconds")) * time.Second)
			list := drawBackends(t)
			for _, g := range twins {
				w.g = g
				w.offer(list)
			}
			wantSame(t, twins[0], twins[1])
			if diff := cmp.Diff(twins[0].Held(), twins[1].Held()); diff != "" {
				t.Fatalf("held (-before +after the restart):\n%s", diff)
			}
		}
	})
}

func restoreFromJSON(t *rapid.T, g *Governor, now time.Time) *Governor {
	text, err := json.Marshal(g.Record())
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(g.cfg, r, now)
	if err != nil {
		t.Fatal(err)
	}
	return restored
}

// wantSame compares what two governors have accepted, and what they hold.
func wantSame(t *rapid.T, one, other *Governor) {
	type accepted struct {
		Key      Key
		Known    bool
		Backends string
		Held     int
	}
	list := func(g *Governor) (all []accepted) {
		for _, s := range g.Services() {
			all = append(all, accepted{s.Key, s.Known, format(s.Backends), s.Held})
		}
		return all
	}
	if diff := cmp.Diff(list(one), list(other)); diff != "" {
		t.Fatalf("accepted (-one +other):\n%s", diff)
	}
}

// TestEventsTellEveryHoldOnce: the holds that began by events and did not end are those that are
// there, and none begins or ends twice.
func TestEventsTellEveryHoldOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		type telling struct {
			Rule  Rule
			Since time.Time
		}
		told := make(map[string]telling)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			for _, e := range w.anyStep().Events {
				old, ok := told[e.Hold.Object]
				switch {
				case e.Outcome == Began && ok && old.Rule == e.Hold.Rule:
					t.Fatalf("began twice: %+v", e)
				case e.Outcome != Began && (!ok || old.Rule != e.Hold.Rule):
					t.Fatalf("ended, and was not there: %+v", e)
				case e.Outcome == Began:
					told[e.Hold.Object] = telling{e.Hold.Rule, e.Hold.Since}
				default:
					delete(told, e.Hold.Object)
				}
			}
			there := make(map[string]telling)
			for _, h := range w.g.Held() {
				there[h.Object] = telling{h.Rule, h.Since}
			}
			if diff := cmp.Diff(told, there); diff != "" {
				t.Fatalf("holds (-told +there):\n%s", diff)
			}
		}
	})
}
