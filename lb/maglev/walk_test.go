// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"math"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// primes are ring sizes of all kinds: the least, those about Katran's, and some at which sums wrap
// all the time.
var primes = []uint32{2, 3, 5, 7, 11, 251, 1021, 4093, 16381, 65521, 65537, 65539, 131071, 262139, 524287, 1048573}

func TestNewWalk(t *testing.T) {
	for _, c := range []struct {
		addr         string
		size         uint32
		offset, skip uint32
	}{
		{"10.0.0.1", 65537, 4577, 18292},
		{"10.0.0.2", 65537, 42248, 16076},
		{"10.0.0.3", 65537, 65365, 24158},
		{"fc00::1", 65537, 7827, 60497},
		{"fc00::2", 65537, 12132, 1761},
		{"fc00::3", 65537, 61702, 64040},
		{"10.0.0.1", 7, 5, 4},
		{"10.0.0.2", 7, 4, 2},
		{"10.0.0.3", 7, 2, 6},
	} {
		w := newWalk(1, AddrHash(netip.MustParseAddr(c.addr)), c.size)
		if w.sum != c.offset || w.pos != c.offset || w.skip != c.skip {
			t.Errorf("%s of %d: offset %d, skip %d, want %d, %d", c.addr, c.size, w.pos, w.skip, c.offset, c.skip)
		}
	}
}

// Both ways of finding a slot agree with one candidate after the other, also where the sums wrap.
func TestWalkTakesFirstFreeCandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(primes).Draw(t, "size")
		skip := rapid.Uint32Range(1, size-1).Draw(t, "skip")
		sum := rapid.Uint32().Draw(t, "sum")
		if rapid.Bool().Draw(t, "near the wrap") {
			sum = math.MaxUint32 - sum%size
		}
		taken := make(slotSet, size/64+1)
		for pos := range size {
			taken.add(pos)
		}
		free := rapid.SliceOfNDistinct(rapid.Uint32Range(0, size-1), 1, int(min(size, 40)), rapid.ID).Draw(t, "free")
		for _, pos := range free {
			taken[pos/64] &^= 1 << (pos % 64)
		}
		want, found := sum, false
		for range 1 << 20 {
			if found = !taken.has(want % size); found {
				break
			}
			want += skip
		}

		tried, jumped := walkFrom(1, sum, skip, size), walkFrom(1, sum, skip, size)
		if found {
			tried.seek(taken, size)
		}
		at := free[jumped.jump(free, size)]
		if taken.has(at) || jumped.pos != at {
			t.Fatalf("jumped to slot %d of %d", jumped.pos, at)
		}
		if found && (tried.pos != want%size || tried.sum != want || jumped != tried) {
			t.Fatalf("sum %d: tried %+v, jumped %+v, want sum %d, slot %d", sum, tried, jumped, want, want%size)
		}
	})
}

// Some skips never meet some slots, because their sums repeat before. The walk must all the same.
func TestWalkReachesEverySlot(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, skip uint32
	}{
		{"Katran's size, all sums are congruent", 65537, 65536},
		{"large ring, 2^14 sums", 1048573, 1 << 18},
		{"large ring, 2^13 sums", 1048573, 1 << 19},
		{"large ring, odd multiple", 1048573, 3 << 17},
	} {
		t.Run(c.name, func(t *testing.T) {
			met := make(slotSet, c.size/64+1)
			w := walkFrom(1, 5, c.skip, c.size)
			for range c.size {
				met.add(w.seek(met, c.size))
			}
			if free := met.missing(c.size); len(free) > 0 {
				t.Fatalf("%d slots were not met, the first is %d", len(free), free[0])
			}
			for slot := uint32(0); slot < c.size; slot += c.size / 7 {
				all := make(slotSet, c.size/64+1)
				for pos := range c.size {
					if pos != slot {
						all.add(pos)
					}
				}
				tried, jumped := walkFrom(1, 5, c.skip, c.size), walkFrom(1, 5, c.skip, c.size)
				tried.seek(all, c.size)
				jumped.jump([]uint32{slot}, c.size)
				if tried.pos != slot || jumped != tried {
					t.Fatalf("slot %d: tried %+v, jumped %+v", slot, tried, jumped)
				}
			}
		})
	}
}

func TestInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(primes).Draw(t, "p")
		n := rapid.Uint32Range(1, p-1).Draw(t, "n")
		if got := inverse(n, p); got >= p || uint64(got)*uint64(n)%uint64(p) != 1 {
			t.Fatalf("inverse(%d, %d) = %d", n, p, got)
		}
	})
}
