// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"math"
	"math/bits"

	"github.com/remora-lb/remora/lb"
)

// walk is a member's way over the ring. Its candidates are offset + j*skip for j = 0, 1, 2, ...,
// computed in 32 bits, modulo the ring's size. The carry that is lost each time the sum passes
// 2^32 is part of the definition.
type walk struct {
	// sum is the sum for the present j, and pos its candidate.
	sum, pos uint32
	// skip is 1 to size-1.
	skip uint32
	// wraps is how often the sum may pass 2^32 until all sums have been met.
	wraps uint32
	id    lb.RealID
}

func newWalk(id lb.RealID, hash uint64, size uint32) walk {
	offset := uint32(murmur(hash, 42, 0) % uint64(size))
	skip := uint32(murmur(hash, 2718281828, 2307)%uint64(size-1)) + 1
	return walkFrom(id, offset, skip, size)
}

// walkFrom starts at any sum. After 2^32 / gcd(skip, 2^32) candidates the sums repeat. If the skip
// is a multiple of a great power of two, in rings of 65537 slots and more, slots can be left that
// none of them names, and the search for a free one would never end. From then on the walk goes on
// as if sums did not wrap, which leads to every slot, since the size is a prime.
func walkFrom(id lb.RealID, sum, skip, size uint32) walk {
	return walk{sum: sum, pos: sum % size, skip: skip, wraps: skip >> bits.TrailingZeros32(skip), id: id}
}

// seek goes to the first candidate that is not taken, the present one included, by trying one after
// the other. One must be left.
func (w *walk) seek(taken slotSet, size uint32) uint32 {
	sum, pos, skip := w.sum, w.pos, w.skip
	for taken.has(pos) {
		// pos + skip modulo size, without a branch that nobody could foresee.
		over := int32(pos+skip) - int32(size)
		pos = uint32(over + int32(size)&(over>>31))
		sum += skip
		if sum < skip && w.wraps > 0 {
			w.wraps--
			pos = sum % size
		}
	}
	w.sum, w.pos = sum, pos
	return pos
}

// jump is seek for few free slots: it computes how many steps away each is, and returns the index
// of the nearest.
//
// A slot is (slot-pos) / skip steps away, modulo size. With 1/skip as a fraction of size in units
// of 2^-64, the product is that of the steps, and dropping the upper bits of the product is the
// modulo. Its error is below size units, and size is below 2^20, so half of 1/size is enough to round by.
func (w *walk) jump(free []uint32, size uint32) int {
	perSlot, _ := bits.Div64(uint64(inverse(w.skip, size)), 0, uint64(size))
	for {
		nearest, fraction := 0, uint64(math.MaxUint64)
		for k, slot := range free {
			if f := uint64(int64(slot)-int64(w.pos)) * perSlot; f <= fraction {
				nearest, fraction = k, f
			}
		}
		steps, _ := bits.Mul64(fraction+math.MaxInt64/uint64(size), uint64(size))
		straight := (math.MaxUint32 - w.sum) / w.skip // steps until the sum wraps
		if uint32(steps) <= straight || w.wraps == 0 {
			w.sum += uint32(steps) * w.skip
			w.pos = free[nearest]
			return nearest
		}
		w.wraps--
		w.sum += (straight + 1) * w.skip
		w.pos = w.sum % size
	}
}

// inverse is the number that multiplied with n is 1 modulo the prime p; n is 1 to p-1.
func inverse(n, p uint32) uint32 {
	// Euclid's algorithm, which keeps r = a*n and s = b*n modulo p.
	r, s := int64(p), int64(n)
	a, b := int64(0), int64(1)
	for s != 1 {
		q := r / s
		r, s = s, r-q*s
		a, b = b, a-q*b
	}
	if b < 0 {
		b += int64(p)
	}
	return uint32(b)
}
