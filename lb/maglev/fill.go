// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"math/bits"

	"github.com/remora-lb/remora/lb"
)

// fill gives every slot of a ring to a walk. turns names, for each slot in the order in which slots
// are taken, the walk that takes it: always the first on its way that is free.
//
// More than half of all candidates would be tried for the last 256 slots of 65537. So at the end
// the way to each slot that is left is computed instead.
func fill(slots []lb.Slot, walks []walk, turns []uint32) {
	size := uint32(len(slots))
	// The number where both ways take about as long: a try for each in size/left candidates here,
	// a multiplication for each slot that is left there.
	left := 1 << (bits.Len32(size) / 2)
	early := turns[:len(turns)-left]

	taken := make(slotSet, size/64+1)
	for _, i := range early {
		w := &walks[i]
		pos := w.seek(taken, size)
		slots[pos] = lb.StableSlot(w.id)
		taken.add(pos)
	}
	free := taken.missing(size)
	for _, i := range turns[len(early):] {
		w := &walks[i]
		k := w.jump(free, size)
		slots[free[k]] = lb.StableSlot(w.id)
		free[k] = free[len(free)-1]
		free = free[:len(free)-1]
	}
}

// slotSet is a set of slots, a bit each: small enough to stay in the fastest cache.
type slotSet []uint64

func (s slotSet) has(pos uint32) bool { return s[pos/64]>>(pos%64)&1 != 0 }

func (s slotSet) add(pos uint32) { s[pos/64] |= 1 << (pos % 64) }

// missing lists the slots below size that are not in the set.
func (s slotSet) missing(size uint32) []uint32 {
	var free []uint32
	for pos := range size {
		if !s.has(pos) {
			free = append(free, pos)
		}
	}
	return free
}
