// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/remora-lb/remora/lb"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443), and the TTL of an answer.
const (
	icmpEchoReply     = 0
	icmpEchoRequest   = 8
	icmpv6EchoRequest = 128
	icmpv6EchoReply   = 129

	defaultTTL = 64
)

// answerEcho is section 2: it ends every ICMP packet, and turns an echo request to a VIP's
// address into its answer.
func (t *Tables) answerEcho(p *packet) lb.Reason {
	if !p.isICMP() {
		return undecided
	}
	if len(p.payload) < icmpLen {
		return lb.ReasonTruncated
	}
	request, reply := byte(icmpEchoRequest), byte(icmpEchoReply)
	if p.isIPv6() {
		request, reply = icmpv6EchoRequest, icmpv6EchoReply
	}
	if p.payload[0] != request || !t.hasAddr(p.dst) || p.extended {
		t.note("echo", "type %d, not to be answered", p.payload[0])
		return lb.ReasonICMP
	}
	swap(p.ethernet[0:6], p.ethernet[6:12])
	if p.isIPv6() {
		p.ip[7] = defaultTTL
		swap(p.ip[8:24], p.ip[24:40])
	} else {
		p.ip[8] = defaultTTL
		swap(p.ip[12:16], p.ip[16:20])
		setIPv4Checksum(p.ipHeader)
	}
	setICMPType(p.payload, reply)
	t.note("echo", "answered to %s", p.src)
	return lb.ReasonEchoAnswered
}

// setICMPType changes the type and adjusts the checksum for it: HC' = ~(~HC + ~m + m'), where m is
// the 16-bit word that the type is in (RFC 1624, equation 3). A wrong checksum stays as wrong as
// it was; 0 is written as 0xffff, which is right also if all else is 0.
func setICMPType(icmp []byte, icmpType byte) {
	before := binary.BigEndian.Uint16(icmp)
	icmp[0] = icmpType
	after := binary.BigEndian.Uint16(icmp)
	checksum := binary.BigEndian.Uint16(icmp[2:])
	binary.BigEndian.PutUint16(icmp[2:], orOnes(^add(^checksum, ^before, after)))
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}
