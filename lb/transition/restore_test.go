// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestRestore(t *testing.T) {
	h, err := Restore([]Choice{
		{Slots: choice(1, 1, 1)},
		{Since: at(1), Slots: choice(1, 2, 2)},
		{Since: at(2), Slots: choice(1, 3, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantSlots(t, h, anyReal, "stable 1, moving 3 from 1, settling 1")
	h.Forget(at(1))
	wantSlots(t, h, anyReal, "stable 1, moving 3 from 2, moving 1 from 2")
	h.Forget(at(2))
	wantSlots(t, h, anyReal, "stable 1, lingering 3, lingering 1")
}

func TestRestoreFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		choices []Choice
		want    string
	}{
		{"none", nil, "restore history: there is no choice"},
		{"shorter", []Choice{{Slots: choice(1, 1)}, {Slots: choice(1)}},
			"restore history: choice 2 has 1 slots, those before have 2"},
		{"longer", []Choice{{Slots: choice(1)}, {Slots: choice(1)}, {Slots: choice(1, 1)}},
			"restore history: choice 3 has 2 slots, those before have 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Restore(c.choices); err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func TestFromSlots(t *testing.T) {
	slots := []lb.Slot{
		lb.StableSlot(1), lb.MovingSlot(2, 1), lb.SettlingSlot(2), lb.LingeringSlot(3),
		lb.StableSlot(0), lb.MovingSlot(0, 1), lb.SettlingSlot(0), lb.LingeringSlot(0),
	}
	h := FromSlots(at(5), slots)
	want := text(slots)
	clear(slots)
	wantSlots(t, h, anyReal, want)
	h.Forget(at(4))
	wantSlots(t, h, anyReal, want)
	h.Change(at(6), choice(4, 4, 4, 4, 4, 4, 4, 4))
	wantSlots(t, h, anyReal, "moving 4 from 1, moving 4 from 1, moving 4 from 2, moving 4 from 3, "+
		"settling 4, moving 4 from 1, settling 4, settling 4")
	h.Forget(at(5))
	wantSlots(t, h, anyReal, "moving 4 from 1, moving 4 from 2, moving 4 from 2, moving 4 from 3, "+
		"settling 4, settling 4, settling 4, settling 4")
}

func TestFromSlotsForgets(t *testing.T) {
	h := FromSlots(at(5), []lb.Slot{
		lb.StableSlot(1), lb.MovingSlot(2, 1), lb.SettlingSlot(2), lb.LingeringSlot(3),
	})
	if !h.Forget(at(5)) {
		t.Error("there was no change to forget")
	}
	wantSlots(t, h, anyReal, "stable 1, lingering 2, lingering 2, lingering 3")
	h.Prove(h.Mark(), noSlot)
	wantSlots(t, h, anyReal, "stable 1, stable 2, stable 2, stable 3")
}

func TestFromStableSlots(t *testing.T) {
	h := FromSlots(at(5), choice(1, 2, 0))
	wantSlots(t, h, anyReal, "stable 1, stable 2, stable 0")
	if when, ok := h.Expires(0); ok {
		t.Errorf("a ring without changes expires at %v", when)
	}
}
