// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// decapAction is what becomes of the inner packet of one that ended for the reason; lb.DecapNone if it
// has none that is looked for.
func (t *Tables) decapAction(p *packet, reason lb.Reason) lb.DecapAction {
	tunnelled := false
	switch {
	case p.fragment, p.isICMP():
	case reason == lb.ReasonOtherProtocol:
		tunnelled = p.protocol == protocolIPv4 || p.protocol == protocolIPv6
	case reason == lb.ReasonNotVIP:
		tunnelled = p.protocol == protocolUDP && t.Decap.GUEPort != 0 && p.flow.DstPort == t.Decap.GUEPort
	}
	if !tunnelled {
		return lb.DecapNone
	}
	if action, ok := t.Decap.Destinations[p.dst]; ok {
		return action
	}
	return t.Decap.Others
}

// decapsulate is section 9: what becomes of the inner packet, and its family; 0 if it never lost its
// outer headers.
func (t *Tables) decapsulate(p *packet, action lb.DecapAction) (after *packet, family int, reason lb.Reason) {
	payload := p.payload
	family = map[uint8]int{protocolIPv4: 4, protocolIPv6: 6}[p.protocol]
	if p.protocol == protocolUDP {
		payload = payload[udpLen:]
		if len(payload) == 0 {
			return p, 0, lb.ReasonTruncated
		}
		family = int(payload[0] >> 4)
	}
	if reason := checkInner(payload, family); reason != undecided {
		t.note("decapsulate", "an inner packet that is not sound")
		return p, 0, reason
	}
	tunnel := lb.IPIP
	if p.protocol == protocolUDP {
		tunnel = lb.GUE
	}
	t.note("decapsulate", "IPv%d by %s from %s, action %s", family, tunnel, p.dst, action)
	after = &packet{frame: innerFrame(p, len(payload), family), flows: p.flows}
	switch action {
	case lb.DecapBalance:
		reason = t.steps(after)
	case lb.DecapEgress:
		swap(after.frame[0:6], after.frame[6:12])
		reason = lb.ReasonDecapSent
	default:
		reason = lb.ReasonDecapsulated
	}
	return after, family, reason
}

// checkInner looks at the header that a packet of the family begins with.
func checkInner(inner []byte, family int) lb.Reason {
	headerLen, ttlAt := ipv4Len, 8
	switch family {
	case 4:
	case 6:
		headerLen, ttlAt = ipv6Len, 7
	default:
		return lb.ReasonMalformed
	}
	switch {
	case len(inner) < headerLen:
		return lb.ReasonTruncated
	case int(inner[0]>>4) != family:
		return lb.ReasonMalformed
	case inner[ttlAt] <= 1:
		return lb.ReasonTTLExpired
	}
	return undecided
}

// innerFrame is the frame without what is between its Ethernet header and the last innerLen bytes of the
// IP packet. The trailer stays.
func innerFrame(p *packet, innerLen, family int) []byte {
	link := slices.Clone(p.ethernet)
	outerLen := len(p.ip) - innerLen
	frame := slices.Concat(link, p.frame[len(link)+outerLen:])
	inner := frame[len(link):]
	if family == 6 {
		binary.BigEndian.PutUint16(frame[len(link)-2:], etherTypeIPv6)
		inner[7]--
		return frame
	}
	binary.BigEndian.PutUint16(frame[len(link)-2:], etherTypeIPv4)
	const ttlAt, checksumAt = 8, 10
	before := binary.BigEndian.Uint16(inner[ttlAt:])
	inner[ttlAt]--
	after := binary.BigEndian.Uint16(inner[ttlAt:])
	checksum := binary.BigEndian.Uint16(inner[checksumAt:])
	binary.BigEndian.PutUint16(inner[checksumAt:], ^add(^checksum, ^before, after)) // RFC 1624, equation 3
	return frame
}
