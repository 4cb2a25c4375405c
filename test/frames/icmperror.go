// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// icmpError is an error about a packet that a server sent from a target, quoted as briefly as may
// be or as a whole, by a router whose own packet has anything around the message.
func (g *Generator) icmpError() []byte {
	vip := g.target()
	return g.frame(g.around(vip.Addr, g.about(vip)))
}

// about is an error that quotes a packet sent from the VIP.
func (g *Generator) about(vip lb.VIP) ICMP {
	return g.message(vip.Addr.Is6(), Quote(g.sent(vip), g.quotedLen()))
}

// message is an error of any type with the quote.
func (g *Generator) message(v6 bool, quote []byte) ICMP {
	return ICMP{Type: pick(g, ErrorTypes(v6)), Code: g.byte() % 16, Rest: g.rng.Uint32N(1 << 16), Data: quote}
}

// quotedLen is how much of a packet's payload is quoted: mostly the least or a bit more, else all.
func (g *Generator) quotedLen() int {
	switch g.rng.IntN(4) {
	case 0:
		return MaxLen
	case 1:
		return QuotedLen + g.rng.IntN(32)
	}
	return QuotedLen
}

// sent is a packet from the VIP to any client, of IPv4 at times with options or a first fragment.
func (g *Generator) sent(vip lb.VIP) Packet {
	payload := Reversed(g.flow(vip, g.bytes(g.rng.IntN(64))))
	if g.rng.IntN(8) == 0 {
		payload = Reversed(g.flow(vip, g.bytes(g.between(1300, 1500))))
	}
	if vip.Addr.Is6() {
		p := g.ipv6(vip.Addr, payload)
		p.Src, p.Dst = p.Dst, p.Src
		return p
	}
	p := g.ipv4(vip.Addr, payload)
	p.Src, p.Dst = p.Dst, p.Src
	if g.rng.IntN(4) == 0 {
		p.Fragment |= MoreFragments
	}
	if g.rng.IntN(3) == 0 {
		p.Options = g.bytes(g.between(1, 40))
	}
	return p
}

// around is a packet with the message, one in four with options or extension headers. Of the
// messages, one in eight has a wrong checksum.
func (g *Generator) around(dst netip.Addr, m ICMP) Packet {
	var payload Payload = m
	if g.rng.IntN(8) == 0 {
		payload = g.withChecksum(m, dst)
	}
	extended := g.rng.IntN(4) == 0
	if dst.Is6() {
		p := g.ipv6(dst, payload)
		if extended {
			p.Extensions = g.extensions(g.between(1, 3))
		}
		return p
	}
	p := g.ipv4(dst, payload)
	if extended {
		p.Options = g.bytes(g.between(1, 40))
	}
	return p
}

// strayError has one thing that keeps an error from its flow, or a message that is none.
func (g *Generator) strayError() []byte {
	vip := g.target()
	v6 := vip.Addr.Is6()
	m := g.about(vip)
	switch g.rng.IntN(9) {
	case 0:
		m.Type = pick(g, otherTypes(v6))
	case 1:
		m.Data = g.otherVersion(m.Data)
	case 2: // to another address than the server's
		return g.frame(g.around(g.nearby(vip.Addr), m))
	case 3: // about a packet of another server, or one bit of it
		from := vip
		from.Addr = pick(g, []netip.Addr{g.targetOf(v6).Addr, g.nearby(vip.Addr)})
		m.Data = Quote(g.sent(from), g.quotedLen())
	case 4: // of a port or protocol that no VIP may have
		from := vip
		from.Port += uint16(g.rng.IntN(3))
		from.Protocol = lb.TCP + lb.UDP - vip.Protocol
		m.Data = Quote(g.sent(from), g.quotedLen())
	case 5: // about what the client sent
		m.Data = Quote(g.packet(vip.Addr, g.flow(vip, nil)), g.quotedLen())
	case 6: // about another protocol, or an extension header
		at := 9
		if v6 {
			at = 6
		}
		m.Data[at] = pick(g, []uint8{0, 1, 4, 7, 16, 18, 41, 43, 44, 51, 58, 60, 132, g.byte()})
	case 7:
		m.Data = g.quoteInside(vip, m.Data)
	default:
		return g.frame(g.fragmented(g.around(vip.Addr, m)))
	}
	return g.frame(g.around(vip.Addr, m))
}

