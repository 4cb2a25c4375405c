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
