// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/remora-lb/remora/lb"
)

// packetForm is how a packet is written.
const packetForm = `write it as "tcp 198.51.100.7:50000 -> 192.0.2.10:80 syn", with tcp or udp, IPv6 addresses in brackets, any of syn, ack, ` +
	`fin, rst, psh and urg, and bytes=N for the length of the IP packet`

// packetSpec is a packet in a few words.
type packetSpec struct {
	protocol lb.Protocol
	src, dst netip.AddrPort
	flags    byte
	bytes    int // of the IP packet; 0: as few as can be
}

// ParsePacket makes a frame of a packet that is written as
//
//	tcp 198.51.100.7:50000 -> 192.0.2.10:80 syn
//
// Without flags a TCP segment has ACK: it is one of a connection that goes on.
func ParsePacket(text string) ([]byte, error) {
	p, err := parseSpec(text)
	if err != nil {
		return nil, fmt.Errorf("read packet %q: %v; %s", text, err, packetForm)
	}
	return p.frame(), nil
}

func parseSpec(text string) (p packetSpec, err error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == ',' })
	if len(words) < 4 || words[2] != "->" {
		return p, fmt.Errorf("it is not PROTOCOL CLIENT -> VIP")
	}
	switch strings.ToLower(words[0]) {
	case "tcp":
		p.protocol = lb.TCP
	case "udp":
		p.protocol = lb.UDP
	default:
		return p, fmt.Errorf("protocol %q is not tcp or udp", words[0])
	}
	for i, end := range []*netip.AddrPort{&p.src, &p.dst} {
		if *end, err = netip.ParseAddrPort(words[1+2*i]); err != nil {
			return p, fmt.Errorf("%q is not ADDRESS:PORT", words[1+2*i])
		}
	}
	if p.src.Addr().Is4() != p.dst.Addr().Is4() {
		return p, fmt.Errorf("%s and %s are of two families", p.src.Addr(), p.dst.Addr())
	}
	for _, word := range words[4:] {
		if err := p.option(strings.ToLower(strings.Trim(word, "[]"))); err != nil {
			return p, err
		}
	}
	return p, p.complete()
}

// option reads a word behind the addresses.
func (p *packetSpec) option(word string) (err error) {
	if n, ok := strings.CutPrefix(word, "bytes="); ok {
		if p.bytes, err = strconv.Atoi(n); err != nil || p.bytes < p.headersLen() || p.bytes > 65535 {
			return fmt.Errorf("%q is not bytes=%d to bytes=65535", word, p.headersLen())
		}
		return nil
	}
	for _, f := range flags {
		if word == f.name && p.protocol == lb.TCP {
			p.flags |= f.bit
			return nil
		}
	}
	return fmt.Errorf("%q is not known", word)
}

// complete fills in what was not said.
func (p *packetSpec) complete() error {
	if p.flags == 0 {
		p.flags = flagACK
	}
	p.bytes = max(p.bytes, p.headersLen())
	return nil
}

// String is the packet as parseSpec reads it.
func (p *packetSpec) String() string {
	text := fmt.Sprintf("%s %s -> %s", p.protocol, p.src, p.dst)
	if p.protocol == lb.TCP {
		text += " " + flagNames(p.flags)
	}
	if p.bytes > p.headersLen() {
		text += fmt.Sprintf(" bytes=%d", p.bytes)
	}
	return text
}

func (p *packetSpec) headersLen() int {
	n := ipv4Len
	if p.dst.Addr().Is6() {
		n = ipv6Len
	}
	if p.protocol == lb.TCP {
		return n + tcpLen
	}
	return n + udpLen
}

// frame is the packet behind an Ethernet header whose addresses nobody has. Checksums of the payload are
// 0: nothing on the way reads them.
func (p *packetSpec) frame() []byte {
	f := []byte{0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2}
	if p.dst.Addr().Is6() {
		f = binary.BigEndian.AppendUint16(f, etherTypeIPv6)
		f = append(f, 6<<4, 0, 0, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(p.bytes-ipv6Len))
		f = append(f, byte(p.protocol), 64)
	} else {
		f = binary.BigEndian.AppendUint16(f, etherTypeIPv4)
		f = append(f, 0x45, 0)
		f = binary.BigEndian.AppendUint16(f, uint16(p.bytes))
		f = append(f, 0, 0, 0x40, 0, 64, byte(p.protocol), 0, 0) // not to be fragmented
	}
	f = append(append(f, p.src.Addr().AsSlice()...), p.dst.Addr().AsSlice()...)
	if p.dst.Addr().Is4() {
		setChecksum(f[ethernetLen:])
	}
	f = binary.BigEndian.AppendUint16(f, p.src.Port())
	f = binary.BigEndian.AppendUint16(f, p.dst.Port())
	if p.protocol == lb.TCP {
		f = append(f, 0, 0, 0, 0, 0, 0, 0, 0, 5<<4, p.flags, 0xff, 0xff, 0, 0, 0, 0)
	} else {
		f = binary.BigEndian.AppendUint16(f, uint16(udpLen+p.bytes-p.headersLen()))
		f = append(f, 0, 0)
	}
	return append(f, make([]byte, p.bytes-p.headersLen())...)
}

// setChecksum writes the checksum of an IPv4 header without options (RFC 1071).
func setChecksum(ip []byte) {
	var sum uint32
	for i := 0; i < ipv4Len; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}

// ParseHex reads a frame in hexadecimal, from its Ethernet header on. Spaces, colons and line ends between
// digits do not count.
func ParseHex(text string) ([]byte, error) {
	digits := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == ':' {
			return -1
		}
		return r
	}, text)
	frame, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("read frame: %v", err)
	}
	if len(frame) == 0 {
		return nil, fmt.Errorf("read frame: it is empty")
	}
	return frame, nil
}
