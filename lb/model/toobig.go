// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// What an answer to a packet that is too big quotes of it, and its code.
const (
	tooBigQuote4 = 84
	tooBigQuote6 = 248

	icmpFragmentationNeeded = 4 // code of icmpUnreachable (RFC 1191)
)

// tellTooBig is section 8: the frame becomes an answer that says which length fits, if the sender is to
// be told.
func (t *Tables) tellTooBig(p *packet, fits int) lb.Reason {
	quote := tooBigQuote4
	if p.isIPv6() {
		quote = tooBigQuote6
	}
	switch {
	case p.isICMP(), p.fragment, len(p.ip) < quote, fits == 0, !p.isFromHost():
		t.note("too big", "%d bytes, %d fit; not to be told", len(p.ip), fits)
		return lb.ReasonTooBig
	case t.AnswersSpent:
		t.note("too big", "%d bytes, %d fit; beyond the rate of answers", len(p.ip), fits)
		return lb.ReasonTooBig
	}
	var answer []byte
	if p.isIPv6() {
		answer = tooBig6(p, fits, p.ip[:quote])
	} else {
		answer = tooBig4(p, fits, p.ip[:quote])
	}
	p.frame = slices.Concat(p.ethernet, answer)
	swap(p.frame[0:6], p.frame[6:12])
	t.note("too big", "%d bytes, %d fit; %s is told", len(p.ip), fits, p.src)
	return lb.ReasonTooBigTold
}

func tooBig4(p *packet, fits int, quote []byte) []byte {
	header := []byte{4<<4 | ipv4Len/4, 0}
	header = binary.BigEndian.AppendUint16(header, uint16(ipv4Len+icmpLen+len(quote)))
	header = append(header, 0, 0, 0, 0, defaultTTL, protocolICMP, 0, 0)
	header = slices.Concat(header, p.dst.AsSlice(), p.src.AsSlice())
	setIPv4Checksum(header)

	message := []byte{icmpUnreachable, icmpFragmentationNeeded, 0, 0, 0, 0}
	message = binary.BigEndian.AppendUint16(message, uint16(fits))
	message = append(message, quote...)
	binary.BigEndian.PutUint16(message[2:], ^add(words(message)...))
	return append(header, message...)
}

func tooBig6(p *packet, fits int, quote []byte) []byte {
	header := []byte{6 << 4, 0, 0, 0}
	header = binary.BigEndian.AppendUint16(header, uint16(icmpLen+len(quote)))
	header = append(header, protocolICMPv6, defaultTTL)
	header = slices.Concat(header, p.dst.AsSlice(), p.src.AsSlice())

	message := []byte{icmpv6TooBig, 0, 0, 0}
	message = binary.BigEndian.AppendUint32(message, uint32(fits))
	message = append(message, quote...)
	pseudo := pseudoHeader(p.dst, p.src, len(message), protocolICMPv6)
	binary.BigEndian.PutUint16(message[2:], ^add(append(words(pseudo), words(message)...)...))
	return append(header, message...)
}
