// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Lengths and numbers of headers.
const (
	ethernetLen = 14
	tagLen      = 4
	ipv4Len     = 20
	ipv6Len     = 40
	tcpLen      = 20
	udpLen      = 8

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
	etherTypeTag  = 0x8100
	etherTypeSTag = 0x88a8

	protocolICMP   = 1
	protocolIPv4   = 4
	protocolTCP    = 6
	protocolUDP    = 17
	protocolIPv6   = 41
	protocolICMPv6 = 58
)

// linkLen is the length of a frame's Ethernet header with its VLAN tags, of which two are read.
func linkLen(frame []byte) int {
	n := ethernetLen
	for range 2 {
		if len(frame) < n {
			return len(frame)
		}
		if kind := binary.BigEndian.Uint16(frame[n-2:]); kind != etherTypeTag && kind != etherTypeSTag {
			break
		}
		n += tagLen
	}
	return min(n, len(frame))
}

// describeFrame is a frame for people, as far as it can be read.
func describeFrame(frame []byte) string {
	n := linkLen(frame)
	if n < ethernetLen {
		return fmt.Sprintf("%d bytes, too few for an Ethernet header", len(frame))
	}
	text := describePacket(frame[n:])
	if tags := (n - ethernetLen) / tagLen; tags > 0 {
		text += fmt.Sprintf(", %d VLAN tags", tags)
	}
	return text
}

// describePacket is an IP packet for people, as far as it can be read.
func describePacket(ip []byte) string {
	switch {
	case len(ip) >= ipv4Len && ip[0]>>4 == 4 && ip[0]&0x0f >= 5 && len(ip) >= int(ip[0]&0x0f)*4:
		src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		payload := ip[int(ip[0]&0x0f)*4:]
		if binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
			payload = nil // no ports in a fragment behind the first
		}
		return fmt.Sprintf("%s, %d bytes, TTL %d", describePayload(src, dst, ip[9], payload), binary.BigEndian.Uint16(ip[2:]), ip[8])
	case len(ip) >= ipv6Len && ip[0]>>4 == 6:
		src, dst := netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		return fmt.Sprintf("%s, %d bytes, hop limit %d", describePayload(src, dst, ip[6], ip[ipv6Len:]),
			ipv6Len+int(binary.BigEndian.Uint16(ip[4:])), ip[7])
	}
	return fmt.Sprintf("%d bytes that are no IP packet", len(ip))
}

// describePayload is what lies behind an IP header.
func describePayload(src, dst netip.Addr, protocol byte, payload []byte) string {
	ends := fmt.Sprintf("%s -> %s", src, dst)
	if len(payload) >= 4 && (protocol == protocolTCP || protocol == protocolUDP) {
		ends = fmt.Sprintf("%s -> %s", netip.AddrPortFrom(src, binary.BigEndian.Uint16(payload)),
			netip.AddrPortFrom(dst, binary.BigEndian.Uint16(payload[2:])))
	}
	switch {
	case protocol == protocolTCP && len(payload) >= tcpLen:
		return strings.TrimRight("tcp "+ends+" "+flagNames(payload[13]), " ")
	case protocol == protocolTCP:
		return "tcp " + ends
	case protocol == protocolUDP:
		return "udp " + ends
	case (protocol == protocolICMP || protocol == protocolICMPv6) && len(payload) >= 2:
		return fmt.Sprintf("icmp %s, type %d, code %d", ends, payload[0], payload[1])
	case protocol == protocolIPv4, protocol == protocolIPv6:
		return fmt.Sprintf("ip in ip (protocol %d) %s", protocol, ends)
	}
	return fmt.Sprintf("protocol %d %s", protocol, ends)
}

// The flags of TCP that are read.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
	flagURG
)

// flags are those of TCP, by the words of ParsePacket.
var flags = []struct {
	name string
	bit  byte
}{{"fin", flagFIN}, {"syn", flagSYN}, {"rst", flagRST}, {"psh", flagPSH}, {"ack", flagACK}, {"urg", flagURG}}

func flagNames(b byte) string {
	var names []string
	for _, f := range flags {
		if b&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, " ")
}
