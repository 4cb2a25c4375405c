// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
)

var (
	ringV1 = lb.Ring{Size: lb.DefaultRingSize, Hash: lb.MaglevV1}
	ringV2 = lb.Ring{Size: lb.DefaultRingSize, Hash: lb.MaglevV2}
)

func TestBuild(t *testing.T) {
	for _, c := range []struct {
		name        string
		base        string
		first, last string
		share       map[lb.RealID]int
		sum         string
	}{
		{
			"IPv4", "10.0.0.0", "2 1 3 2 1 3 3 1 1 2 1 2 2 1 2 3", "2 3 3 2 3 3 1 1",
			map[lb.RealID]int{1: 21845, 2: 21846, 3: 21846},
			"2790e8c3fe9ecc1f97570386e3fc15608aa00dbcd19b2186bfc78b9105af3959",
		},
		{
			"IPv6", "fc00::", "2 3 2 2 2 3 3 3 1 3 2 2 2 2 3 3", "1 3 3 1 2 3 3 3",
			map[lb.RealID]int{1: 21846, 2: 21845, 3: 21846},
			"cef27906cbfb2496c1eb5b0fa888304ba21b561bc872281721111ea8ab680cc7",
		},
	} {
		for _, ring := range []lb.Ring{ringV1, ringV2} {
			t.Run(c.name+" "+ring.Hash.String(), func(t *testing.T) {
				slots := build(t, ring, numbered(c.base, 1, 1, 1))
				if got := text(slots[:16]); got != c.first {
					t.Errorf("first slots %s, want %s", got, c.first)
				}
				if got := text(slots[len(slots)-8:]); got != c.last {
					t.Errorf("last slots %s, want %s", got, c.last)
				}
				if diff := cmp.Diff(c.share, share(slots)); diff != "" {
					t.Errorf("slots of each real (-want +got):\n%s", diff)
				}
				if got := checksum(slots); got != c.sum {
					t.Errorf("SHA-256 %s, want %s", got, c.sum)
				}
			})
		}
	}
}

