// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// AddrHash is the 64-bit hash by which members are ordered and from which their walk over the
// ring follows: FNV-1 of the bytes of an IPv4 address, SpookyHash V2 of those of an IPv6 address,
// mixed with Linux's number of the family. An IPv4-mapped address hashes as the IPv4 address. A
// zone is not hashed.
func AddrHash(addr netip.Addr) uint64 {
	const afINET, afINET6 = 2, 10
	addr = addr.Unmap()
	if addr.Is4() {
		return mix(afINET, uint64(fnv(addr.As4())))
	}
	return mix(afINET6, mix(spooky(addr.As16())))
}

// mix combines two words as the 128-to-64 reduction of CityHash does.
func mix(u, l uint64) uint64 {
	const k = 0x9ddfea08eb382d69
	a := (l ^ u) * k
	a ^= a >> 47
	b := (u ^ a) * k
	b ^= b >> 47
	return b * k
}

// fnv is 32-bit FNV-1, except that a byte counts as signed: from 0x80 on it also inverts the
// upper 24 bits.
func fnv(b [4]byte) uint32 {
	h := uint32(2166136261)
	for _, c := range b {
		h = h*16777619 ^ uint32(int8(c))
	}
	return h
}

// spooky is the 128-bit SpookyHash V2 of exactly 16 bytes with both seeds zero: its form for
// short messages, with one block and an empty tail.
func spooky(msg [16]byte) (h1, h2 uint64) {
	const s = 0xdeadbeefdeadbeef
	lane := [4]uint64{2: s + binary.LittleEndian.Uint64(msg[:8]), 3: s + binary.LittleEndian.Uint64(msg[8:])}
	for i, r := range [...]int{50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36} {
		x, y, z := (i+2)%4, (i+3)%4, i%4
		lane[x] = bits.RotateLeft64(lane[x], r) + lane[y]
		lane[z] ^= lane[x]
	}
	lane[3] += uint64(len(msg)) << 56
	lane[2] += s
	lane[3] += s
	for i, r := range [...]int{15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63} {
		x, y := (i+2)%4, (i+3)%4
		lane[y] ^= lane[x]
		lane[x] = bits.RotateLeft64(lane[x], r)
		lane[y] += lane[x]
	}
	return lane[0], lane[1]
}

// murmur is the first half of MurmurHash3 x64-128 over the words a and b, with both halves of the
// state seeded.
func murmur(a, b, seed uint64) uint64 {
	const (
		c1     = 0x87c37b91114253d5
		c2     = 0x4cf5ad432745937f
		length = 16
	)
	h1, h2 := seed, seed
	h1 ^= bits.RotateLeft64(a*c1, 31) * c2
	h1 = (bits.RotateLeft64(h1, 27)+h2)*5 + 0x52dce729
	h2 ^= bits.RotateLeft64(b*c2, 33) * c1
	h2 = (bits.RotateLeft64(h2, 31)+h1)*5 + 0x38495ab5

	h1 ^= length
	h2 ^= length
	h1 += h2
	h2 += h1
	return avalanche(h1) + avalanche(h2)
}

// avalanche is the 64-bit finaliser of MurmurHash3.
func avalanche(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
