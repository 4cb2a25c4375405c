// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Flags of a TCP header.
const (
	FIN = 0x01
	SYN = 0x02
	RST = 0x04
	PSH = 0x08
	ACK = 0x10
)

// Types of ICMP and ICMPv6 messages.
const (
	EchoReply         = 0
	Unreachable       = 3
	Redirect          = 5
	EchoRequest       = 8
	TimeExceeded      = 11
	ParameterProblem  = 12
	Unreachable6      = 1
	TooBig6           = 2
	TimeExceeded6     = 3
	ParameterProblem6 = 4
	EchoRequest6      = 128
	EchoReply6        = 129
	NeighborSolicit   = 135
)

// TCP is a TCP segment.
type TCP struct {
	SrcPort, DstPort uint16
	Seq, Ack         uint32
	Flags            uint8
	Window           uint16
	// Options are filled with zeros to a multiple of 4 bytes; at most 40 bytes.
	Options []byte
	Data    []byte
}

func (t TCP) segment(src, dst netip.Addr) (uint8, []byte) {
	options := slices.Concat(t.Options, make([]byte, -len(t.Options)&3))
	b := binary.BigEndian.AppendUint16(nil, t.SrcPort)
	b = binary.BigEndian.AppendUint16(b, t.DstPort)
	b = binary.BigEndian.AppendUint32(b, t.Seq)
	b = binary.BigEndian.AppendUint32(b, t.Ack)
	b = append(b, byte(20+len(options))/4<<4, t.Flags)
	b = binary.BigEndian.AppendUint16(b, t.Window)
	b = append(b, 0, 0, 0, 0)
	b = slices.Concat(b, options, t.Data)
	binary.BigEndian.PutUint16(b[16:], TransportChecksum(src, dst, 6, b))
	return 6, b
}

// UDP is a UDP datagram.
type UDP struct {
	SrcPort, DstPort uint16
	// NoChecksum leaves the checksum 0.
	NoChecksum bool
	Data       []byte
}

func (u UDP) segment(src, dst netip.Addr) (uint8, []byte) {
	b := binary.BigEndian.AppendUint16(nil, u.SrcPort)
	b = binary.BigEndian.AppendUint16(b, u.DstPort)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(u.Data)))
	b = append(b, 0, 0)
	b = append(b, u.Data...)
	if !u.NoChecksum {
		sum := TransportChecksum(src, dst, 17, b)
		if sum == 0 {
			sum = 0xffff // RFC 768: 0 would say that there is none
		}
		binary.BigEndian.PutUint16(b[6:], sum)
	}
	return 17, b
}

// ICMP is a message of ICMP or, between IPv6 addresses, of ICMPv6.
type ICMP struct {
	Type, Code uint8
	// Rest is the second word: of an echo, identifier and sequence number.
	Rest uint32
	Data []byte
}

func (m ICMP) segment(src, dst netip.Addr) (uint8, []byte) {
	b := []byte{m.Type, m.Code, 0, 0}
	b = binary.BigEndian.AppendUint32(b, m.Rest)
	b = append(b, m.Data...)
	if src.Is4() {
		binary.BigEndian.PutUint16(b[2:], Checksum(b))
		return 1, b
	}
	binary.BigEndian.PutUint16(b[2:], TransportChecksum(src, dst, 58, b))
	return 58, b
}

func (r Raw) segment(_, _ netip.Addr) (uint8, []byte) { return r.Protocol, r.Data }

// Checksum is the Internet checksum of the parts one behind the other (RFC 1071). Over data that
// holds its own right checksum it is 0.
func Checksum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint64
	for i := 0; i < len(b); i += 2 {
		sum += uint64(b[i])<<8 | uint64(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// TransportChecksum is the checksum of a segment with its pseudo header, of the addresses' family
// (RFC 9293 section 3.1, RFC 8200 section 8.1).
func TransportChecksum(src, dst netip.Addr, protocol uint8, segment []byte) uint16 {
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice())
	if src.Is4() {
		pseudo = append(pseudo, 0, protocol)
		pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	} else {
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(segment)))
		pseudo = append(pseudo, 0, 0, 0, protocol)
	}
	return Checksum(pseudo, segment)
}
