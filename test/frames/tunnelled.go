// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// tunnelled is a packet in a packet, by IPIP or GUE, to an address whose packets are decapsulated or to
// any other.
func (g *Generator) tunnelled() []byte {
	dst := g.tunnelEnd()
	inner := g.inner()
	var payload Payload = Raw{Protocol: pick(g, []uint8{4, 41}), Data: inner}
	if len(inner) > 0 && g.rng.IntN(16) > 0 {
		payload = Raw{Protocol: map[byte]uint8{4: 4, 6: 41}[inner[0]>>4], Data: inner}
	}
	if g.rng.IntN(2) == 0 {
		port := g.world.Decap.GUEPort
		if g.rng.IntN(16) == 0 {
			port += uint16(g.rng.IntN(2))
		}
		payload = UDP{SrcPort: g.port(), DstPort: port, NoChecksum: g.rng.IntN(2) == 0, Data: inner}
	}
	p := g.packet(dst, payload)
	if g.rng.IntN(32) == 0 {
		return g.frame(g.fragmented(p))
	}
	if g.rng.IntN(6) == 0 {
		switch outer := p.(type) {
		case IPv4:
			outer.Options = g.bytes(g.between(1, 40))
			p = outer
		case IPv6:
			outer.Extensions = g.extensions(g.between(1, 3))
			p = outer
		}
	}
	return g.frame(p)
}

// tunnelEnd is where a tunnel ends, mostly.
func (g *Generator) tunnelEnd() netip.Addr {
	ends := slices.SortedFunc(maps.Keys(g.world.Decap.Destinations), netip.Addr.Compare)
	switch g.rng.IntN(8) {
	case 0:
		return g.target().Addr
	case 1:
		return g.anyAddr(g.rng.IntN(2) == 0)
	}
	if len(ends) == 0 {
		return g.target().Addr
	}
	return pick(g, ends)
}

// inner is a packet that was tunnelled: any that a frame has, or a part of one. One in eight is used up
// on its way.
func (g *Generator) inner() []byte {
	var frame []byte
	switch g.rng.IntN(8) {
	case 0:
		frame = g.sound()
	case 1:
		frame = g.icmpError()
	case 2:
		frame = g.named()
	case 3:
		return g.otherInner()
	default:
		frame = g.hit()
	}
	at := HeaderLen
	for at <= len(frame) && (binary.BigEndian.Uint16(frame[at-2:]) == EtherTypeTag || binary.BigEndian.Uint16(frame[at-2:]) == EtherTypeSTag) {
		at += 4
	}
	inner := frame[at:]
	ttlAt := 8
	if inner[0]>>4 == 6 {
		ttlAt = 7
	}
	switch g.rng.IntN(8) {
	case 0:
		g.setTTL(inner, ttlAt, byte(g.rng.IntN(3)))
	case 1:
		g.setTTL(inner, ttlAt, byte(g.between(2, 3)))
	case 2: // a wrong checksum, mostly where its adjustment meets a carry
		if inner[0]>>4 == 4 {
			binary.BigEndian.PutUint16(inner[10:], pick(g, []uint16{0, 1, 0xfeff, 0xfefe, 0xff00, 0xffff, uint16(g.rng.IntN(1 << 16))}))
		}
	}
	return inner[:min(len(inner), MaxLen-200)]
}

// otherInner is what is no whole packet, or of another version than it should be.
func (g *Generator) otherInner() []byte {
	vip := g.target()
	inner := g.packet(vip.Addr, g.flow(vip, g.bytes(g.rng.IntN(8)))).Bytes()
	switch g.rng.IntN(4) {
	case 0:
		return inner[:g.rng.IntN(len(inner))]
	case 1:
		return inner[:g.rng.IntN(41)]
	case 2:
		inner[0] = g.byte()
		return inner
	}
	inner[0] ^= 0x20 // the other family
	return inner
}

// setTTL changes the TTL or hop limit, and the checksum with it.
func (g *Generator) setTTL(packet []byte, at int, ttl byte) {
	packet[at] = ttl
	if headerLen := int(packet[0]&0x0f) * 4; packet[0]>>4 == 4 && headerLen <= len(packet) && headerLen >= 20 {
		binary.BigEndian.PutUint16(packet[10:], 0)
		binary.BigEndian.PutUint16(packet[10:], Checksum(packet[:headerLen]))
	}
}

// partOfClient is a fragment, or a whole packet, to a VIP whose fragments do not drop.
func (g *Generator) partOfClient() []byte {
	for range 20 {
		vip := g.vip()
		if g.world.VIPs[vip].Options.Fragments == lb.FragmentsDrop {
			continue
		}
		to := g.somewhere(vip)
		p := g.packet(to.Addr, g.flow(to, g.data()))
		if g.rng.IntN(4) == 0 {
			return g.frame(p)
		}
		if six, ok := p.(IPv6); ok && g.rng.IntN(4) == 0 {
			six.Extensions = g.extensions(1)
			p = six
		}
		p = g.fragmented(p)
		if g.rng.IntN(8) == 0 {
			p = cut(p, g.rng.IntN(24))
		}
		return g.frame(p)
	}
	return g.fragment()
}
