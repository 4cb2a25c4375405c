// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// errTableFull is returned if no seed puts every VIP into a bucket with room.
var errTableFull = errors.New("VIP table is too small")

const (
	vip4PerBucket = 4
	vip6PerBucket = 2
	seedTries     = 200
	minTableBits  = 1
	maxTableBits  = 22
)

// vipKey is a key of either table: for IPv4 all is in lo.
type vipKey struct{ lo, hi, portProto uint64 }

func keyOf(v lb.VIP) vipKey {
	if v.Addr.Is4() {
		return vipKey{lo: vip4Key(v)}
	}
	a := addrWords(v.Addr)
	return vipKey{a[0], a[1], portProto(v)}
}

// mix4 and mix6 are the products of which the program takes the upper bits: vip4_get and vip6_get
// in bpf/target_native.h.
func mix4(k vipKey, seed uint64) uint64 { return k.lo * seed }

func mix6(k vipKey, seed uint64) uint64 {
	x := (k.lo + k.portProto) * seed
	x ^= x>>32 ^ k.hi
	return (x ^ x>>32) * seed
}

// layout says which bucket each key of one family has. The zero value is an empty table.
type layout struct {
	seed    uint64 // as the program reads it, with half and shift in it
	buckets []int  // by key, without the half
}

// seedWord puts the half and the shift into the low bits of random bits; types.h says which.
func seedWord(random uint64, half, tableBits int) uint64 {
	shift := uint64(64 - tableBits)
	return random&^0xff | shift<<2 | uint64(half)<<1 | 1
}

// againBit of a seed says whether a VIP may be found by more than address and port; types.h says more.
const againBit = 1 << 8

func markAgain(seed uint64, again bool) uint64 {
	if again {
		return seed | againBit
	}
	return seed &^ againBit
}

func seedAgain(seed uint64) bool { return seed&againBit != 0 }

func seedHalf(seed uint64) int { return int(seed >> 1 & 1) }

// tableBits estimates the bits of the smallest table for n keys for which some of a few hundred
// seeds will do: one in which about three buckets would overflow on average.
func tableBits(n, perBucket int) int {
	for b := minTableBits; b < maxTableBits; b++ {
		buckets := float64(uint64(1) << b)
		load := float64(n) / buckets
		// The chance of a bucket with one key too many, by Poisson; further terms are small.
		k := float64(perBucket + 1)
		lg, _ := math.Lgamma(k + 1)
		if buckets*math.Exp(k*math.Log(load)-load-lg) <= 3 && load <= float64(perBucket)/2 {
			return b
		}
	}
	return maxTableBits
}

// place looks for a seed with which no bucket overflows, in tables of at most 1<<maxBits buckets.
func place(keys []vipKey, again bool, perBucket, half, maxBits int, mix func(vipKey, uint64) uint64) (layout, error) {
	for b := min(tableBits(len(keys), perBucket), maxBits); b <= maxBits; b++ {
		fill := make([]uint8, 1<<b)
		for range seedTries {
			seed := markAgain(seedWord(rand.Uint64(), half, b), again)
			if fits(keys, perBucket, seed, b, mix, fill) {
				return layout{seed, bucketsOf(keys, seed, b, mix)}, nil
			}
			clear(fill)
		}
	}
	return layout{}, errTableFull
}

func fits(keys []vipKey, perBucket int, seed uint64, tableBits int, mix func(vipKey, uint64) uint64, fill []uint8) bool {
	for _, k := range keys {
		i := mix(k, seed) >> (64 - tableBits)
		fill[i]++
		if int(fill[i]) > perBucket {
			return false
		}
	}
	return true
}

func bucketsOf(keys []vipKey, seed uint64, tableBits int, mix func(vipKey, uint64) uint64) []int {
	buckets := make([]int, len(keys))
	for i, k := range keys {
		buckets[i] = int(mix(k, seed) >> (64 - tableBits))
	}
	return buckets
}

// bitsOfTable is the number of bits of a bucket's index in one half of a map of n buckets.
func bitsOfTable(n int) int { return bits.Len(uint(n/2)) - 1 }

// writeTable4 writes keys and values into the half that the layout names; packets use the other.
func writeTable4(table []nativeVip4Bucket, l layout, keys []vipKey, values []uint64) {
	half := seedHalf(l.seed)
	for i := half; i < len(table); i += 2 {
		table[i] = nativeVip4Bucket{}
	}
	used := make(map[int]int)
	for i, k := range keys {
		b := l.buckets[i]
		entry := used[b]
		used[b]++
		bucket := &table[2*b+half]
		bucket.Key[entry], bucket.Value[entry] = k.lo, values[i]
	}
}

func writeTable6(table []nativeVip6Bucket, l layout, keys []vipKey, values []uint64) {
	half := seedHalf(l.seed)
	for i := half; i < len(table); i += 2 {
		table[i] = nativeVip6Bucket{}
	}
	used := make(map[int]int)
	for i, k := range keys {
		b := l.buckets[i]
		n := used[b]
		used[b]++
		entry := &table[2*b+half].Entry[n]
		entry.Addr, entry.PortProto, entry.Value = [2]uint64{k.lo, k.hi}, k.portProto, values[i]
	}
}

// table4Equals tells whether the half in use finds exactly these keys with these values.
func table4Equals(table []nativeVip4Bucket, seed uint64, keys []vipKey, values []uint64) bool {
	entries := 0
	for i := seedHalf(seed); i < len(table); i += 2 {
		for _, k := range table[i].Key {
			if k != 0 {
				entries++
			}
		}
	}
	if entries != len(keys) {
		return false
	}
	for i, k := range keys {
		b := bucketOf(mix4(k, seed), seed, len(table))
		at := slices.Index(table[b].Key[:], k.lo)
		if at < 0 || table[b].Value[at] != values[i] {
			return false
		}
	}
	return true
}

// table6Equals is table4Equals for IPv6.
func table6Equals(table []nativeVip6Bucket, seed uint64, keys []vipKey, values []uint64) bool {
	entries := 0
	for i := seedHalf(seed); i < len(table); i += 2 {
		for _, e := range table[i].Entry {
			if e.PortProto != 0 {
				entries++
			}
		}
	}
	if entries != len(keys) {
		return false
	}
	for i, k := range keys {
		found := false
		for _, e := range table[bucketOf(mix6(k, seed), seed, len(table))].Entry {
			if e.Addr == [2]uint64{k.lo, k.hi} && e.PortProto == k.portProto {
				found = e.Value == values[i]
			}
		}
		if !found {
			return false
		}
	}
	return true
}

// bucketOf is bucket_index of bpf/target_native.h, kept within the table.
func bucketOf(mixed, seed uint64, buckets int) int {
	b := mixed>>(seed>>2&63)*2 + uint64(seedHalf(seed))
	return int(b % uint64(buckets))
}
