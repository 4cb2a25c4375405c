// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package transition derives the slots of a ring from the choices that were in force within the
// window: which real each slot had. It does no I/O and reads no clock. What a slot's states mean for
// a packet is in docs/packet-path.md, section 5.
package transition

import (
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// History is how one ring came to its present choice, as far as the window reaches back. It holds
// the present choice, and of earlier ones the slots in which each differed from the next: a few
// bytes for each slot that changed, however large the ring.
//
// It belongs to one goroutine. A ring of another size or hash is another ring, with a History of
// its own.
type History struct {
	// choice is the present one, all slots stable. It is never written to.
	choice []lb.Slot
	// log is the changes within the window, in the order in which they were made.
	log []change
	// lingering is by slot, each once. A slot that is in the log as well does not linger yet, or
	// not any more.
	lingering []lingering
	mark      Mark
}

// change is what a choice took away: slots, ascending, and the real that each had until then.
type change struct {
	at    time.Time
	slots []uint32
	reals []lb.RealID
}

// New returns the history of a ring that never had another choice. The choice is stable slots, as
// maglev.Build returns them. The caller must not write to it any more; nor does the History.
func New(choice []lb.Slot) *History { return &History{choice: choice} }

// Change makes choice the present one, and tells whether it differs from the one before. It must
// have the ring's length; for the rest it is as that of New. Should the clock have gone back since
// the last change, then that one is remembered longer than the window, never shorter.
func (h *History) Change(now time.Time, choice []lb.Slot) bool {
	n := 0
	for i, s := range h.choice {
		if choice[i] != s {
			n++
		}
	}
	if n == 0 {
		return false
	}
	c := change{at: now, slots: make([]uint32, 0, n), reals: make([]lb.RealID, 0, n)}
	for i, s := range h.choice {
		if choice[i] != s {
			c.slots = append(c.slots, uint32(i))
			c.reals = append(c.reals, s.Cur())
		}
	}
	h.log = append(h.log, c)
	h.choice = choice
	return true
}

// Redate dates the changes made at that time or later anew: they were written only now.
func (h *History) Redate(from, now time.Time) {
	for i := range h.log {
		if !h.log[i].at.Before(from) {
			h.log[i].at = now
		}
	}
}

// Coalesce makes one change, dated at the later time, of neighbouring ones that fall in the same
// grain of time, so that many changes need no more memory than there are grains in the window. What
// it costs is that slots settle later, by less than the grain.
func (h *History) Coalesce(grain time.Duration) {
	log := h.log[:0]
	for _, c := range h.log {
		if n := len(log) - 1; n >= 0 && SameGrain(log[n].at, c.at, grain) {
			log[n] = log[n].and(c)
		} else {
			log = append(log, c)
		}
	}
	clear(h.log[len(log):])
	h.log = log
}

// SameGrain tells whether Coalesce makes one change of neighbouring ones at these times.
func SameGrain(a, b time.Time, grain time.Duration) bool {
	return a.Truncate(grain).Equal(b.Truncate(grain))
}

// and is one change for c and the next one. A slot that has a part in both had its real until c, even
// if that is the present one again: flows of the one in between may be remembered.
func (c change) and(next change) change {
	sum := change{at: c.at}
	if next.at.After(c.at) {
		sum.at = next.at
	}
	for i, j := 0, 0; i < len(c.slots) || j < len(next.slots); {
		switch {
		case j == len(next.slots) || i < len(c.slots) && c.slots[i] < next.slots[j]:
			sum.slots, sum.reals = append(sum.slots, c.slots[i]), append(sum.reals, c.reals[i])
			i++
		case i == len(c.slots) || next.slots[j] < c.slots[i]:
			sum.slots, sum.reals = append(sum.slots, next.slots[j]), append(sum.reals, next.reals[j])
			j++
		default:
			sum.slots, sum.reals = append(sum.slots, c.slots[i]), append(sum.reals, c.reals[i])
			i, j = i+1, j+1
		}
	}
	return sum
}

// Kept is how many slots the changes are about, all together: what the History needs beside its choice is
// in proportion to it, and to the slots that linger, which are no more than there are.
func (h *History) Kept() int {
	n := 0
	for _, c := range h.log {
		n += len(c.slots)
	}
	return n
}

// Forget drops the changes made at that time or before, that is, of choices not in force since. It
// is to be called with the time one window ago. Slots that no change is left of linger from now on,
// since flows may be remembered that are elsewhere. It tells whether it dropped any change.
func (h *History) Forget(until time.Time) bool {
	n := 0
	for n < len(h.log) && !h.log[n].at.After(until) {
		n++
	}
	if n == 0 {
		return false
	}
	h.mark++
	for _, c := range h.log[:n] {
		h.lingering = merge(h.lingering, c.slots, h.mark)
	}
	h.log = slices.Delete(h.log, 0, n)
	return true
}

// Expires is when the oldest change leaves a window of this length, so that Forget has something to
// drop; false if there was no change.
func (h *History) Expires(window time.Duration) (time.Time, bool) {
	if len(h.log) == 0 {
		return time.Time{}, false
	}
	return h.log[0].at.Add(window), true
}

// Quiet tells whether all slots are stable, whatever may be received.
func (h *History) Quiet() bool { return len(h.log) == 0 && len(h.lingering) == 0 }

// Names tells whether a slot had this real by an earlier choice of the window. Only then may the
// real be the previous one of a moving slot, now or when older changes are forgotten. The present
// choice does not count. It looks at the whole log.
func (h *History) Names(id lb.RealID) bool {
	return slices.ContainsFunc(h.log, func(c change) bool { return slices.Contains(c.reals, id) })
}
