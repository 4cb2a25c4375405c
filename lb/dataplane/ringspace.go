// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// span is where a ring's slots are in the rings map.
type span struct{ first, size uint32 }

func (s span) end() uint32 { return s.first + s.size }

// ringSpace gives rings their places, first fit. The space starts at slot 1 only in so far as slot
// 0 is as good as any: a VIP's value is never 0, since its size is not.
type ringSpace struct {
	size  uint32
	spans map[lb.RingID]span
}

func newRingSpace(size uint32) *ringSpace {
	return &ringSpace{size: size, spans: make(map[lb.RingID]span)}
}

// alloc finds a place of n slots that no span, nor one of avoid, has; false if there is none.
func (r *ringSpace) alloc(n uint32, avoid ...span) (span, bool) {
	taken := slices.Clone(avoid)
	for _, s := range r.spans {
		taken = append(taken, s)
	}
	slices.SortFunc(taken, func(a, b span) int { return cmp.Compare(a.first, b.first) })
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

// slots is how many slots all rings together have.
func (r *ringSpace) slots() int {
	n := 0
	for _, s := range r.spans {
		n += int(s.size)
	}
	return n
}
