// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"

	"github.com/remora-lb/remora/lb"
)

// ledBy is by what a packet names its server.
type ledBy uint8

const (
	notLed ledBy = iota
	byKatranID
	byQUICLBID
	byUDPID
	byTCPID
)

func (l ledBy) String() string {
	switch l {
	case byKatranID:
		return "connection id (Katran)"
	case byQUICLBID:
		return "connection id (QUIC-LB)"
	case byUDPID:
		return "UDP id"
	case byTCPID:
		return "TCP id"
	}
	return "nothing"
}

// The forms of server ids.
const (
	quicTypeMask = 0x30 // of a long header (RFC 9000, section 17.2)
	quic0RTT     = 0x10

	longHeaderLen  = 14 // as much of a packet as is looked at, but for QUIC-LB
	longIDAt       = 6  // behind its length
	longIDLen      = 8  // the least
	shortHeaderLen = 9
	shortIDAt      = 1
	quicLBOtherLen = 5 // of an id, beside the server's number: the least

	udpIDLen  = 8
	udpIDMark = 0x52

	tcpOffsetAt   = 12
	maxTCPOptions = 15
	tcpOptionEnd  = 0
	tcpOptionNOP  = 1
	tcpIDOption   = 0xb7
	tcpIDLen      = 6
)

// findServer is section 3.2, server ids: a packet that names a server whose real may receive goes there.
func (t *Tables) findServer(p *packet) lb.Reason {
	if p.isICMP() || p.fragment {
		return undecided
	}
	options := p.vip.Options
	if p.protocol == protocolTCP {
		if options.TCPIDs && p.payload[tcpFlagsAt]&tcpSYN == 0 {
			t.lead(p, byTCPID, tcpID(p.payload))
		}
		return undecided
	}
	data := p.payload[udpLen:]
	switch options.ConnectionIDs {
	case lb.ConnectionIDsKatran:
		t.lead(p, byKatranID, katranID(data))
	case lb.ConnectionIDsQUICLB:
		t.lead(p, byQUICLBID, t.quicLBID(data))
	}
	if options.UDPIDs {
		t.lead(p, byUDPID, udpID(data))
	}
	return undecided
}

// lead sends the packet to the real of the number, if it leads to one. Of two that do, the later counts.
func (t *Tables) lead(p *packet, by ledBy, number uint32) {
	if number == 0 {
		t.note("server id", "no %s", by)
		return
	}
	real := p.vip.Servers[number]
	if !t.receives(real) {
		t.note("server id", "%s of server %d, which leads to no real", by, number)
		return
	}
	t.note("server id", "%s of server %d, real %d", by, number, real)
	p.led, p.realID = by, real
	p.entropy.src = p.flow.Src // it is zeros only where the ring chose without it
}

// katranID is the number in a QUIC connection id of Katran's versions 1 to 3; 0 if there is none.
func katranID(data []byte) uint32 {
	id := connectionID(data, longHeaderLen, longIDLen, shortHeaderLen)
	if id == nil {
		return 0
	}
	switch id[0] >> 6 {
	case 1:
		return uint32(id[0]&0x3f)<<10 | uint32(id[1])<<2 | uint32(id[2]>>6)
	case 2:
		return uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
	case 3:
		return binary.BigEndian.Uint32(id[1:])
	}
	return 0
}

// quicLBID is the number in a QUIC connection id of QUIC-LB; 0 if there is none.
func (t *Tables) quicLBID(data []byte) (number uint32) {
	n := int(t.QUICLB.ServerIDBytes)
	if n == 0 {
		return 0
	}
	id := connectionID(data, longIDAt+1+n, n+quicLBOtherLen, shortIDAt+1+n)
	if id == nil || id[0]>>5 != t.QUICLB.ConfigID {
		return 0
	}
	for _, b := range id[1 : 1+n] {
		number = number<<8 | uint32(b)
	}
	return number
}

// connectionID is the beginning of the destination connection id of a packet that has at least so many
// bytes, with a long or a short header; nil if there is none to read. Only long headers tell the id's
// length.
func connectionID(data []byte, longLen, idLen, shortLen int) []byte {
	switch {
	case len(data) == 0:
		return nil
	case data[0]&quicLongHeader == 0 && len(data) >= shortLen:
		return data[shortIDAt:]
	case data[0]&quicLongHeader == 0, len(data) < longLen, data[0]&quicTypeMask <= quic0RTT, int(data[longIDAt-1]) < idLen:
		return nil
	}
	return data[longIDAt:]
}

// udpID is the number in the first bytes of a datagram; 0 if there is none.
func udpID(data []byte) uint32 {
	if len(data) < udpIDLen || data[0] != udpIDMark {
		return 0
	}
	return uint32(data[1])<<16 | uint32(data[2])<<8 | uint32(data[3])
}

// tcpID is the number in the first option 0xb7 of a segment; 0 if there is none. Options end with the
// header, and with the packet.
func tcpID(segment []byte) uint32 {
	headerLen := min(int(segment[tcpOffsetAt]>>4)*4, len(segment))
	options := segment[tcpLen:max(headerLen, tcpLen)]
	for range maxTCPOptions {
		if len(options) == 0 || options[0] == tcpOptionEnd {
			return 0
		}
		if options[0] == tcpOptionNOP {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return 0
		}
		if options[0] == tcpIDOption {
			if options[1] != tcpIDLen {
				return 0
			}
			return binary.LittleEndian.Uint32(options[2:])
		}
		options = options[options[1]:]
	}
	return 0
}
