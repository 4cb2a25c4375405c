// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// span is where something is in the rings map: a ring's place, which begins with the word that holds its id
// and its VIP's options, or the slots behind that word.
type span struct{ first, size uint32 }

func (s span) end() uint32 { return s.first + s.size }

// slots is where the slots are in a ring's place.
func (s span) slots() span { return span{s.first + 1, s.size - 1} }

// placeOf is the place of a ring with these slots.
func placeOf(slots span) span { return span{slots.first - 1, slots.size + 1} }

func (s span) compare(t span) int {
	return cmp.Or(cmp.Compare(s.first, t.first), cmp.Compare(s.size, t.size))
}

// ringSpace gives rings their places, first fit.
type ringSpace struct {
	size  uint32
	spans map[lb.RingID]span // changed by set and remove only
	taken []span             // the same, in the order of their places
}

func newRingSpace(size uint32) *ringSpace {
	return &ringSpace{size: size, spans: make(map[lb.RingID]span)}
}

// set gives a ring a place.
func (r *ringSpace) set(id lb.RingID, s span) {
	r.remove(id)
	r.spans[id] = s
	i, _ := slices.BinarySearchFunc(r.taken, s, span.compare)
	r.taken = slices.Insert(r.taken, i, s)
}

// remove frees a ring's place; nothing if it has none.
func (r *ringSpace) remove(id lb.RingID) {
	s, ok := r.spans[id]
	if !ok {
		return
	}
	delete(r.spans, id)
	i, _ := slices.BinarySearchFunc(r.taken, s, span.compare)
	r.taken = slices.Delete(r.taken, i, i+1)
}

// alloc finds a place of n words that no span, nor one of avoid, has; false if there is none.
func (r *ringSpace) alloc(n uint32, avoid ...span) (span, bool) {
	taken := r.taken
	if len(avoid) != 0 {
		taken = slices.Concat(taken, avoid)
		slices.SortFunc(taken, span.compare)
	}
	at := uint32(0)
	for _, s := range taken {
		if s.first >= at && s.first-at >= n {
			break
		}
		at = max(at, s.end())
	}
	if r.size < at || r.size-at < n {
		return span{}, false
	}
	return span{at, n}, true
}

// words is how many words all places together have.
func (r *ringSpace) words() int {
	n := 0
	for _, s := range r.spans {
		n += int(s.size)
	}
	return n
}
