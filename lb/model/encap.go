// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// encapsulate is section 7: the outer headers take the place in front of the IP packet.
func (t *Tables) encapsulate(p *packet) lb.Reason {
	tunnel := p.real.Tunnel
	outer := outerIP(p, outerSource(p, tunnel))
	if tunnel.Encap == lb.GUE {
		outer = append(outer, outerUDP(p)...)
	}
	behind := p.frame[len(p.ethernet):] // the IP packet and the trailer
	p.frame = slices.Concat(outerEthernet(p), outer, behind)
	t.note("encapsulate", "%d bytes of outer headers", len(outer))
	return lb.ReasonForwarded
}

// outerEthernet keeps the VLAN tags, and with them the place of the last EtherType.
func outerEthernet(p *packet) []byte {
	b := slices.Clone(p.ethernet)
	copy(b[0:6], p.real.NextHop.MAC[:])
	copy(b[6:12], p.ethernet[0:6])
	etherType := uint16(etherTypeIPv4)
	if p.real.Tunnel.Destination.Is6() {
		etherType = etherTypeIPv6
	}
	binary.BigEndian.PutUint16(b[len(b)-2:], etherType)
	return b
}

// outerIP is the outer IP header.
func outerIP(p *packet, src netip.Addr) []byte {
	tunnel := p.real.Tunnel
	totalLen := len(p.ip) + tunnel.OuterLen()
	protocol := byte(protocolIPv4)
	if p.isIPv6() {
		protocol = protocolIPv6
	}
	if tunnel.Encap == lb.GUE {
		protocol = protocolUDP
	}
	if tunnel.Destination.Is6() {
		class := p.trafficClass()
		b := []byte{6<<4 | class>>4, class << 4, 0, 0}
		b = binary.BigEndian.AppendUint16(b, uint16(totalLen-ipv6Len))
		b = append(b, protocol, defaultTTL)
		return slices.Concat(b, src.AsSlice(), tunnel.Destination.AsSlice())
	}
	b := []byte{4<<4 | ipv4Len/4, p.trafficClass()}
	b = binary.BigEndian.AppendUint16(b, uint16(totalLen))
	b = append(b, 0, 0, 0, 0, defaultTTL, protocol, 0, 0)
	b = slices.Concat(b, src.AsSlice(), tunnel.Destination.AsSlice())
	setIPv4Checksum(b)
	return b
}

// outerSource is the configured address of GUE, and the configured prefix with the flow's entropy
// of IPIP.
func outerSource(p *packet, tunnel lb.Tunnel) netip.Addr {
	src := tunnel.Source.Addr()
	if tunnel.Encap == lb.GUE {
		return src
	}
	s, hi, lo := p.entropy.src.AsSlice(), byte(p.entropy.srcPort>>8), byte(p.entropy.srcPort)
	var entropy []byte
	switch {
	case tunnel.Destination.Is4() && p.src.Is4():
		entropy = []byte{s[2] ^ lo, s[3] ^ hi}
	case tunnel.Destination.Is4():
		entropy = []byte{s[14] ^ lo, s[15] ^ hi}
	case p.src.Is4():
		entropy = []byte{s[0] ^ hi, s[1] ^ lo, s[2], s[3]}
	default:
		entropy = []byte{s[12] ^ hi, s[13] ^ lo, s[14], s[15]}
	}
	b := src.AsSlice()
	copy(b[len(b)-len(entropy):], entropy)
	addr, _ := netip.AddrFromSlice(b) // b is as long as the address that it came from
	return addr
}

// outerUDP is GUE's UDP header.
func outerUDP(p *packet) []byte {
	tunnel := p.real.Tunnel
	b := gueSourcePort(p)
	b = binary.BigEndian.AppendUint16(b, tunnel.Port)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.ip)+udpLen))
	b = append(b, 0, 0)
	if tunnel.Checksum && checksumIsKnown(p) {
		binary.BigEndian.PutUint16(b[6:], gueChecksum(p, b))
	}
	return b
}

// gueSourcePort is the two bytes of the outer source port as they are on the wire.
func gueSourcePort(p *packet) []byte {
	s, hi, lo := p.entropy.src.AsSlice(), byte(p.entropy.srcPort>>8), byte(p.entropy.srcPort)
	switch {
	case p.real.Tunnel.Destination.Is4() && p.src.Is4():
		return []byte{s[2] ^ lo, s[3] ^ hi}
	case p.real.Tunnel.Destination.Is4():
		return []byte{s[14] ^ lo, s[15] ^ hi}
	case p.src.Is4():
		return []byte{s[2] ^ hi, s[3] ^ lo}
	default:
		return []byte{s[12] ^ hi, s[13] ^ lo}
	}
}

// checksumIsKnown tells whether the checksum can be computed without the payload: not that of a part of
// a segment, not if UDP has none, and not with IPv4 options or IPv6 extension headers between IP header
// and segment.
func checksumIsKnown(p *packet) bool {
	if p.fragment {
		return false
	}
	if p.protocol == protocolUDP && binary.BigEndian.Uint16(p.payload[6:]) == 0 {
		return false
	}
	return !p.extended
}

// gueChecksum is the checksum of the outer UDP datagram, for a right inner checksum, without
// reading the inner segment: segment = 0xffff - inner pseudo header, or 0xffff for ICMP in IPv4,
// which has no pseudo header. udp is the outer UDP header with checksum 0. A result of 0 is written
// as 0xffff, since 0 says that there is none (RFC 768).
func gueChecksum(p *packet, udp []byte) uint16 {
	tunnel := p.real.Tunnel
	var innerPseudo []byte
	if p.protocol != protocolICMP {
		innerPseudo = pseudoHeader(p.src, p.dst, len(p.payload), p.protocol)
	}
	outerPseudo := pseudoHeader(outerSource(p, tunnel), tunnel.Destination, len(p.ip)+udpLen, protocolUDP)
	return orOnes(^add(slices.Concat(
		[]uint16{0xffff},
		complement(words(innerPseudo)),
		words(p.ipHeader),
		words(udp),
		words(outerPseudo),
	)...))
}
