// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

const (
	ethernetLen = 14
	tagLen      = 4
	maxTags     = 2

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeTag  = 0x8100 // IEEE 802.1Q customer tag
	etherTypeSTag = 0x88a8 // IEEE 802.1Q service tag

	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8
	icmpLen = 8

	protocolICMP   = 1
	protocolIPv4   = 4
	protocolTCP    = uint8(lb.TCP)
	protocolUDP    = uint8(lb.UDP)
	protocolIPv6   = 41
	protocolICMPv6 = 58

	// The more-fragments bit and the offset, in IPv4's and the IPv6 fragment header's field.
	fragmentMask4 = 0x3fff
	fragmentMask6 = 0xfff9
	// The offset alone.
	offsetMask4 = 0x1fff
)

// parse is section 1: it fills in the packet, and of TCP and UDP the flow.
func (t *Tables) parse(p *packet) lb.Reason {
	if reason := p.parseEthernet(); reason != undecided {
		return reason
	}
	var reason lb.Reason
	etherType := binary.BigEndian.Uint16(p.ethernet[len(p.ethernet)-2:])
	switch etherType {
	case etherTypeIPv4:
		reason = t.parseIPv4(p)
	case etherTypeIPv6:
		reason = t.parseIPv6(p)
	default:
		t.note("parse", "EtherType 0x%04x behind %d bytes", etherType, len(p.ethernet)-2)
		return lb.ReasonNotIP
	}
	if reason != undecided || p.fragment {
		return reason
	}
	if p.isICMP() {
		t.note("parse", "%s to %s, ICMP, %d bytes", p.src, p.dst, len(p.ip))
		return undecided
	}
	return t.parsePorts(p)
}

// parseEthernet finds the EtherType behind at most two VLAN tags.
func (p *packet) parseEthernet() lb.Reason {
	end := ethernetLen
	if len(p.frame) < end {
		return lb.ReasonTruncated
	}
	for range maxTags {
		etherType := binary.BigEndian.Uint16(p.frame[end-2:])
		if etherType != etherTypeTag && etherType != etherTypeSTag {
			break
		}
		end += tagLen
		if len(p.frame) < end {
			return lb.ReasonTruncated
		}
	}
	p.ethernet = p.frame[:end]
	return undecided
}

func (t *Tables) parseIPv4(p *packet) lb.Reason {
	room := p.frame[len(p.ethernet):]
	if len(room) < ipv4Len {
		return lb.ReasonTruncated
	}
	version, headerLen := room[0]>>4, int(room[0]&0x0f)*4
	totalLen := int(binary.BigEndian.Uint16(room[2:]))
	switch {
	case version != 4, headerLen < ipv4Len:
		return lb.ReasonMalformed
	case headerLen > len(room):
		return lb.ReasonTruncated
	case totalLen < headerLen:
		return lb.ReasonMalformed
	case totalLen > len(room):
		return lb.ReasonTruncated
	}
	p.ip = room[:totalLen]
	p.ipHeader, p.payload = p.ip[:headerLen], p.ip[headerLen:]
	p.extended = headerLen > ipv4Len
	p.protocol = p.ip[9]
	p.src = netip.AddrFrom4([4]byte(p.ip[12:16]))
	p.dst = netip.AddrFrom4([4]byte(p.ip[16:20]))
	if binary.BigEndian.Uint16(p.ip[6:])&fragmentMask4 != 0 {
		return t.parseFragment(p)
	}
	return undecided
}

func (t *Tables) parseIPv6(p *packet) lb.Reason {
	room := p.frame[len(p.ethernet):]
	if len(room) < ipv6Len {
		return lb.ReasonTruncated
	}
	if room[0]>>4 != 6 {
		return lb.ReasonMalformed
	}
	totalLen := ipv6Len + int(binary.BigEndian.Uint16(room[4:]))
	if totalLen > len(room) {
		return lb.ReasonTruncated
	}
	p.ip = room[:totalLen]
	p.ipHeader, p.payload = p.ip[:ipv6Len], p.ip[ipv6Len:]
	p.protocol = p.ip[6]
	// AddrFrom16 keeps IPv4-mapped addresses IPv6, which is what they are on the wire.
	p.src = netip.AddrFrom16([16]byte(p.ip[8:24]))
	p.dst = netip.AddrFrom16([16]byte(p.ip[24:40]))
	return t.skipExtensions(p)
}

// parsePorts reads the ports of TCP and UDP.
func (t *Tables) parsePorts(p *packet) lb.Reason {
	var headerLen int
	switch p.protocol {
	case protocolTCP:
		headerLen = tcpLen
	case protocolUDP:
		headerLen = udpLen
	default:
		t.note("parse", "%s to %s, protocol %d, %d bytes", p.src, p.dst, p.protocol, len(p.ip))
		return lb.ReasonOtherProtocol
	}
	if len(p.payload) < headerLen {
		return lb.ReasonTruncated
	}
	p.flow = Flow{
		Src: p.src, Dst: p.dst, Protocol: lb.Protocol(p.protocol),
		SrcPort: binary.BigEndian.Uint16(p.payload), DstPort: binary.BigEndian.Uint16(p.payload[2:]),
	}
	t.note("parse", "%s, %d bytes", p.flow, len(p.ip))
	return undecided
}
