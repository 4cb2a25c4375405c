// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Who is who in the frames of the tests.
var (
	client4   = netip.MustParseAddr("198.51.100.7")
	client6   = netip.MustParseAddr("2001:db8:c::7")
	vip4      = netip.MustParseAddr("192.0.2.10")
	vip6      = netip.MustParseAddr("2001:db8:ff::10")
	balancer4 = netip.MustParseAddr("172.16.5.6")
	balancer6 = netip.MustParseAddr("100::506")
	server4   = netip.MustParseAddr("10.20.0.11")
	server6   = netip.MustParseAddr("2001:db8:20::11")
	stranger4 = netip.MustParseAddr("10.20.0.12")
	stranger6 = netip.MustParseAddr("2001:db8:20::12")
)

// macs are destination and source of every frame, unless a test writes others over them.
var macs = []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
	typeVLAN = 0x8100
	typeQinQ = 0x88a8

	protocolIPIP = 4
	protocolTCP  = 6
	protocolUDP  = 17
	protocolIPv6 = 41

	vipPort = 7777
)

// be16 is a number as two bytes in network order.
func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// ethernet is a link header with VLAN tags of the given protocols, in front of an IP packet.
func ethernet(packet []byte, tags ...int) []byte {
	b := slices.Clone(macs)
	for i, tag := range tags {
		b = slices.Concat(b, be16(tag), be16(100+i))
	}
	etherType := typeIPv4
	if packet[0]>>4 == 6 {
		etherType = typeIPv6
	}
	return slices.Concat(b, be16(etherType), packet)
}

// ip is what the tests vary of an IP header.
type ip struct {
	src, dst netip.Addr
	protocol byte
	// tos is the whole byte, in IPv6 the traffic class.
	tos byte
	// id is IPv4's identification.
	id uint16
	// options are IPv4's; their length is a multiple of 4.
	options []byte
}

// packet is the IP packet with a payload; in IPv4 the header checksum is right.
func (h ip) packet(payload []byte) []byte {
	if h.dst.Is6() {
		b := []byte{6<<4 | h.tos>>4, h.tos<<4 | 0x0a, 0xbc, 0xde}
		b = slices.Concat(b, be16(len(payload)), []byte{h.protocol, 61})
		return slices.Concat(b, h.src.AsSlice(), h.dst.AsSlice(), payload)
	}
	hdr := 20 + len(h.options)
	b := slices.Concat([]byte{4<<4 | byte(hdr/4), h.tos}, be16(hdr+len(payload)), be16(int(h.id)), []byte{0, 0, 61, h.protocol, 0, 0})
	b = slices.Concat(b, h.src.AsSlice(), h.dst.AsSlice(), h.options)
	binary.BigEndian.PutUint16(b[10:], ^sum16(b))
	return append(b, payload...)
}

// sum16 is the one's-complement sum of an even number of bytes.
func sum16(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// udp is a UDP segment without a checksum, as GUE's outer one is.
func udp(srcPort, dstPort int, payload []byte) []byte {
	return slices.Concat(be16(srcPort), be16(dstPort), be16(8+len(payload)), be16(0), payload)
}

// udpSummed is a UDP segment with its right checksum, for the given addresses.
func udpSummed(src, dst netip.Addr, srcPort, dstPort int, payload []byte) []byte {
	b := udp(srcPort, dstPort, payload)
	pseudo := slices.Concat(src.AsSlice(), dst.AsSlice(), be16(protocolUDP), be16(len(b)), b)
	if len(pseudo)%2 == 1 {
		pseudo = append(pseudo, 0)
	}
	sum := ^sum16(pseudo)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

// inner is a client's datagram to the VIP of a family, with the whole TOS byte given.
func inner(is6 bool, tos byte, payload string) []byte {
	h := ip{src: client4, dst: vip4, protocol: protocolUDP, tos: tos, id: 0x1234}
	if is6 {
		h.src, h.dst = client6, vip6
	}
	return h.packet(udpSummed(h.src, h.dst, 40000, vipPort, []byte(payload)))
}

// tunnel is an encapsulated frame in its parts.
type tunnel struct {
	tags []int
	// kind gives encapsulation and outer family; its inner family must be the packet's.
	kind Kind
	// outer are the fields that differ from the usual.
	tos     byte
	options []byte
	inner   []byte
	// padding lies behind the inner packet within the outer lengths, trailer behind the outer
	// packet.
	padding, trailer []byte
	// port is GUE's, 0 for the default.
	port int
}

func (k Kind) gue() bool    { return k >= GUE4in4 }
func (k Kind) outer6() bool { return k&2 != 0 }
func (k Kind) inner6() bool { return k&1 != 0 }

// outerBytes is the length of the headers that are taken off.
func (u tunnel) outerBytes() int {
	n := 20 + len(u.options)
	if u.kind.outer6() {
		n = 40
	}
	if u.kind.gue() {
		n += 8
	}
	return n
}

// frame is the tunnelled frame as it arrives.
func (u tunnel) frame() []byte {
	h := ip{src: balancer4, dst: server4, protocol: protocolIPIP, tos: u.tos, options: u.options}
	if u.kind.outer6() {
		h.src, h.dst = balancer6, server6
	}
	if u.kind.inner6() {
		h.protocol = protocolIPv6
	}
	payload := slices.Concat(u.inner, u.padding)
	if u.kind.gue() {
		h.protocol = protocolUDP
		port := u.port
		if port == 0 {
			port = DefaultGUEPort
		}
		payload = udp(30000, port, payload)
	}
	return slices.Concat(ethernet(h.packet(payload), u.tags...), u.trailer)
}

// opened is the frame as the stack should get it.
func (u tunnel) opened() []byte {
	return slices.Concat(ethernet(u.inner, u.tags...), u.padding, u.trailer)
}

// at is where the outer IP header begins in the frame.
func (u tunnel) at() int { return 14 + 4*len(u.tags) }

// with is a copy of a frame with bytes written over it.
func with(frame []byte, offset int, b ...byte) []byte {
	frame = slices.Clone(frame)
	copy(frame[offset:], b)
	return frame
}
