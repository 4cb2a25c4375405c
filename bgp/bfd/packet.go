// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"encoding/binary"
	"fmt"
	"time"
)

// packetLen is the length of a control packet without authentication (RFC 5880 section 4.1).
const packetLen = 24

// version is the protocol version of RFC 5880.
const version = 1

// The flags in the second byte of a control packet.
const (
	flagPoll       = 0x20
	flagFinal      = 0x10
	flagAuth       = 0x04
	flagMultipoint = 0x01
)

// packet is the mandatory section of a control packet. Intervals have a resolution of 1 µs.
type packet struct {
	state       State
	diag        diagnostic
	poll, final bool
	// multiplier is how many intervals may pass without a packet.
	multiplier uint8
	// mine and yours are the discriminators of the sender's and the receiver's session.
	mine, yours uint32
	// desiredTx is how often the sender would like to send, requiredRx how often it can receive;
	// requiredRx 0 asks for no packets at all.
	desiredTx, requiredRx time.Duration
}

// encode returns the packet as it goes on the wire.
func (p packet) encode() []byte {
	b := make([]byte, packetLen)
	b[0] = version<<5 | byte(p.diag)&0x1f
	b[1] = byte(p.state) << 6
	if p.poll {
		b[1] |= flagPoll
	}
	if p.final {
		b[1] |= flagFinal
	}
	b[2], b[3] = p.multiplier, packetLen
	binary.BigEndian.PutUint32(b[4:], p.mine)
	binary.BigEndian.PutUint32(b[8:], p.yours)
	binary.BigEndian.PutUint32(b[12:], uint32(p.desiredTx.Microseconds()))
	binary.BigEndian.PutUint32(b[16:], uint32(p.requiredRx.Microseconds()))
	return b // the required echo interval stays 0: no echo packets
}

// decode reads a control packet and makes the checks of RFC 5880 section 6.8.6 that need no
// session. The error says which one failed.
func decode(b []byte) (packet, error) {
	if len(b) < packetLen {
		return packet{}, fmt.Errorf("decode BFD packet: %d bytes are too short", len(b))
	}
	p := packet{
		state:      State(b[1] >> 6),
		diag:       diagnostic(b[0] & 0x1f),
		poll:       b[1]&flagPoll != 0,
		final:      b[1]&flagFinal != 0,
		multiplier: b[2],
		mine:       binary.BigEndian.Uint32(b[4:]),
		yours:      binary.BigEndian.Uint32(b[8:]),
		desiredTx:  time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Microsecond,
		requiredRx: time.Duration(binary.BigEndian.Uint32(b[16:])) * time.Microsecond,
	}
	switch {
	case b[0]>>5 != version:
		return packet{}, fmt.Errorf("decode BFD packet: version %d", b[0]>>5)
	case int(b[3]) < packetLen || int(b[3]) > len(b):
		return packet{}, fmt.Errorf("decode BFD packet: length field %d in %d bytes", b[3], len(b))
	case b[1]&flagAuth != 0:
		return packet{}, fmt.Errorf("decode BFD packet: it is authenticated, and no key is configured")
	case b[1]&flagMultipoint != 0:
		return packet{}, fmt.Errorf("decode BFD packet: the multipoint bit is set")
	case p.poll && p.final:
		return packet{}, fmt.Errorf("decode BFD packet: poll and final in one")
	case p.multiplier == 0:
		return packet{}, fmt.Errorf("decode BFD packet: multiplier 0")
	case p.mine == 0:
		return packet{}, fmt.Errorf("decode BFD packet: the sender's discriminator is 0")
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		return packet{}, fmt.Errorf("decode BFD packet: state %v without our discriminator", p.state)
	}
	return p, nil
}
