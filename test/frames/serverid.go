// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Types of long headers of QUIC (RFC 9000, section 17.2).
const (
	QUICInitial   = 0
	QUICZeroRTT   = 1
	QUICHandshake = 2
	QUICRetry     = 3
)

// QUICLong is the beginning of a packet with a long header: its first byte, version, and a destination
// connection id with its length.
func QUICLong(packetType uint8, id []byte) []byte {
	return slices.Concat([]byte{0xc0 | packetType<<4, 0, 0, 0, 1, byte(len(id))}, id)
}

// QUICShort is the beginning of a packet with a short header, whose connection id has no length.
func QUICShort(id []byte) []byte { return slices.Concat([]byte{0x40}, id) }

// KatranID is a connection id of 8 bytes with a server's number in one of Katran's versions: 1 has room
// for 16 bits, 2 for 24, 3 for 32. Bits without a meaning are those of filling.
func KatranID(version uint8, number uint32, filling [8]byte) []byte {
	b := filling
	switch version {
	case 1:
		b[0] = 1<<6 | byte(number>>10)&0x3f
		b[1] = byte(number >> 2)
		b[2] = byte(number)<<6 | b[2]&0x3f
	case 2:
		b[0] = 2<<6 | b[0]&0x3f
		b[1], b[2], b[3] = byte(number>>16), byte(number>>8), byte(number)
	default:
		b[0] = version<<6 | b[0]&0x3f
		binary.BigEndian.PutUint32(b[1:], number)
	}
	return b[:]
}

// QUICLBID is a connection id with a server's number in the plaintext form of QUIC-LB, and a nonce of
// the least length.
func QUICLBID(form lb.QUICLB, number uint32, nonce [4]byte) []byte {
	n := int(form.ServerIDBytes)
	b := []byte{form.ConfigID<<5 | byte(n+len(nonce))}
	b = append(b, binary.BigEndian.AppendUint32(nil, number)[4-n:]...)
	return append(b, nonce[:]...)
}

// UDPID is the first 8 bytes of a datagram with a server's number of 24 bits.
func UDPID(number uint32) []byte {
	return []byte{0x52, byte(number >> 16), byte(number >> 8), byte(number), 0, 0, 0, 0}
}

// Kinds of TCP options.
const (
	TCPOptionEnd      = 0
	TCPOptionNOP      = 1
	TCPOptionServerID = 0xb7
)

// TCPID is the TCP option with a server's number.
func TCPID(number uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{TCPOptionServerID, 6}, number)
}

// TCPOption is any option with data.
func TCPOption(kind uint8, data ...byte) []byte {
	return append([]byte{kind, byte(2 + len(data))}, data...)
}
