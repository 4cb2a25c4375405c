// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestRingSpaceAlloc(t *testing.T) {
	for _, tt := range []struct {
		name  string
		size  uint32
		spans []span
		avoid []span
		n     uint32
		want  span
		no    bool
	}{
		{name: "empty", size: 10, n: 10, want: span{0, 10}},
		{name: "too large", size: 10, n: 11, no: true},
		{name: "no space at all", size: 0, n: 1, no: true},
		{name: "behind", size: 10, spans: []span{{0, 4}}, n: 6, want: span{4, 6}},
		{name: "behind, one too many", size: 10, spans: []span{{0, 4}}, n: 7, no: true},
		{name: "before", size: 10, spans: []span{{4, 6}}, n: 4, want: span{0, 4}},
		{name: "first gap that fits", size: 100, spans: []span{{0, 10}, {13, 7}, {30, 10}}, n: 10, want: span{20, 10}},
		{name: "first of two gaps", size: 100, spans: []span{{0, 10}, {15, 5}, {30, 10}}, n: 5, want: span{10, 5}},
		{name: "gaps too small", size: 40, spans: []span{{0, 10}, {13, 7}, {23, 17}}, n: 4, no: true},
		{name: "avoid", size: 20, avoid: []span{{0, 7}}, n: 7, want: span{7, 7}},
		{name: "avoid in a gap", size: 40, spans: []span{{0, 10}, {20, 10}}, avoid: []span{{12, 3}}, n: 10, want: span{30, 10}},
		{name: "avoid overlaps a ring", size: 40, spans: []span{{0, 20}}, avoid: []span{{5, 5}}, n: 20, want: span{20, 20}},
		{name: "full", size: 20, spans: []span{{0, 20}}, n: 1, no: true},
		{name: "at the end of 32 bits", size: 1<<32 - 1, spans: []span{{0, 1<<32 - 8}}, n: 8, no: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRingSpace(tt.size)
			for i, s := range tt.spans {
				r.set(lb.RingID(i), s)
			}
			got, ok := r.alloc(tt.n, tt.avoid...)
			if got != tt.want || ok == tt.no {
				t.Errorf("%v, %v; want %v, %v", got, ok, tt.want, !tt.no)
			}
		})
	}
}

// Random allocations and frees, against a map of which slot is whose.
func TestRingSpaceRandom(t *testing.T) {
	random := seeded(t)
	const size = 300
	r := newRingSpace(size)
	for step := range 5000 {
		id := lb.RingID(random.IntN(12))
		r.remove(id)
		if random.IntN(3) == 0 {
			continue
		}
		taken := ownersOf(t, r)
		avoid := span{uint32(random.IntN(size)), uint32(1 + random.IntN(20))}
		for i := avoid.first; i < min(avoid.end(), size); i++ {
			taken[i] = true
		}
		n := uint32(1 + random.IntN(80))
		got, ok := r.alloc(n, avoid)
		if want, can := firstFit(taken, n); ok != can || got != want {
			t.Fatalf("step %d: alloc(%d, %v) is %v, %v; want %v, %v; spans %v", step, n, avoid, got, ok, want, can, r.spans)
		}
		if ok {
			r.set(id, got)
		}
	}
}

// ownersOf marks the slots that are taken, and fails if two rings have one.
func ownersOf(t *testing.T, r *ringSpace) []bool {
	t.Helper()
	taken, sum := make([]bool, r.size), 0
	for _, s := range r.spans {
		for i := s.first; i < s.end(); i++ {
			if taken[i] {
				t.Fatalf("two rings have slot %d: %v", i, r.spans)
			}
			taken[i] = true
			sum++
		}
	}
	if sum != r.words() {
		t.Fatalf("%d words, but %d are taken", r.words(), sum)
	}
	return taken
}

func firstFit(taken []bool, n uint32) (span, bool) {
	free := uint32(0)
	for i, used := range taken {
		free++
		if used {
			free = 0
		}
		if free == n {
			return span{uint32(i) + 1 - n, n}, true
		}
	}
	return span{}, false
}
