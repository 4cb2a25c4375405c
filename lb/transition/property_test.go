// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

// whole is a History as its definition has it: it keeps all choices that ever were, and looks at
// those of the window for each slot.
type whole struct {
	choices []wholeChoice
	until   time.Time
	// since is the step at which each slot began to linger; 0 if it does not.
	since []int
	step  int
}

// wholeChoice is a Choice, merged if its change is one with that before it.
type wholeChoice struct {
	Choice
	merged bool
}

func newWhole(first []lb.Slot) *whole {
	return &whole{choices: []wholeChoice{{Choice: Choice{Slots: first}}}, since: make([]int, len(first))}
}

// window is the choices in force at some time within the window, oldest first.
func (w *whole) window() []wholeChoice {
	i := len(w.choices) - 1
	for i > 0 && w.choices[i].Since.After(w.until) {
		i--
	}
	return w.choices[i:]
}

func (w *whole) change(now time.Time, choice []lb.Slot) {
	if slices.Equal(choice, w.choices[len(w.choices)-1].Slots) {
		return
	}
	w.choices = append(w.choices, wholeChoice{Choice: Choice{Since: now, Slots: choice}})
}

// unchanged tells whether all choices of the window agree about a slot.
func (w *whole) unchanged(slot int) bool {
	window := w.window()
	return !slices.ContainsFunc(window, func(c wholeChoice) bool { return c.Slots[slot] != window[0].Slots[slot] })
}

func (w *whole) forget(until time.Time) {
	w.step++
	changed := make([]bool, len(w.since))
	for i := range changed {
		changed[i] = !w.unchanged(i)
	}
	w.until = until
	for i := range changed {
		if changed[i] && w.unchanged(i) {
			w.since[i] = w.step
		}
	}
}

func (w *whole) linger(where func(uint32) bool) {
	w.step++
	for i := range w.since {
		if where(uint32(i)) {
			w.since[i] = w.step
		}
	}
}

func (w *whole) prove(mark int, elsewhere func(uint32) bool) {
	for i, since := range w.since {
		if since <= mark && !elsewhere(uint32(i)) {
			w.since[i] = 0
		}
	}
}

func (w *whole) slots(receives func(lb.RealID) bool) []lb.Slot {
	slots := make([]lb.Slot, len(w.since))
	window := w.window()
	for i := range slots {
		oldest, cur := window[0].Slots[i].Cur(), window[len(window)-1].Slots[i].Cur()
		switch {
		case oldest != cur && oldest != 0 && receives(oldest):
			slots[i] = lb.MovingSlot(cur, oldest)
		case !w.unchanged(i):
			slots[i] = lb.SettlingSlot(cur)
		case w.since[i] > 0:
			slots[i] = lb.LingeringSlot(cur)
		default:
			slots[i] = lb.StableSlot(cur)
		}
	}
	return slots
}

// names looks for a slot that a change of the window took from the real. Of changes that were made
// one, only the first that a slot has a part in counts.
func (w *whole) names(id lb.RealID) bool {
	window := w.window()
	taken := make(map[uint32]int) // the part of the window in which the slot was taken last
	part := 0
	for n, c := range window[1:] {
		if !c.merged {
			part = n + 1
		}
		for i, s := range window[n].Slots {
			if c.Slots[i] == s {
				continue
			}
			if slot := uint32(i); taken[slot] != part {
				taken[slot] = part
				if s.Cur() == id {
					return true
				}
			}
		}
	}
	return false
}

func (w *whole) redate(from, now time.Time) {
	for i := range w.choices[1:] {
		if c := &w.choices[i+1]; !c.Since.Before(from) && !w.forgotten(i+1) {
			c.Since = now
		}
	}
}

// coalesce dates all changes of a grain at the last one's time.
func (w *whole) coalesce(grain time.Duration) {
	for i := len(w.choices) - 2; i > 0 && !w.forgotten(i); i-- {
		if c, next := &w.choices[i], &w.choices[i+1]; c.Since.Truncate(grain).Equal(next.Since.Truncate(grain)) {
			c.Since, next.merged = next.Since, true
		}
	}
}

func (w *whole) forgotten(i int) bool { return !w.choices[i].Since.After(w.until) }

// wholeFromSlots puts the least between the oldest choice and the present one that makes the slots
// what they are: a real that no choice of a test has.
func wholeFromSlots(now time.Time, slots []lb.Slot) *whole {
	const other = 99
	oldest, between, cur := make([]lb.Slot, len(slots)), make([]lb.Slot, len(slots)), make([]lb.Slot, len(slots))
	for i, s := range slots {
		cur[i] = lb.StableSlot(s.Cur())
		oldest[i], between[i] = cur[i], cur[i]
		switch s.State() {
		case lb.SlotMoving:
			oldest[i], between[i] = lb.StableSlot(s.Prev()), lb.StableSlot(other)
		case lb.SlotSettling:
			between[i] = lb.StableSlot(other)
		}
	}
	w := newWhole(oldest)
	w.change(now, between)
	w.change(now, cur)
	w.linger(func(slot uint32) bool { return slots[slot].State() == lb.SlotLingering })
	return w
}

// pair is a History and its definition, driven alike.
type pair struct {
	now    int
	window int
	h      *History
	w      *whole
	// A look over the flow table that began at these.
	mark Mark
	step int
}

const mostID = 4

func (p *pair) choice(t *rapid.T) []lb.Slot {
	n := len(p.w.since)
	return choice(rapid.SliceOfN(rapid.Map(rapid.Uint32Range(0, mostID), toID), n, n).Draw(t, "choice")...)
}

func toID(n uint32) lb.RealID { return lb.RealID(n) }