// otherVersion is a quote whose first byte contradicts the family, or tells another header length.
func (g *Generator) otherVersion(quote []byte) []byte {
	switch g.rng.IntN(3) {
	case 0:
		quote[0] = g.byte()
	case 1:
		quote[0] = quote[0]&0x0f | g.byte()&0xf0
	default:
		quote[0] = quote[0]&0xf0 | g.byte()&0x0f
	}
	return quote
}

// quoteInside is a quote that is a later fragment of IPv4, or has extension headers of IPv6.
func (g *Generator) quoteInside(vip lb.VIP, quote []byte) []byte {
	if !vip.Addr.Is6() {
		offset := uint16(1) << g.rng.IntN(13)
		binary.BigEndian.PutUint16(quote[6:], offset|pick(g, []uint16{0, MoreFragments, DontFragment, 0x8000}))
		return quote
	}
	p, ok := g.sent(vip).(IPv6)
	if !ok {
		return quote
	}
	p.Extensions = g.extensions(g.between(1, 2))
	return Quote(p, g.quotedLen())
}

// fragmented is the packet as a fragment.
func (g *Generator) fragmented(p Packet) Packet {
	offset := uint16(g.rng.IntN(3))
	more := offset == 0 || g.rng.IntN(2) == 0
	switch p := p.(type) {
	case IPv4:
		p.Fragment = offset | flag(more, MoreFragments)
		return p
	case IPv6:
		p.Extensions = append(p.Extensions, FragmentHeader(offset<<3|flag(more, MoreFragments6), g.rng.Uint32()))
		return p
	}
	return p
}

// cutError is an error whose message ends anywhere up to a few bytes behind the least that it has
// to quote, half of them around that least. The IP length says so; in half of the frames a trailer
// goes on with what is cut off.
func (g *Generator) cutError() []byte {
	vip := g.target()
	sent := g.sent(vip)
	least := 8 + len(Quote(sent, QuotedLen))
	end := g.rng.IntN(least + 4)
	if g.rng.IntN(2) == 0 {
		end = g.between(least-4, least+3)
	}
	whole := g.around(vip.Addr, g.message(vip.Addr.Is6(), Quote(sent, QuotedLen+8)))
	f := g.link()
	f.Packet = cut(whole, end)
	if g.rng.IntN(2) == 0 {
		f.Trailer = whole.Bytes()[len(f.Packet.Bytes()):]
	}
	return f.Bytes()
}

// otherTypes are messages beside the errors, among them those whose numbers are errors in the
// other family.
func otherTypes(v6 bool) []uint8 {
	if v6 {
		return []uint8{0, 5, 8, 11, 12, 100, 127, EchoRequest6, EchoReply6, 137}
	}
	return []uint8{EchoReply, 1, 2, 4, Redirect, EchoRequest, 10, 13, 30, EchoRequest6}
}

// cut is the packet without all that lies behind its first n bytes, and the lengths that follow
// from that. The checksums of what it carries are of the whole.
func cut(p Packet, n int) Packet {
	switch p := p.(type) {
	case IPv4:
		protocol, segment := p.Payload.segment(p.Src, p.Dst)
		p.Payload = Raw{Protocol: protocol, Data: slices.Clone(segment[:min(n, len(segment))])}
		return p
	case IPv6:
		protocol, segment := p.Payload.segment(p.Src, p.Dst)
		p.Payload = Raw{Protocol: protocol, Data: slices.Clone(segment[:min(n, len(segment))])}
		return p
	}
	return p
}
