// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Bits of IPv4.Fragment and of FragmentHeader's field; offsets are in units of 8 bytes.
const (
	MoreFragments  = 0x2000
	DontFragment   = 0x4000
	MoreFragments6 = 0x0001
)

// IPv4 is an IPv4 packet. Header length, total length and checksum follow from the rest.
type IPv4 struct {
	TOS, TTL uint8
	ID       uint16
	// Fragment is the whole field: reserved bit, DontFragment, MoreFragments and offset.
	Fragment uint16
	Src, Dst netip.Addr
	// Options are filled with zeros to a multiple of 4 bytes; at most 40 bytes.
	Options []byte
	Payload Payload
}

// Payload is what an IP packet carries: TCP, UDP, ICMP, Raw or another IP packet.
type Payload interface {
	// segment is the protocol number and the bytes, with checksums for these addresses.
	segment(src, dst netip.Addr) (protocol uint8, b []byte)
}

// Bytes is the packet as it is on the wire.
func (p IPv4) Bytes() []byte {
	options := slices.Concat(p.Options, make([]byte, -len(p.Options)&3))
	protocol, segment := p.Payload.segment(p.Src, p.Dst)
	headerLen := 20 + len(options)

	b := []byte{4<<4 | byte(headerLen/4), p.TOS}
	b = binary.BigEndian.AppendUint16(b, uint16(headerLen+len(segment)))
	b = binary.BigEndian.AppendUint16(b, p.ID)
	b = binary.BigEndian.AppendUint16(b, p.Fragment)
	b = append(b, p.TTL, protocol, 0, 0)
	b = slices.Concat(b, p.Src.AsSlice(), p.Dst.AsSlice(), options)
	binary.BigEndian.PutUint16(b[10:], Checksum(b))
	return append(b, segment...)
}

func (p IPv4) etherType() uint16 { return EtherTypeIPv4 }

func (p IPv4) segment(_, _ netip.Addr) (uint8, []byte) { return 4, p.Bytes() }

// IPv6 is an IPv6 packet. The payload length follows from the rest.
type IPv6 struct {
	TrafficClass uint8
	FlowLabel    uint32 // 20 bits
	HopLimit     uint8
	Src, Dst     netip.Addr
	Extensions   []Extension
	Payload      Payload
}

// Bytes is the packet as it is on the wire.
func (p IPv6) Bytes() []byte {
	protocol, behind := p.Payload.segment(p.Src, p.Dst)
	for _, e := range slices.Backward(p.Extensions) {
		behind = slices.Concat([]byte{protocol}, e.Body, behind)
		protocol = e.Protocol
	}
	b := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(p.TrafficClass)<<20|p.FlowLabel&0xfffff)
	b = binary.BigEndian.AppendUint16(b, uint16(len(behind)))
	b = append(b, protocol, p.HopLimit)
	return slices.Concat(b, p.Src.AsSlice(), p.Dst.AsSlice(), behind)
}

func (p IPv6) etherType() uint16 { return EtherTypeIPv6 }

func (p IPv6) segment(_, _ netip.Addr) (uint8, []byte) { return 41, p.Bytes() }

// Extension is an IPv6 extension header.
type Extension struct {
	// Protocol is the number by which the header in front names this one.
	Protocol uint8
	// Body is the header without its first byte, which names what follows.
	Body []byte
}

// HopByHop is hop-by-hop options, all padding, of (n+1)*8 bytes.
func HopByHop(n uint8) Extension { return padding(0, n) }

// DestinationOptions is destination options, all padding, of (n+1)*8 bytes.
func DestinationOptions(n uint8) Extension { return padding(60, n) }

// Routing is a routing header of an experimental type with (n+1)*8 bytes.
func Routing(n, segmentsLeft uint8) Extension {
	e := padding(43, n)
	e.Body[1], e.Body[2] = 253, segmentsLeft
	return e
}

// Authentication is an authentication header of (n+2)*4 bytes, all zero.
func Authentication(n uint8) Extension {
	return Extension{Protocol: 51, Body: append([]byte{n}, make([]byte, (int(n)+2)*4-2)...)}
}

// FragmentHeader is a fragment header; field is offset<<3, reserved bits and MoreFragments6.
func FragmentHeader(field uint16, id uint32) Extension {
	b := binary.BigEndian.AppendUint16([]byte{0}, field)
	return Extension{Protocol: 44, Body: binary.BigEndian.AppendUint32(b, id)}
}

func padding(protocol, n uint8) Extension {
	return Extension{Protocol: protocol, Body: append([]byte{n}, make([]byte, (int(n)+1)*8-2)...)}
}
