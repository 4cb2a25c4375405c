// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package frames builds Ethernet frames for tests: by hand from layers (Frame, IPv4, IPv6, TCP,
// ...), and at random from a seed (Generator), together with tables that the random frames hit
// (Tables, and World with all options) and changes of these (Change). Lengths and checksums are filled in;
// what is to be wrong is made wrong afterwards.
package frames

import (
	"encoding/binary"
	"slices"
)

// EtherTypes of frames and tags.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeTag  = 0x8100
	EtherTypeIPv6 = 0x86dd
	EtherTypeSTag = 0x88a8
)

// HeaderLen is the length of an Ethernet header without tags, and of the shortest frame that
// the kernel's test run of a packet program takes.
const HeaderLen = 14

// Frame is an Ethernet frame without its check sequence.
type Frame struct {
	Dst, Src [6]byte
	// Tags are the VLAN tags, outermost first.
	Tags []Tag
	// EtherType is that of Packet; 0 stands for the one that Packet calls for.
	EtherType uint16
	// Packet is what the frame carries; nil for nothing.
	Packet Packet
	// Trailer follows the packet.
	Trailer []byte
	// MinLen is the length that zeros behind the trailer fill the frame to; Ethernet's is 60.
	MinLen int
}

// Tag is a VLAN tag.
type Tag struct {
	// EtherType is EtherTypeTag or EtherTypeSTag, or wrong on purpose.
	EtherType uint16
	// Control is priority, drop eligibility and VLAN id.
	Control uint16
}

// Packet is what a frame carries: IPv4, IPv6 or Raw.
type Packet interface {
	// Bytes is the packet as it is on the wire.
	Bytes() []byte
	etherType() uint16
}

// Bytes is the frame as it is on the wire.
func (f Frame) Bytes() []byte {
	b := slices.Concat(f.Dst[:], f.Src[:])
	for _, tag := range f.Tags {
		b = binary.BigEndian.AppendUint16(b, tag.EtherType)
		b = binary.BigEndian.AppendUint16(b, tag.Control)
	}
	etherType := f.EtherType
	if etherType == 0 && f.Packet != nil {
		etherType = f.Packet.etherType()
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	if f.Packet != nil {
		b = append(b, f.Packet.Bytes()...)
	}
	b = append(b, f.Trailer...)
	if missing := f.MinLen - len(b); missing > 0 {
		b = append(b, make([]byte, missing)...)
	}
	return b
}

// Raw is bytes taken for a packet or for the payload of one.
type Raw struct {
	// Protocol is the IP protocol number, in a payload.
	Protocol uint8
	Data     []byte
}

// Bytes is the data.
func (r Raw) Bytes() []byte     { return r.Data }
func (r Raw) etherType() uint16 { return 0 }
