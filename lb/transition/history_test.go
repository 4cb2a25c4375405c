// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

// at is a time in whole seconds, of the tests' own beginning.
func at(seconds int) time.Time { return time.Unix(int64(seconds), 0) }

// choice is a ring of stable slots, one for each id.
func choice(ids ...lb.RealID) []lb.Slot {
	slots := make([]lb.Slot, len(ids))
	for i, id := range ids {
		slots[i] = lb.StableSlot(id)
	}
	return slots
}

func anyReal(lb.RealID) bool { return true }

func noSlot(uint32) bool { return false }

// text is slots as a list of such as "stable 1" and "moving 2 from 1".
func text(slots []lb.Slot) string {
	var words []string
	for _, s := range slots {
		word := fmt.Sprintf("%s %d", s.State(), s.Cur())
		if s.Prev() != 0 {
			word += fmt.Sprintf(" from %d", s.Prev())
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func wantSlots(t *testing.T, h *History, receives func(lb.RealID) bool, want string) {
	t.Helper()
	if got := text(h.Slots(receives)); got != want {
		t.Errorf("slots: %s\n want: %s", got, want)
	}
}

// changes returns the history of a ring of one slot that had these reals, from second 0, 1, 2, ...
// on.
func changes(ids ...lb.RealID) *History {
	h := New(choice(ids[0]))
	for i, id := range ids[1:] {
		h.Change(at(i+1), choice(id))
	}
	return h
}

func TestStates(t *testing.T) {
	for _, c := range []struct {
		name    string
		ids     []lb.RealID
		retired lb.RealID
		want    string
	}{
		{"never another", []lb.RealID{1}, 0, "stable 1"},
		{"never a real", []lb.RealID{0}, 0, "stable 0"},
		{"the same again", []lb.RealID{1, 1, 1}, 0, "stable 1"},
		{"another", []lb.RealID{1, 2}, 0, "moving 2 from 1"},
		{"another, the oldest may not receive", []lb.RealID{1, 2}, 1, "settling 2"},
		{"another, a third may not receive", []lb.RealID{1, 2}, 3, "moving 2 from 1"},
		{"another, the present may not receive", []lb.RealID{1, 2}, 2, "moving 2 from 1"},
		{"two others", []lb.RealID{1, 2, 3}, 0, "moving 3 from 1"},
		{"two others, the middle may not receive", []lb.RealID{1, 2, 3}, 2, "moving 3 from 1"},
		{"two others, the oldest may not receive", []lb.RealID{1, 2, 3}, 1, "settling 3"},
		{"there and back", []lb.RealID{1, 2, 1}, 0, "settling 1"},
		{"there and back, may not receive", []lb.RealID{1, 2, 1}, 1, "settling 1"},
		{"there, back and there", []lb.RealID{1, 2, 1, 2}, 0, "moving 2 from 1"},
		{"back to the middle", []lb.RealID{1, 2, 3, 2}, 0, "moving 2 from 1"},
		{"none before", []lb.RealID{0, 1}, 0, "settling 1"},
		{"none in between", []lb.RealID{1, 0, 1}, 0, "settling 1"},
		{"none in between, another after", []lb.RealID{1, 0, 2}, 0, "moving 2 from 1"},
		{"none now", []lb.RealID{1, 0}, 0, "moving 0 from 1"},
		{"none now, the oldest may not receive", []lb.RealID{1, 0}, 1, "settling 0"},
		{"none before and now", []lb.RealID{0, 1, 0}, 0, "settling 0"},
		{"the greatest ids", []lb.RealID{lb.MaxRealID, lb.MaxRealID - 1}, 0, "moving 16777214 from 16777215"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := changes(c.ids...)
			receives := func(id lb.RealID) bool { return id != c.retired || c.retired == 0 }
			wantSlots(t, h, receives, c.want)
			cur := c.ids[len(c.ids)-1]
			h.Forget(at(len(c.ids)))
			after := "lingering"
			if strings.HasPrefix(c.want, "stable") {
				after = "stable"
			}
			wantSlots(t, h, receives, fmt.Sprintf("%s %d", after, cur))
			h.Prove(h.Mark(), noSlot)
			wantSlots(t, h, receives, fmt.Sprintf("stable %d", cur))
		})
	}
}

func TestForget(t *testing.T) {
	// The slot has 1, from second 1 on 2, from second 2 on 3, from second 3 on 2.
	for _, c := range []struct {
		until   int
		dropped bool
		want    string
	}{
		{0, false, "moving 2 from 1"},
		{1, true, "settling 2"},
		{2, true, "moving 2 from 3"},
		{3, true, "lingering 2"},
		{9, true, "lingering 2"},
	} {
		t.Run(fmt.Sprintf("until %d", c.until), func(t *testing.T) {
			h := changes(1, 2, 3, 2)
			if got := h.Forget(at(c.until)); got != c.dropped {
				t.Errorf("dropped a change: %t, want %t", got, c.dropped)
			}
			wantSlots(t, h, anyReal, c.want)
			if h.Forget(at(c.until)) {
				t.Error("it dropped a change once more")
			}
			wantSlots(t, h, anyReal, c.want)
		})
	}
}

func TestSlotsOfOneRingDiffer(t *testing.T) {
	h := New(choice(1, 1, 1, 1, 0))
	if !h.Change(at(1), choice(1, 2, 1, 1, 3)) {
		t.Error("a change was none")
	}
	if h.Change(at(2), choice(1, 2, 1, 1, 3)) {
		t.Error("an equal choice was a change")
	}
	h.Change(at(3), choice(1, 2, 2, 2, 3))
	h.Change(at(3), choice(1, 2, 1, 3, 3))
	wantSlots(t, h, anyReal, "stable 1, moving 2 from 1, settling 1, moving 3 from 1, settling 3")
	h.Forget(at(2))
	wantSlots(t, h, anyReal, "stable 1, lingering 2, settling 1, moving 3 from 1, lingering 3")
	if got, want := States(h.Slots(anyReal)), [...]int{1, 1, 1, 2}; got != want {
		t.Errorf("slots in the states: %v, want %v", got, want)
	}
}

func TestArgumentsAreNotWritten(t *testing.T) {
	first, second := choice(1, 1), choice(1, 2)
	h := New(first)
	h.Change(at(1), second)
	slots := h.Slots(anyReal)
	slots[0] = lb.StableSlot(9)
	h.Forget(at(1))
	h.Slots(anyReal)
	if !slices.Equal(first, choice(1, 1)) || !slices.Equal(second, choice(1, 2)) {
		t.Errorf("the choices became %s and %s", text(first), text(second))
	}
	wantSlots(t, h, anyReal, "stable 1, lingering 2")
}

func TestClockGoesBack(t *testing.T) {
	h := New(choice(1))
	h.Change(at(10), choice(2))
	h.Change(at(5), choice(3))
	if h.Forget(at(9)) {
		t.Error("a change was dropped that is not old enough")
	}
	wantSlots(t, h, anyReal, "moving 3 from 1")
	h.Forget(at(10))
	wantSlots(t, h, anyReal, "lingering 3")
}

func TestExpires(t *testing.T) {
	h := New(choice(1))
	if when, ok := h.Expires(time.Minute); ok {
		t.Errorf("a ring without changes expires at %v", when)
	}
	h.Change(at(7), choice(2))
	h.Change(at(8), choice(3))
	for _, since := range []int{7, 8} {
		when, ok := h.Expires(time.Minute)
		if want := at(since).Add(time.Minute); !ok || !when.Equal(want) {
			t.Fatalf("expires at %v %t, want %v", when, ok, want)
		}
		if h.Forget(when.Add(-time.Minute - 1)) {
			t.Fatal("a change was dropped before its time")
		}
		if !h.Forget(when.Add(-time.Minute)) {
			t.Fatal("no change was dropped at its time")
		}
	}
	if _, ok := h.Expires(time.Minute); ok {
		t.Error("a ring expires though its changes are forgotten")
	}
}

func TestNames(t *testing.T) {
	h := changes(1, 2, 1, 3) // from second 0, 1, 2, 3 on
	for _, c := range []struct {
		until int
		want  []lb.RealID
	}{
		{0, []lb.RealID{1, 2}},
		{1, []lb.RealID{1, 2}},
		{2, []lb.RealID{1}},
		{3, nil},
	} {
		h.Forget(at(c.until))
		var got []lb.RealID
		for id := range lb.RealID(5) {
			if h.Names(id) {
				got = append(got, id)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("after forgetting until %d it names %v, want %v", c.until, got, c.want)
		}
	}
}
