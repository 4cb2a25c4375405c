// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"iter"

	"github.com/remora-lb/remora/lb"
)

// takers lists, for each slot in the order in which slots are taken, the member that takes it, as
// an index into members. There is at least one member.
func takers(ring lb.Ring, members []ranked) []uint32 {
	turns := make([]uint32, ring.Size)
	if ring.Hash == lb.MaglevV1 {
		takersV1(turns, members)
	} else {
		takersV2(turns, members)
	}
	return turns
}

// takersV1 gives each member as many turns in a row as its weight says, and then one in each
// round.
func takersV1(turns []uint32, members []ranked) {
	for i, m := range members {
		n := min(uint64(m.weight), uint64(len(turns)))
		for k := range turns[:n] {
			turns[k] = uint32(i)
		}
		turns = turns[n:]
	}
	takersInTurn(turns, len(members))
}

// takersInTurn gives each member one turn in each round.
func takersInTurn(turns []uint32, members int) {
	for len(turns) > 0 {
		n := min(members, len(turns))
		for i := range turns[:n] {
			turns[i] = uint32(i)
		}
		turns = turns[n:]
	}
}

// takersV2 gives a member a turn in each round in which the sum of its weight over the rounds
// reaches a further multiple of the greatest weight. Asking every member in every round would take
// as long as the weights differ, so the turns are computed member by member and sorted by round.
func takersV2(turns []uint32, members []ranked) {
	var greatest, sum uint64
	for _, m := range members {
		greatest = max(greatest, uint64(m.weight))
		sum += uint64(m.weight)
	}
	if sum == greatest*uint64(len(members)) {
		takersInTurn(turns, len(members)) // all weights are equal
		return
	}
	// r rounds have more than r*sum/greatest - len(members) turns, since each member lacks less than
	// one of its exact share; and at least r, those of the heaviest. So this many have a turn for
	// every slot.
	size := uint64(len(turns))
	last := min(size, (size+uint64(len(members)))*greatest/sum+1)

	// next[r] is where the turns of round r go on in turns. First it counts those of round r-1.
	next := make([]uint32, last+2)
	for _, m := range members {
		for r := range rounds(m.weight, greatest, last) {
			next[r+1]++
		}
	}
	for r := range last + 1 {
		next[r+1] += next[r]
	}
	for i, m := range members {
		for r := range rounds(m.weight, greatest, last) {
			if next[r] >= uint32(size) {
				break
			}
			turns[next[r]] = uint32(i)
			next[r]++
		}
	}
}

// rounds are those up to last in which a member has a turn. With g the greatest weight, the t-th is
// ceil(t*g/weight).
func rounds(weight uint32, greatest, last uint64) iter.Seq[uint64] {
	w := int64(weight)
	quotient, rest := int64(greatest)/w, int64(greatest)%w
	return func(yield func(uint64) bool) {
		var round uint64
		var spare int64 // round*weight - t*greatest, which is 0 to weight-1
		for {
			// One round more is needed if spare falls below zero. There is no branch for it, because
			// nobody could foresee which way it goes.
			spare -= rest
			short := spare >> 63 // -1 or 0
			spare += w & short
			round += uint64(quotient - short)
			if round > last || !yield(round) {
				return
			}
		}
	}
}
