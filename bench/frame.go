// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"net/netip"
)

// The received frame's addresses on the link.
const (
	balancerMAC = "\x02\x00\x00\x00\x00\x01"
	clientMAC   = "\x02\x00\x00\x00\x00\x09"
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100

	protoICMP = 1
	protoIPIP = 4

	tcpSYN = 0x02
	tcpACK = 0x10

	etherLen = 14
	vlanLen  = 4
)

func etherFrame(etherType uint16, payload []byte) []byte {
	b := append([]byte(nil), balancerMAC...)
	b = append(b, clientMAC...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

// vlanFrame puts one tag into an Ethernet frame.
func vlanFrame(id uint16, frame []byte) []byte {
	b := append([]byte(nil), frame[:12]...)
	b = binary.BigEndian.AppendUint16(b, etherVLAN)
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, frame[12:]...)
}

func ipv4Packet(src, dst netip.Addr, proto byte, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	b[6] = 0x40 // don't fragment
	b[8], b[9] = 64, proto
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], internetChecksum(b))
	return append(b, payload...)
}

func ipv6Packet(src, dst netip.Addr, proto byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = proto, 64
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(b, payload...)
}

// tcpSegment has no checksum: the flows are stamped into the frames, and nothing looks at it.
func tcpSegment(src, dst uint16, flags byte, payloadLen int) []byte {
	b := make([]byte, 20+payloadLen)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	b[12], b[13] = 5<<4, flags
	return b
}

// udpDatagram has checksum 0, which is none.
func udpDatagram(src, dst uint16, payloadLen int) []byte {
	b := make([]byte, 8+payloadLen)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

func icmpEchoRequest(payloadLen int) []byte {
	b := make([]byte, 8+payloadLen)
	b[0] = 8
	binary.BigEndian.PutUint16(b[2:], internetChecksum(b))
	return b
}

// quicDatagram has a payload that begins with a long header of type Initial, or with a short one, and a
// destination connection id of 8 bytes.
func quicDatagram(src uint16, initial bool) []byte {
	payload := []byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8}
	if initial {
		payload = []byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0}
	}
	b := udpDatagram(src, quicPort, 32)
	copy(b[8:], payload)
	return b
}

// icmpTooBig quotes the beginning of a packet that a server sent from the VIP.
func icmpTooBig(quoted []byte) []byte {
	b := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, quoted[:28]...) // fragmentation needed, MTU 1280
	binary.BigEndian.PutUint16(b[2:], internetChecksum(b))
	return b
}

// internetChecksum is RFC 1071's, of an even number of bytes whose checksum field is 0.
func internetChecksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
