// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// The seeds of the flow hash. Katran derives them from its greatest number of VIPs and its ring
// size when it is compiled; these are its defaults. They do not depend on the size of the ring
// that is looked up.
const (
	SourceSeed uint32 = 512
	FlowSeed   uint32 = SourceSeed * lb.DefaultRingSize
)

// FlowHash is the hash that picks a flow's slot. The family is the packet's: src is an IPv4 address
// for an IPv4 packet and any 16-byte address, IPv4-mapped ones included, for an IPv6 packet. The
// ports are in host order; dport is 0 for a flow that was matched by a VIP of port 0. Destination
// address and protocol take no part.
func FlowHash(src netip.Addr, sport, dport uint16) uint32 {
	var fold uint32
	if src.Is4() {
		b := src.As4()
		fold = binary.LittleEndian.Uint32(b[:])
	} else {
		fold = jhash16(src.As16(), SourceSeed)
	}
	// The ports are hashed as they are in the packet, high byte first, read as one little-endian
	// word.
	ports := uint32(bits.ReverseBytes16(sport)) | uint32(bits.ReverseBytes16(dport))<<16
	return jhash2(fold, ports, FlowSeed)
}

// SlotIndex is the slot of a flow with this hash in a ring of size slots. A ring of
// lb.DefaultRingSize agrees with Katran's; any other does without a division.
func SlotIndex(hash, size uint32) uint32 {
	if size == lb.DefaultRingSize {
		return hash % lb.DefaultRingSize
	}
	return uint32(uint64(hash) * uint64(size) >> 32)
}

const jhashInit = 0xdeadbeef

// jhash2 is Linux's jhash_2words (include/linux/jhash.h).
func jhash2(a, b, seed uint32) uint32 {
	init := jhashInit + 2*4 + seed
	return jhashFinal(a+init, b+init, init)
}

// jhash16 is Linux's jhash of 16 bytes (include/linux/jhash.h).
func jhash16(key [16]byte, seed uint32) uint32 {
	init := jhashInit + uint32(len(key)) + seed
	a := init + binary.LittleEndian.Uint32(key[0:])
	b := init + binary.LittleEndian.Uint32(key[4:])
	c := init + binary.LittleEndian.Uint32(key[8:])
	a, b, c = jhashMix(a, b, c)
	return jhashFinal(a+binary.LittleEndian.Uint32(key[12:]), b, c)
}

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	return a, b, c
}

func jhashFinal(a, b, c uint32) uint32 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
