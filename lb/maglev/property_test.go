// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
)

func drawRing(t *rapid.T, sizes []uint32) lb.Ring {
	return lb.Ring{
		Size: rapid.SampledFrom(sizes).Draw(t, "size"),
		Hash: rapid.SampledFrom([]lb.RingHash{lb.MaglevV1, lb.MaglevV2}).Draw(t, "hash"),
	}
}

// drawMembers draws members of both families, with weights that are equal, alike or wildly apart.
func drawMembers(t *rapid.T, most int) []Member {
	weight := rapid.SampledFrom([]*rapid.Generator[uint32]{
		rapid.Just[uint32](1),
		rapid.Uint32Range(0, 100),
		rapid.Uint32(),
		rapid.SampledFrom([]uint32{0, 1, 2, math.MaxUint32 - 1, math.MaxUint32}),
	}).Draw(t, "weights")
	addrs := rapid.SliceOfNDistinct(rapid.Uint32(), 0, most, rapid.ID).Draw(t, "addresses")
	members := make([]Member, len(addrs))
	for i, a := range addrs {
		b := [16]byte{0: 0xfc, 1: 0x00}
		binary.BigEndian.PutUint32(b[12:], a)
		addr := netip.AddrFrom16(b)
		if a%2 == 0 {
			addr = netip.AddrFrom4([4]byte(b[12:]))
		}
		members[i] = Member{ID: lb.RealID(i + 1), Addr: addr, Weight: weight.Draw(t, "weight")}
	}
	return members
}

func TestBuildEqualsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wantReference(t, drawRing(t, primes[:10]), drawMembers(t, 30))
	})
}

func TestBuildIgnoresOrderOfMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring, members := drawRing(t, primes[:8]), drawMembers(t, 30)
		one, err := Build(ring, members)
		if err != nil {
			t.Fatal(err)
		}
		seed := rapid.Uint64().Draw(t, "seed")
		rand.New(rand.NewPCG(seed, seed)).Shuffle(len(members), func(i, j int) {
			members[i], members[j] = members[j], members[i]
		})
		other, err := Build(ring, members)
		if err != nil || !slices.Equal(one, other) {
			t.Fatalf("the rings differ, error %v", err)
		}
	})
}

// A member of v2 has its exact share of the slots, give or take a round.
func TestSharesAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring, members := lb.Ring{Size: rapid.SampledFrom(primes[4:10]).Draw(t, "size")}, drawMembers(t, 30)
		slots, err := Build(ring, members)
		if err != nil {
			t.Fatal(err)
		}
		var sum, greatest float64
		var takers int
		for _, m := range members {
			sum, greatest = sum+float64(m.Weight), max(greatest, float64(m.Weight))
			if m.Weight > 0 {
				takers++
			}
		}
		n := share(slots)
		if takers == 0 {
			return
		}
		// In a whole number of rounds each has its share less a part of a slot; the last round may
		// be cut short, and the parts are distributed over all.
		for _, m := range members {
			exact := float64(ring.Size) * float64(m.Weight) / sum
			slack := 2 + float64(takers)*float64(m.Weight)/sum
			if got := float64(n[m.ID]); math.Abs(got-exact) > slack {
				t.Fatalf("member %+v has %v slots, exact share %.2f ± %.2f", m, got, exact, slack)
			}
		}
	})
}

// Where a member goes, the others keep nearly all of their slots. Maglev promises no bound: members
// whose ways over the ring resemble one another can change much more. So the sum over many sets is
// judged, and the sets are the same each time.
func TestFewSlotsChange(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	ring := lb.Ring{Size: 4093}
	changed, needed := 0, 0
	for range 200 {
		members := make([]Member, 2+rng.IntN(39))
		for i := range members {
			addr := netip.AddrFrom4([4]byte{10, byte(i), byte(rng.Uint32()), byte(rng.Uint32())})
			members[i] = Member{ID: lb.RealID(i + 1), Addr: addr, Weight: 1}
		}
		before, err := Build(ring, members)
		if err != nil {
			t.Fatal(err)
		}
		gone := rng.IntN(len(members))
		after, err := Build(ring, slices.Delete(members, gone, gone+1))
		if err != nil {
			t.Fatal(err)
		}
		own, got := share(before)[lb.RealID(gone+1)], differing(before, after)
		if got < own {
			t.Errorf("%d slots change, but %d were those of the member that went", got, own)
		}
		changed, needed = changed+got, needed+own
	}
	t.Logf("%d slots change, %d have to", changed, needed)
	if changed > needed*5/4 {
		t.Errorf("%d slots change, more than a quarter above the %d that have to", changed, needed)
	}
}
