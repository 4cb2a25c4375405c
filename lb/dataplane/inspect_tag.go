// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"math/bits"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// FlowName names a flow as the flow table does: docs/packet-path.md section 5. That of a packet is seen
// from the client's side.
type FlowName struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         lb.Protocol
	// HostBits is that of the flow's VIP; ByPort0 tells that the VIP was found by port 0, and not by
	// DstPort.
	HostBits uint8
	ByPort0  bool
}

// Parts of flow_tag in bpf/flow.h.
const (
	flowTagSeed      = 0x243f6a8885a308d3
	flowTagMix       = 0x9e3779b97f4a7c15
	flowFoundByShift = 40
	flowByPort0      = 1 << 7 // beside the seven bits of HostBits
	addrFoldSeed     = 512    // HASH_SEED_ADDR in bpf/hash.h
)

// Tag is what the program calls the flow: flow_tag in bpf/flow.h.
func (n FlowName) Tag() uint64 {
	src, fold := sourceWords(n.Src)
	dst := addrWords(n.Dst)
	ports := uint64(portWord(n.SrcPort)) | uint64(portWord(n.DstPort))<<16
	foundBy := uint64(n.HostBits)
	if n.ByPort0 {
		foundBy |= flowByPort0
	}
	hash := mixTag(flowTagSeed, uint64(src)|uint64(fold)<<32)
	hash = mixTag(hash, dst[0])
	hash = mixTag(hash, dst[1])
	hash = mixTag(hash, ports|uint64(n.Protocol)<<32|foundBy<<flowFoundByShift)
	return max(mixTag(hash, 0)>>flowTagShift, 1)
}

// mixTag is flow_mix in bpf/flow.h.
func mixTag(hash, word uint64) uint64 {
	hash = (hash ^ word) * flowTagMix
	return hash ^ hash>>32
}

// sourceWords are the two words of a packet that say where it comes from: src and fold of struct packet.
func sourceWords(a netip.Addr) (src, fold uint32) {
	if a.Is4() {
		b := a.As4()
		src = packetOrder.Uint32(b[:])
		return src, src
	}
	b := a.As16()
	return packetOrder.Uint32(b[12:]), foldAddr(b)
}

// foldAddr is addr6_hash in bpf/hash.h.
func foldAddr(key [16]byte) uint32 {
	const init = 0xdeadbeef + 16 + addrFoldSeed
	rol := bits.RotateLeft32
	a := init + packetOrder.Uint32(key[0:])
	b := init + packetOrder.Uint32(key[4:])
	c := init + packetOrder.Uint32(key[8:])
	a = (a - c) ^ rol(c, 4)
	c += b
	b = (b - a) ^ rol(a, 6)
	a += c
	c = (c - b) ^ rol(b, 8)
	b += a
	a = (a - c) ^ rol(c, 16)
	c += b
	b = (b - a) ^ rol(a, 19)
	a += c
	c = (c - b) ^ rol(b, 4)
	b += a
	a += packetOrder.Uint32(key[12:])
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	return (c ^ b) - rol(b, 24)
}
