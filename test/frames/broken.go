// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import "encoding/binary"

// sound is a frame to break: something that is looked at up to its end.
func (g *Generator) sound() []byte {
	switch g.rng.IntN(7) {
	case 0:
		return g.extended()
	case 1:
		return g.echo()
	case 2:
		return g.fragment()
	case 3, 4:
		return g.icmpError()
	}
	return g.hit()
}

// truncated ends anywhere behind the Ethernet header, mostly within the headers.
func (g *Generator) truncated() []byte {
	b := g.sound()
	end := len(b)
	if g.rng.IntN(4) > 0 {
		end = min(end, 120)
	}
	return b[:g.between(HeaderLen, end)]
}

// mutated has one to four bytes or bits changed, mostly in the headers.
func (g *Generator) mutated() []byte {
	b := g.sound()
	end := len(b)
	if g.rng.IntN(4) > 0 {
		end = min(end, pick(g, []int{70, 120})) // the second reaches into what an ICMP error quotes
	}
	for range g.between(1, 4) {
		at := g.rng.IntN(end)
		if g.rng.IntN(2) == 0 {
			b[at] = g.byte()
		} else {
			b[at] ^= 1 << g.rng.IntN(8)
		}
	}
	return b
}

// wrongLength has a field of an IP header that tells a length, or the version beside it, changed:
// by little, to a limit, or to anything.
func (g *Generator) wrongLength() []byte {
	f := g.link()
	vip := g.target()
	packet := g.packet(vip.Addr, g.flow(vip, g.data())).Bytes()
	field := packet[2:4]
	if vip.Addr.Is6() {
		field = packet[4:6]
	}
	switch g.rng.IntN(4) {
	case 0:
		packet[0] = packet[0]&0xf0 | g.byte()&0x0f // the header length of IPv4
	case 1:
		packet[0] = g.byte()
	default:
		is := int(binary.BigEndian.Uint16(field))
		wrong := pick(g, []int{is - g.between(1, 40), is + g.between(1, 8), 0, 0xffff, g.rng.IntN(64), g.rng.IntN(1 << 16)})
		binary.BigEndian.PutUint16(field, uint16(max(wrong, 0)))
	}
	f.Packet = Raw{Data: packet}
	f.EtherType = EtherTypeIPv4
	if vip.Addr.Is6() {
		f.EtherType = EtherTypeIPv6
	}
	if g.rng.IntN(2) == 0 {
		f.Trailer = g.bytes(g.rng.IntN(60))
	}
	return f.Bytes()
}

// noise is random bytes of any length, behind an EtherType that is mostly one that is looked at.
func (g *Generator) noise() []byte {
	b := g.bytes(g.between(HeaderLen, 120))
	if g.rng.IntN(4) == 0 {
		b = b[:HeaderLen]
	}
	if g.rng.IntN(4) > 0 {
		binary.BigEndian.PutUint16(b[12:], pick(g, []uint16{EtherTypeIPv4, EtherTypeIPv6, EtherTypeTag, EtherTypeSTag}))
	}
	return b
}
