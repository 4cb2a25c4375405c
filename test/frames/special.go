// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"net/netip"
)

// extended is a hit with IPv4 options of any length or a chain of any IPv6 extension headers,
// often more than are read.
func (g *Generator) extended() []byte {
	vip := g.target()
	payload := g.flow(vip, g.data())
	if vip.Addr.Is6() {
		p := g.ipv6(vip.Addr, payload)
		p.Extensions = g.extensions(g.between(1, 8))
		return g.frame(p)
	}
	p := g.ipv4(vip.Addr, payload)
	p.Options = g.bytes(g.between(1, 40))
	return g.frame(p)
}

func (g *Generator) extensions(n int) []Extension {
	var chain []Extension
	for range n {
		chain = append(chain, g.extension())
	}
	return chain
}

func (g *Generator) extension() Extension {
	units := uint8(g.rng.IntN(3))
	if g.rng.IntN(16) == 0 {
		units = uint8(g.rng.IntN(40))
	}
	switch g.rng.IntN(9) {
	case 0, 1:
		return HopByHop(units)
	case 2, 3:
		return DestinationOptions(units)
	case 4, 5:
		return Authentication(units)
	case 6:
		return FragmentHeader(uint16(g.rng.IntN(4))<<1, g.rng.Uint32()) // whole; reserved bits as they come
	case 7:
		return Routing(units, 0)
	default:
		return Routing(units, uint8(g.rng.IntN(3)))
	}
}

// fragment is a first, middle or last fragment of a hit, or of a packet to another address.
func (g *Generator) fragment() []byte {
	vip := g.target()
	if g.rng.IntN(4) == 0 {
		vip.Addr = g.nearby(vip.Addr)
	}
	more, offset := g.rng.IntN(2) == 0, 0
	if !more || g.rng.IntN(2) == 0 {
		offset = g.between(1, 1<<13-1)
	}
	payload := g.flow(vip, g.data())
	if vip.Addr.Is6() {
		p := g.ipv6(vip.Addr, payload)
		header := FragmentHeader(uint16(offset<<3)|flag(more, MoreFragments6), g.rng.Uint32())
		p.Extensions = append(g.extensions(g.rng.IntN(3)), header)
		return g.frame(p)
	}
	p := g.ipv4(vip.Addr, payload)
	p.Fragment = uint16(offset) | flag(more, MoreFragments)
	return g.frame(p)
}

// echo is an echo request to a target's address, half of them with something that is unusual.
func (g *Generator) echo() []byte {
	addr := g.target().Addr
	echo := ICMP{Type: EchoRequest, Rest: g.rng.Uint32(), Data: g.data()}
	if addr.Is6() {
		echo.Type = EchoRequest6
	}
	var message Payload = echo
	switch g.rng.IntN(10) {
	case 0:
		addr = g.nearby(addr)
	case 1:
		echo.Code = g.byte()
		message = echo
	case 2:
		message = g.withChecksum(echo, addr)
	case 3: // nothing but zeros besides type and checksum
		message = ICMP{Type: echo.Type, Data: make([]byte, g.rng.IntN(64))}
	case 4:
		if addr.Is6() {
			p := g.ipv6(addr, message)
			p.Extensions = g.extensions(1)
			return g.frame(p)
		}
		p := g.ipv4(addr, message)
		p.Options = g.bytes(4)
		return g.frame(p)
	}
	return g.frame(g.packet(addr, message))
}

// withChecksum is the message with a wrong checksum, mostly one where an adjustment of the type
// meets a carry.
func (g *Generator) withChecksum(m ICMP, dst netip.Addr) Raw {
	protocol, b := m.segment(dst, dst)
	sum := pick(g, []uint16{0, 1, 0x00ff, 0xf7fe, 0xf7ff, 0xf800, 0xfeff, 0xff00, 0xfffe, 0xffff, uint16(g.rng.IntN(1 << 16))})
	binary.BigEndian.PutUint16(b[2:], sum)
	return Raw{Protocol: protocol, Data: b}
}

// icmp is any ICMP but an echo request: errors about packets to a VIP, and messages of any type.
func (g *Generator) icmp() []byte {
	vip := g.target()
	m := ICMP{Type: g.byte(), Code: g.byte(), Rest: g.rng.Uint32(), Data: g.data()}
	if g.rng.IntN(2) == 0 {
		m.Type = pick(g, []uint8{EchoReply, Unreachable, TimeExceeded})
		if vip.Addr.Is6() {
			m.Type = pick(g, []uint8{EchoReply6, Unreachable6, TooBig6, NeighborSolicit})
		}
		quoted := g.packet(g.source(vip.Addr.Is6()), g.flow(vip, nil)).Bytes()
		m.Data = quoted[:g.rng.IntN(len(quoted)+1)]
	}
	return g.frame(g.packet(vip.Addr, m))
}

func flag(set bool, bit uint16) uint16 {
	if set {
		return bit
	}
	return 0
}
