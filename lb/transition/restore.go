// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"errors"
	"fmt"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Choice is what a ring chose from some time on, until that of the next Choice.
type Choice struct {
	// Since does not matter for the first of a history: it was in force when the window began.
	Since time.Time
	// Slots are as for New.
	Slots []lb.Slot
}

// Restore returns the history of a ring that had these choices, the last of which is the present
// one. It cannot know which slots linger: Linger is to be told of those that are not stable as
// written. It fails if there is no choice, or one of another length than the first.
//
// New, and Change for each further choice, do the same with one choice in memory at a time.
func Restore(choices []Choice) (*History, error) {
	if len(choices) == 0 {
		return nil, errors.New("restore history: there is no choice")
	}
	h := New(choices[0].Slots)
	for i, c := range choices[1:] {
		if got, want := len(c.Slots), len(h.choice); got != want {
			return nil, fmt.Errorf("restore history: choice %d has %d slots, those before have %d", i+2, got, want)
		}
		h.Change(c.Since, c.Slots)
	}
	return h, nil
}

// FromSlots returns what can be told from a ring's slots alone, as they were written: slots that
// move or settle changed just now, and those that linger go on. It keeps no reference to slots.
//
// Of a settling slot the present choice is taken for the oldest one too. So it was, or else the
// oldest may not receive: then no flow is lost by it. Choices in between are not known, and need not
// be: flows that began under them are remembered.
func FromSlots(now time.Time, slots []lb.Slot) *History {
	h := New(make([]lb.Slot, len(slots)))
	c := change{at: now}
	for i, s := range slots {
		h.choice[i] = lb.StableSlot(s.Cur())
		oldest := s.Cur()
		switch s.State() {
		case lb.SlotMoving:
			oldest = s.Prev()
		case lb.SlotSettling:
		default:
			continue
		}
		c.slots = append(c.slots, uint32(i))
		c.reals = append(c.reals, oldest)
	}
	if len(c.slots) > 0 {
		h.log = append(h.log, c)
	}
	h.Linger(func(slot uint32) bool { return slots[slot].State() == lb.SlotLingering })
	return h
}
