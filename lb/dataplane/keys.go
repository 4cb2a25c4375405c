// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// Everything that has a byte order of its own is converted here and nowhere else. Words of packets
// are read as the program reads them, little-endian.
var packetOrder = binary.LittleEndian

// The kinds of encapsulation, enum encap in bpf/types.h.
const (
	encapNone uint16 = iota
	encapIPIP4
	encapIPIP6
	encapGUE4
	encapGUE6
	encapGUE4Sum
	encapGUE6Sum
	encapLocal
)

// addrWords is an address as the two words that the program reads it as; IPv4 in the low half of
// the first.
func addrWords(a netip.Addr) [2]uint64 {
	if a.Is4() {
		b := a.As4()
		return [2]uint64{uint64(packetOrder.Uint32(b[:]))}
	}
	b := a.As16()
	return [2]uint64{packetOrder.Uint64(b[:]), packetOrder.Uint64(b[8:])}
}

// ip4Rest is what struct vip_addr has in the first word behind an IPv4 address; its second word has all
// bits set.
const ip4Rest = 0xffffffff << 32

// addrKey is an address as tables have it that it is looked up in as it is.
func addrKey(a netip.Addr) [2]uint64 {
	words := addrWords(a)
	if a.Is4() {
		return [2]uint64{words[0] | ip4Rest, math.MaxUint64}
	}
	return words
}

// keyAddr is addrKey the other way round.
func keyAddr(key [2]uint64) netip.Addr {
	var b [16]byte
	packetOrder.PutUint64(b[:], key[0])
	packetOrder.PutUint64(b[8:], key[1])
	if key[0]&ip4Rest == ip4Rest && key[1] == math.MaxUint64 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrFrom16(b)
}

// portWord is a port in network order.
func portWord(port uint16) uint16 { return bits.ReverseBytes16(port) }

// portProto is the port, in network order, and the protocol of a VIP's key.
func portProto(v lb.VIP) uint64 {
	return uint64(portWord(v.Port)) | uint64(v.Protocol)<<16
}

// vipPrefix is the key of a VIP of a prefix.
func vipPrefix(v lb.VIP) nativeVipPrefix {
	p := nativeVipPrefix{
		Bits:     32 + uint32(v.Prefix().Bits()),
		Port:     portWord(v.Port),
		Protocol: uint8(v.Protocol),
		Family:   4,
		Addr:     addrWords(v.Addr),
	}
	if v.Addr.Is6() {
		p.Family = 6
	}
	return p
}

func vip4Key(v lb.VIP) uint64 { return addrWords(v.Addr)[0] | portProto(v)<<32 }

// A VIP's flags, VIP_* in bpf/types.h.
const (
	vipFlowsAlways   = 1
	vipQUIC          = 2
	vipOptions       = 4
	vipFragmentsPass = 8
	vipHostBitsShift = 4
	vipByPort0       = 0x800
	vipFlagsShift    = 52
)

// vipValue is what the program needs to know of a VIP, whose slots are there: bpf/types.h.
func vipValue(slots span, v lb.VIPEntry) uint64 {
	return uint64(slots.first) | uint64(slots.size)<<32 | vipFlags(v)<<vipFlagsShift
}

func vipFlags(v lb.VIPEntry) uint64 {
	flags := uint64(v.VIP.HostBits) << vipHostBitsShift
	switch v.Flows {
	case lb.FlowAlways:
		flags |= vipFlowsAlways
	case lb.FlowQUIC:
		flags |= vipQUIC
	}
	if hasOptions(v.Options) {
		flags |= vipOptions
	}
	return flags
}

// realRecord prepares the outer headers of packets to a real.
func realRecord(r lb.Real) nativeReal {
	t := r.Tunnel
	if t.Encap == lb.Local {
		return nativeReal{Kind: encapLocal, Use: uint8(r.Use), Generation: r.Generation}
	}
	rec := nativeReal{
		Mac:      macWord(r.NextHop.MAC),
		Dst:      addrWords(t.Destination),
		Src:      addrWords(t.Source.Addr()),
		Kind:     encapKind(t),
		GuePort:  portWord(t.Port),
		MaxBytes: maxInnerBytes(r),

		Use:        uint8(r.Use),
		Generation: r.Generation,
	}
	proto := innerProtocol(r)
	if t.Destination.Is4() {
		// Bytes 16..23 of the frame: total length, id, flags, TTL, protocol.
		rec.Fixed = packetOrder.Uint64([]byte{0, 0, 0, 0, 0, 0, outerTTL, proto})
		rec.Sum = foldedSum(0x45, packetOrder.Uint16([]byte{outerTTL, proto}),
			uint16(rec.Src[0]), uint16(rec.Dst[0]), uint16(rec.Dst[0]>>16))
		return rec
	}
	// Bytes 16..23 of the frame: flow label, payload length, next header, hop limit, and the first
	// two bytes of the source, which the program writes again.
	rec.Fixed = packetOrder.Uint64([]byte{0, 0, 0, 0, proto, outerTTL, 0, 0})
	return rec
}

const (
	outerTTL  = 64
	protoIPv4 = 4
	protoIPv6 = 41
	protoUDP  = 17
)

func innerProtocol(r lb.Real) byte {
	switch {
	case r.Tunnel.Encap == lb.GUE:
		return protoUDP
	case r.VIP.Addr.Is6():
		return protoIPv6
	}
	return protoIPv4
}

func encapKind(t lb.Tunnel) uint16 {
	kind := encapIPIP4
	switch {
	case t.Encap == lb.GUE && t.Checksum:
		kind = encapGUE4Sum
	case t.Encap == lb.GUE:
		kind = encapGUE4
	}
	if t.Destination.Is6() {
		kind++
	}
	return kind
}

// maxInnerBytes is the longest inner packet that the way to the real takes; 0 if none is.
func maxInnerBytes(r lb.Real) uint16 {
	if !r.NextHop.Resolved() {
		return 0
	}
	return uint16(min(max(r.NextHop.MTU-r.Tunnel.OuterLen(), 0), 65535))
}

func macWord(mac [6]byte) uint64 {
	var b [8]byte
	copy(b[:], mac[:])
	return packetOrder.Uint64(b[:])
}

func wordMAC(w uint64) (mac [6]byte) {
	var b [8]byte
	packetOrder.PutUint64(b[:], w)
	copy(mac[:], b[:])
	return mac
}

// foldedSum is the one's-complement sum of 16-bit words (RFC 1071), not complemented.
func foldedSum(words ...uint16) uint16 {
	var sum uint32
	for _, w := range words {
		sum += uint32(w)
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