// some draws a part of the slots, or of the reals.
func some[T uint32 | lb.RealID](t *rapid.T, label string) func(T) bool {
	bits := rapid.Uint32().Draw(t, label)
	return func(n T) bool { return bits>>n&1 == 1 }
}

func (p *pair) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"wait": func(t *rapid.T) { p.now += rapid.IntRange(0, 4).Draw(t, "seconds") },
		"change": func(t *rapid.T) {
			next := p.choice(t)
			differs := !slices.Equal(next, p.w.choices[len(p.w.choices)-1].Slots)
			p.w.change(at(p.now), next)
			if p.h.Change(at(p.now), next) != differs {
				t.Fatalf("it is a change: %t, want %t", !differs, differs)
			}
		},
		"forget": func(t *rapid.T) {
			p.w.forget(at(p.now - p.window))
			p.h.Forget(at(p.now - p.window))
		},
		"coalesce": func(t *rapid.T) {
			grain := time.Duration(rapid.IntRange(1, 5).Draw(t, "grain")) * time.Second
			p.w.coalesce(grain)
			p.h.Coalesce(grain)
		},
		"redate": func(t *rapid.T) {
			from := at(p.now - rapid.IntRange(0, p.window).Draw(t, "seconds ago"))
			p.w.redate(from, at(p.now))
			p.h.Redate(from, at(p.now))
		},
		"linger": func(t *rapid.T) {
			where := some[uint32](t, "where")
			p.w.linger(where)
			p.h.Linger(where)
		},
		"look": func(*rapid.T) { p.step, p.mark = p.w.step, p.h.Mark() },
		"prove": func(t *rapid.T) {
			elsewhere := some[uint32](t, "elsewhere")
			p.w.prove(p.step, elsewhere)
			p.h.Prove(p.mark, elsewhere)
		},
		"crash": func(t *rapid.T) {
			slots := p.h.Slots(some[lb.RealID](t, "receives at the crash"))
			p.w, p.h = wholeFromSlots(at(p.now), slots), FromSlots(at(p.now), slots)
			p.step, p.mark = p.w.step, p.h.Mark()
		},
		"restore": func(t *rapid.T) {
			slots := p.h.Slots(anyReal)
			p.setClock(rapid.IntRange(-20, 20).Draw(t, "seconds that the clock was set by"))
			var choices []Choice
			for _, c := range p.w.window() {
				choices = append(choices, c.Choice)
			}
			h, err := Restore(choices)
			if err != nil {
				t.Fatal(err)
			}
			p.h = h
			for i := range p.w.choices {
				p.w.choices[i].merged = false
			}
			lingers := func(slot uint32) bool { return slots[slot].State() == lb.SlotLingering }
			p.w.linger(lingers)
			p.h.Linger(lingers)
			p.step, p.mark = p.w.step, p.h.Mark()
		},
		"": p.check,
	}
}

// setClock dates the choices of the window as a restart does that finds the wall clock set: none of the
// future's, and none longer ago than the window. Most often it is not set.
func (p *pair) setClock(by int) {
	if by%2 == 0 {
		return
	}
	for i := range p.w.choices[1:] {
		if c := &p.w.choices[i+1]; !p.w.forgotten(i + 1) {
			age := int(at(p.now).Sub(c.Since)/time.Second) + by
			c.Since = at(p.now - min(max(age, 0), p.window-1))
		}
	}
}

func (p *pair) check(t *rapid.T) {
	receives := some[lb.RealID](t, "receives")
	got, want := p.h.Slots(receives), p.w.slots(receives)
	if !slices.Equal(got, want) {
		t.Fatalf("slots: %s\n want: %s", text(got), text(want))
	}
	for id := range lb.RealID(mostID + 1) {
		if got, want := p.h.Names(id), p.w.names(id); got != want {
			t.Fatalf("it names %d: %t, want %t", id, got, want)
		}
	}
	if when, ok := p.h.Expires(0); ok && !slices.ContainsFunc(p.w.window()[1:], func(c wholeChoice) bool { return c.Since.Equal(when) }) {
		t.Fatalf("it expires at %v, when there was no change", when)
	}
}

func TestHistoryEqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := make([]lb.Slot, rapid.IntRange(1, 8).Draw(t, "slots"))
		p := &pair{window: rapid.IntRange(1, 10).Draw(t, "window"), h: New(first), w: newWhole(first)}
		t.Repeat(p.actions())
	})
}

// What is kept of a slot that lingers, and of a choice that is over, must not grow with time.
func TestMemoryIsBounded(t *testing.T) {
	h := New(choice(1, 1, 1, 1))
	for i := 1; i <= 100; i++ {
		h.Change(at(i), choice(1, 1, 1+toID(uint32(i%2)), 1+toID(uint32(i%3))))
		h.Forget(at(i - 10))
		if len(h.log) > 10 || len(h.lingering) > 2 {
			t.Fatalf("after %d changes it keeps %d changes and %d lingering slots", i, len(h.log), len(h.lingering))
		}
	}
	h.Forget(at(100))
	for i := 1; i <= 100; i++ {
		h.Change(at(100+i), choice(1, 1, 1+toID(uint32(i%2)), 1+toID(uint32(i%3))))
		h.Coalesce(10 * time.Second)
		if len(h.log) > i/10+1 {
			t.Fatalf("after %d seconds of changes it keeps %d for grains of 10 s", i, len(h.log))
		}
	}
	if kept := h.Kept(); kept == 0 || kept > 2*len(h.log) {
		t.Errorf("%d changes are about %d slots", len(h.log), kept)
	}
	h.Forget(at(200))
	h.Prove(h.Mark(), noSlot)
	if len(h.log) > 0 || len(h.lingering) > 0 {
		t.Errorf("it keeps %d changes and %d lingering slots when all is over", len(h.log), len(h.lingering))
	}
}
