// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	icmpEchoReply        = 0
	icmpUnreachable      = 3
	icmpEchoRequest      = 8
	icmpTimeExceeded     = 11
	icmpParameterProblem = 12

	icmpv6Unreachable      = 1
	icmpv6TooBig           = 2
	icmpv6TimeExceeded     = 3
	icmpv6ParameterProblem = 4
	icmpv6EchoRequest      = 128
	icmpv6EchoReply        = 129
)

// quotedLen is how much of a quoted packet lies behind its IP header at least (RFC 792). It holds
// the ports of TCP and UDP.
const quotedLen = 8

// handleICMP is section 2: it ends every ICMP packet but an error about a flow that can be told.
func (t *Tables) handleICMP(p *packet) lb.Reason {
	if !p.isICMP() {
		return undecided
	}
	if len(p.payload) < icmpLen {
		return lb.ReasonTruncated
	}
	request, errorTypes := byte(icmpEchoRequest), []byte{icmpUnreachable, icmpTimeExceeded, icmpParameterProblem}
	if p.isIPv6() {
		request = icmpv6EchoRequest
		errorTypes = []byte{icmpv6Unreachable, icmpv6TooBig, icmpv6TimeExceeded, icmpv6ParameterProblem}
	}
	switch icmpType := p.payload[0]; {
	case icmpType == request:
		return t.answerEcho(p)
	case slices.Contains(errorTypes, icmpType):
		return t.followError(p)
	default:
		t.note("icmp", "type %d, neither an echo request nor an error", icmpType)
		return lb.ReasonICMP
	}
}

// followError lets an error go the way of the flow that it is about. Only the flow becomes that of
// the quote; the packet stays the error.
func (t *Tables) followError(p *packet) lb.Reason {
	sent, ok := p.quote()
	switch {
	case !ok:
		t.note("icmp", "type %d, quoting no packet that can be told", p.payload[0])
		return lb.ReasonICMP
	case sent.Src != p.dst:
		t.note("icmp", "type %d, to %s about a packet of %s", p.payload[0], p.dst, sent.Src)
		return lb.ReasonICMP
	}
	p.flow = sent.reversed()
	t.note("icmp", "type %d, about %s", p.payload[0], p.flow)
	return undecided
}

// quote is the flow of the packet that an error quotes, as the server sent it. It is not ok if the
// quote is too short, or not of the error's family, TCP or UDP, and its beginning.
func (p *packet) quote() (sent Flow, ok bool) {
	quoted := p.payload[icmpLen:]
	var behind []byte
	if p.isIPv6() {
		sent, behind, ok = quotedIPv6(quoted)
	} else {
		sent, behind, ok = quotedIPv4(quoted)
	}
	if !ok || sent.Protocol != lb.TCP && sent.Protocol != lb.UDP || len(behind) < quotedLen {
		return Flow{}, false
	}
	sent.SrcPort = binary.BigEndian.Uint16(behind)
	sent.DstPort = binary.BigEndian.Uint16(behind[2:])
	return sent, true
}

// quotedIPv4 reads a quoted IPv4 header; behind is what follows its options. Its total length is
// that of the packet that was sent, so it says nothing about the quote.
func quotedIPv4(b []byte) (sent Flow, behind []byte, ok bool) {
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return Flow{}, nil, false
	}
	headerLen := int(b[0]&0x0f) * 4
	offset := binary.BigEndian.Uint16(b[6:]) & offsetMask4
	if headerLen < ipv4Len || headerLen > len(b) || offset != 0 {
		return Flow{}, nil, false
	}
	sent.Src = netip.AddrFrom4([4]byte(b[12:16]))
	sent.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	sent.Protocol = lb.Protocol(b[9])
	return sent, b[headerLen:], true
}

// quotedIPv6 reads a quoted IPv6 header. An extension header counts as the protocol, which then
// is neither TCP nor UDP.
func quotedIPv6(b []byte) (sent Flow, behind []byte, ok bool) {
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return Flow{}, nil, false
	}
	sent.Src = netip.AddrFrom16([16]byte(b[8:24]))
	sent.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	sent.Protocol = lb.Protocol(b[6])
	return sent, b[ipv6Len:], true
}
