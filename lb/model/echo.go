// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/remora-lb/remora/lb"
)

// defaultTTL is that of answers and of outer headers.
const defaultTTL = 64

// answerEcho turns an echo request to a VIP's address into its answer.
func (t *Tables) answerEcho(p *packet) lb.Reason {
	if !t.hasAddr(p.dst) || p.extended {
		t.note("icmp", "an echo request, not to be answered")
		return lb.ReasonICMP
	}
	if !p.isFromHost() {
		t.note("icmp", "an echo request that is not from one host to this one")
		return lb.ReasonICMP
	}
	if t.AnswersSpent {
		t.note("icmp", "an echo request, beyond the rate of answers")
		return lb.ReasonEchoLimited
	}
	swap(p.ethernet[0:6], p.ethernet[6:12])
	if p.isIPv6() {
		p.ip[7] = defaultTTL
		swap(p.ip[8:24], p.ip[24:40])
		setICMPType(p.payload, icmpv6EchoReply)
	} else {
		p.ip[8] = defaultTTL
		swap(p.ip[12:16], p.ip[16:20])
		setIPv4Checksum(p.ipHeader)
		setICMPType(p.payload, icmpEchoReply)
	}
	t.note("icmp", "an echo request, answered to %s", p.src)
	return lb.ReasonEchoAnswered
}

// isFromHost tells whether the packet is from a single host, and its frame to this one: others are not
// answered (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
func (p *packet) isFromHost() bool {
	if p.ethernet[0]&1 != 0 {
		return false
	}
	if p.isIPv6() {
		// Not IsMulticast, which takes ::ffff:224.0.0.1 for IPv4.
		return p.src.As16()[0] != 0xff && !p.src.IsUnspecified()
	}
	first := p.src.As4()[0]
	return first != 0 && first < 224
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
