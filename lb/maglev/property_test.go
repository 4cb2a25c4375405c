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

// Where members come and go, the others keep nearly all of their slots. Maglev promises no bound;
// twice what has to change, and a few, holds with room to spare for rings of 100 slots a member.
func TestFewSlotsChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring := lb.Ring{Size: 4093}
		members := drawMembers(t, 40)
		for i := range members {
			members[i].Weight = 1
		}
		if len(members) < 2 {
			return
		}
		before, err := Build(ring, members)
		if err != nil {
			t.Fatal(err)
		}
		gone := rapid.IntRange(0, len(members)-1).Draw(t, "gone")
		own := share(before)[members[gone].ID]
		after, err := Build(ring, slices.Delete(slices.Clone(members), gone, gone+1))
		if err != nil {
			t.Fatal(err)
		}
		if got := differing(before, after); got < own || got > 2*own+40 {
			t.Fatalf("%d slots change, %d have to", got, own)
		}
	})
}
