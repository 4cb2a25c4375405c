// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// testPort is the port of the client of a test packet: discard.
const testPort = 9

// testClient is an address that benchmarks have to themselves (RFC 2544, RFC 5180).
func testClient(v4 bool) netip.Addr {
	if v4 {
		return netip.AddrFrom4([4]byte{198, 18, 0, 1})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x00, 0x02, 15: 1})
}

// testPacket is a frame to an address and port of a VIP of which nothing is remembered: TCP with RST, UDP where no
// flow is remembered, else an ICMP error about a packet that a server sent.
func testPacket(v lb.VIPEntry, to netip.AddrPort) []byte {
	client, vip, port := testClient(to.Addr().Is4()), to.Addr(), to.Port()
	switch {
	case v.VIP.Protocol == lb.TCP:
		return testFrame(ipPacket(client, vip, unix.IPPROTO_TCP, tcpReset(testPort, port)))
	case v.Flows == lb.FlowNever:
		return testFrame(ipPacket(client, vip, unix.IPPROTO_UDP, udpHeader(testPort, port)))
	}
	quoted := ipPacket(vip, client, unix.IPPROTO_UDP, udpHeader(port, testPort))
	protocol, kind, code := byte(unix.IPPROTO_ICMP), byte(3), byte(3) // port unreachable, RFC 792
	if vip.Is6() {
		protocol, kind, code = unix.IPPROTO_ICMPV6, 1, 4 // RFC 4443
	}
	return testFrame(ipPacket(client, vip, protocol, append([]byte{kind, code, 7: 0}, quoted...)))
}

// testFrame puts an Ethernet header in front of a packet.
func testFrame(ip []byte) []byte {
	kind := uint16(unix.ETH_P_IPV6)
	if ip[0]>>4 == 4 {
		kind = unix.ETH_P_IP
	}
	frame := []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2}
	return append(binary.BigEndian.AppendUint16(frame, kind), ip...)
}

// ipPacket is a packet of the addresses' family.
func ipPacket(src, dst netip.Addr, protocol byte, payload []byte) []byte {
	const hops = 64
	if dst.Is6() {
		h := []byte{0x60, 0, 0, 0}
		h = binary.BigEndian.AppendUint16(h, uint16(len(payload)))
		h = append(h, protocol, hops)
		return append(append(append(h, src.AsSlice()...), dst.AsSlice()...), payload...)
	}
	h := []byte{0x45, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(payload)))
	h = append(h, 0, 0, 0x40, 0, hops, protocol, 0, 0) // don't fragment
	h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], ipChecksum(h))
	return append(h, payload...)
}

// ipChecksum is that of a header of an even number of bytes (RFC 1071).
func ipChecksum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tcpReset is a TCP header with RST. Nobody looks at its checksum.
func tcpReset(src, dst uint16) []byte {
	h := binary.BigEndian.AppendUint16(nil, src)
	h = binary.BigEndian.AppendUint16(h, dst)
	return append(h, 0, 0, 0, 0, 0, 0, 0, 0, 5<<4, 4, 0, 0, 0, 0, 0, 0)
}

// udpHeader is a UDP header without payload and checksum.
func udpHeader(src, dst uint16) []byte {
	h := binary.BigEndian.AppendUint16(nil, src)
	h = binary.BigEndian.AppendUint16(h, dst)
	return append(h, 0, 8, 0, 0)
}