// checksum is the SHA-256 of the ids as little-endian 32-bit words.
func checksum(slots []lb.Slot) string {
	var b []byte
	for _, s := range slots {
		b = binary.LittleEndian.AppendUint32(b, uint32(s.Cur()))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestBuildWeights(t *testing.T) {
	const asEqual = "2 1 3 2 1 3 3 1 1 2 1 2 2 1 2 3"
	for _, c := range []struct {
		weights          []uint32
		v1, v2           [3]int
		firstV1, firstV2 string
	}{
		{
			[]uint32{1, 2, 10}, [3]int{21842, 21844, 21851}, [3]int{5041, 10082, 50414},
			asEqual, "2 3 3 2 3 3 3 1 3 3 3 3 3 3 3 3",
		},
		{
			[]uint32{2, 1, 1}, [3]int{21846, 21846, 21845}, [3]int{32769, 16384, 16384},
			asEqual, "2 1 3 2 1 1 3 1 1 2 1 2 2 1 2 3",
		},
		{
			[]uint32{100, 200, 300}, [3]int{21745, 21846, 21946}, [3]int{10922, 21846, 32769},
			asEqual, "2 3 3 2 1 3 3 1 3 2 3 3 2 1 2 3",
		},
		{
			[]uint32{10921, 21846, 32770}, [3]int{10921, 21846, 32770}, [3]int{10921, 21846, 32770},
			"2 3 3 2 3 3 2 1 3 3 3 2 1 3 2 3", "2 3 3 2 1 3 3 1 3 2 3 3 2 1 2 3",
		},
	} {
		t.Run(fmt.Sprint(c.weights), func(t *testing.T) {
			for _, v := range []struct {
				ring  lb.Ring
				share [3]int
				first string
			}{{ringV1, c.v1, c.firstV1}, {ringV2, c.v2, c.firstV2}} {
				slots := build(t, v.ring, numbered("10.0.0.0", c.weights...))
				n := share(slots)
				if got := [3]int{n[1], n[2], n[3]}; got != v.share {
					t.Errorf("%s: slots %v, want %v", v.ring.Hash, got, v.share)
				}
				if got := text(slots[:16]); got != v.first {
					t.Errorf("%s: first slots %s, want %s", v.ring.Hash, got, v.first)
				}
			}
		})
	}
}

func TestBuildSmallRing(t *testing.T) {
	for _, hash := range []lb.RingHash{lb.MaglevV1, lb.MaglevV2} {
		slots := build(t, lb.Ring{Size: 7, Hash: hash}, numbered("10.0.0.0", 1, 1, 1))
		if got, want := text(slots), "2 3 3 1 2 1 2"; got != want {
			t.Errorf("%s: %s, want %s", hash, got, want)
		}
	}
}

// inOrder gives the members the weights in the order in which they take slots.
func inOrder(t *testing.T, members []Member, weights []uint32) []Member {
	t.Helper()
	slices.SortFunc(members, func(a, b Member) int {
		if AddrHash(a.Addr) < AddrHash(b.Addr) {
			return -1
		}
		return 1
	})
	for i, w := range weights {
		members[i].ID, members[i].Weight = lb.RealID(i+1), w
	}
	return members
}

// The shares depend on the order and the weights alone, not on the addresses.
func TestBuildShares(t *testing.T) {
	for _, c := range []struct {
		name    string
		ring    lb.Ring
		weights []uint32
		want    map[int]int // number of members by number of slots
	}{
		{"400 equal, v1", ringV1, equal(400, 1), map[int]int{163: 63, 164: 337}},
		{"400 equal, v2", ringV2, equal(400, 1), map[int]int{163: 63, 164: 337}},
		{"2 1 1, v1", ringV1, []uint32{2, 1, 1}, map[int]int{21847: 1, 21845: 2}},
		{"2 1 1, v2", ringV2, []uint32{2, 1, 1}, map[int]int{32769: 1, 16384: 2}},
		{"weights far above the size, v1", ringV1, equal(400, 327), map[int]int{327: 200, 137: 1, 0: 199}},
		{"weights near the size, v1", ringV1, equal(400, 162), map[int]int{163: 63, 164: 337}},
		{"2 to 1 on 7 slots, v1", lb.Ring{Size: 7, Hash: lb.MaglevV1}, []uint32{2, 1}, map[int]int{4: 1, 3: 1}},
		{"2 to 1 on 7 slots, v2", lb.Ring{Size: 7}, []uint32{2, 1}, map[int]int{5: 1, 2: 1}},
		{"greatest weights, v2", ringV2, equal(3, math.MaxUint32), map[int]int{21846: 2, 21845: 1}},
		{"greatest weights, v1", ringV1, equal(3, math.MaxUint32), map[int]int{65537: 1, 0: 2}},
		{"greatest and least weight, v2", ringV2, []uint32{math.MaxUint32, 1}, map[int]int{65537: 1, 0: 1}},
		{"close to the greatest, v2", ringV2, []uint32{math.MaxUint32, math.MaxUint32 - 1}, map[int]int{32769: 1, 32768: 1}},
		{"more members than slots, v2", lb.Ring{Size: 7}, equal(10, 5), map[int]int{1: 7, 0: 3}},
		{"more members than slots, v1", lb.Ring{Size: 7, Hash: lb.MaglevV1}, equal(10, 1), map[int]int{1: 7, 0: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := inOrder(t, numbered("10.0.0.0", c.weights...), c.weights)
			got, n := map[int]int{}, share(build(t, c.ring, members))
			for _, m := range members {
				got[n[m.ID]]++
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("members by number of slots (-want +got):\n%s", diff)
			}
		})
	}
}

// The figures are those of the fourth member. Its own slots have to change; few others may.
func TestBuildDisruption(t *testing.T) {
	for _, c := range []struct{ members, changed, own int }{{10, 6686, 6554}, {100, 1023, 656}} {
		members := numbered("10.0.0.0", equal(c.members, 1)...)
		before := build(t, ringV2, members)
		after := build(t, ringV2, slices.Delete(slices.Clone(members), 3, 4))
		if got := differing(before, after); got != c.changed {
			t.Errorf("%d members less one: %d slots change, want %d", c.members, got, c.changed)
		}
		if got := share(before)[4]; got != c.own {
			t.Errorf("%d members: the fourth had %d slots, want %d", c.members, got, c.own)
		}
	}
}

func TestBuildWithoutMembers(t *testing.T) {
	for name, members := range map[string][]Member{"none": nil, "weights of 0": numbered("10.0.0.0", 0, 0)} {
		if got := share(build(t, ringV2, members)); got[0] != lb.DefaultRingSize {
			t.Errorf("%s: %v, want no slot taken", name, got)
		}
	}
}

func TestBuildOneMember(t *testing.T) {
	for _, ring := range []lb.Ring{ringV1, ringV2, {Size: 2}} {
		if got := share(build(t, ring, numbered("10.0.0.0", 0, 3))); got[2] != int(ring.Size) {
			t.Errorf("%v: %v, want all slots for 2", ring, got)
		}
	}
}

func TestBuildIgnoresWeightZero(t *testing.T) {
	with := build(t, ringV1, numbered("10.0.0.0", 1, 0, 1))
	members := numbered("10.0.0.0", 1, 0, 1)
	without := build(t, ringV1, []Member{members[0], members[2]})
	if n := differing(with, without); n != 0 {
		t.Errorf("%d slots differ", n)
	}
}

// Hashes of IPv4 addresses collide, so the address decides which member goes first.
func TestBuildWithEqualHashes(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.32.76"), netip.MustParseAddr("10.1.220.176")
	if AddrHash(a) != AddrHash(b) {
		t.Fatal("the hashes differ")
	}
	members := []Member{{ID: 1, Addr: b, Weight: 1}, {ID: 2, Addr: a, Weight: 1}}
	one := build(t, ringV2, members)
	slices.Reverse(members)
	if n := differing(one, build(t, ringV2, members)); n != 0 {
		t.Errorf("%d slots depend on the order of the members", n)
	}
	if got := share(one); got[2] != 32769 || got[1] != 32768 {
		t.Errorf("slots of each real: %v, want the lower address to come first", got)
	}
}

// A member whose sums repeat before it has met every slot must end all the same. Its candidates
// are congruent modulo 65536, so they miss one slot, and the first round of v1 asks it for all.
func TestBuildEndsWhereSumsRepeat(t *testing.T) {
	members := []Member{
		{ID: 1, Addr: netip.MustParseAddr("10.1.32.76"), Weight: lb.DefaultRingSize},
		{ID: 2, Addr: netip.MustParseAddr("10.0.0.1"), Weight: 1},
	}
	if _, ok := reference(ringV1, members, 1<<20); ok {
		t.Fatal("candidate by candidate the ring can be filled, so this tests nothing")
	}
	if got := share(build(t, ringV1, members)); got[1] != lb.DefaultRingSize {
		t.Errorf("slots of each real: %v", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name    string
		size    uint32
		members []Member
		want    string
	}{
		{"size", 10, nil, "build ring: ring size 10 is not a prime: the nearest are 7 and 11"},
		{"no address", 7, []Member{{ID: 1, Weight: 1}}, "build ring: a member has no address"},
		{
			"zone", 7, []Member{{ID: 1, Addr: addr("fe80::1%eth0"), Weight: 1}},
			"build ring: member address fe80::1%eth0 has a zone",
		},
		{
			"id 0", 7, []Member{{Addr: addr("10.0.0.1"), Weight: 1}},
			"build ring: member 10.0.0.1 has id 0: ids are 1 to 16777215",
		},
		{
			"id too great", 7, []Member{{ID: lb.MaxRealID + 1, Addr: addr("10.0.0.1")}},
			"build ring: member 10.0.0.1 has id 16777216: ids are 1 to 16777215",
		},
		{
			"address twice", 7,
			[]Member{{ID: 1, Addr: addr("fc00::1"), Weight: 1}, {ID: 2, Addr: addr("fc00::2")}, {ID: 3, Addr: addr("fc00::1")}},
			"build ring: member address fc00::1 is there twice",
		},
		{
			"address twice, once mapped", 7,
			[]Member{{ID: 1, Addr: addr("10.0.0.1"), Weight: 1}, {ID: 2, Addr: addr("::ffff:10.0.0.1"), Weight: 1}},
			"build ring: member address 10.0.0.1 is there twice",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			slots, err := Build(lb.Ring{Size: c.size}, c.members)
			if err == nil || err.Error() != c.want || slots != nil {
				t.Errorf("%d slots, error %v, want error %q", len(slots), err, c.want)
			}
		})
	}
}

// With few members in a large ring sums pass 2^32 many times.
func TestBuildIsExactInLargeRings(t *testing.T) {
	const seed = 2
	rng := rand.New(rand.NewPCG(seed, seed))
	t.Logf("seed %d", seed)
	for _, size := range []uint32{65537, 131071, 262139} {
		for _, n := range []int{2, 3, 10} {
			for _, hash := range []lb.RingHash{lb.MaglevV1, lb.MaglevV2} {
				weights := make([]uint32, n)
				for i := range weights {
					weights[i] = 1 + rng.Uint32N(100)
				}
				wantReference(t, lb.Ring{Size: size, Hash: hash}, numbered("10.0.0.0", weights...))
			}
		}
	}
}

// A ring of 262139 slots whose walks do not wrap is another one: so the test above sees wraps.
func TestWrapsMatter(t *testing.T) {
	ring, members := lb.Ring{Size: 262139}, numbered("10.0.0.0", 1, 1)
	order, err := rank(members)
	if err != nil {
		t.Fatal(err)
	}
	var walks []walk
	for _, r := range order {
		w := newWalk(r.id, r.hash, ring.Size)
		w.wraps = 0
		walks = append(walks, w)
	}
	straight := make([]lb.Slot, ring.Size)
	fill(straight, walks, takers(ring, order))
	if differing(straight, build(t, ring, members)) == 0 {
		t.Error("no sum passed 2^32")
	}
}
