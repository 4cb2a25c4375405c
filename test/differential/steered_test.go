// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
)

// steered is what matters of an ICMP error that went the way of the flow that it is about, besides
// the combination of that way.
type steered struct {
	inner6   bool
	udp      bool // quoted, else TCP
	anyPort  bool // the VIP's
	extended bool // the error has IPv4 options or IPv6 extension headers
	options  bool // the quoted header has IPv4 options
	minimal  bool // no more is quoted than has to be
}

// allSteered is all that there are.
func allSteered() []steered {
	var all []steered
	for n := range 1 << 6 {
		s := steered{n&1 != 0, n&2 != 0, n&4 != 0, n&8 != 0, n&16 != 0, n&32 != 0}
		if !s.inner6 || !s.options {
			all = append(all, s)
		}
	}
	return all
}

// steeredError looks at a frame that was forwarded for the VIP, and tells whether it is an error. It
// reads the frame by its own arithmetic and not by the model's.
func steeredError(frame []byte, vip lb.VIP) (s steered, ok bool) {
	s.inner6, s.anyPort = vip.Addr.Is6(), vip.Port == 0
	packet := frame[frames.HeaderLen+4*tags(frame):]
	if s.inner6 {
		protocol, at := behindIPv6(packet)
		quoted := packet[at+8 : 40+int(binary.BigEndian.Uint16(packet[4:]))]
		if protocol != 58 {
			return s, false
		}
		s.extended, s.udp, s.minimal = at > 40, quoted[6] == 17, len(quoted) == 40+frames.QuotedLen
		return s, true
	}
	at := int(packet[0]&0x0f) * 4
	quoted := packet[at+8 : binary.BigEndian.Uint16(packet[2:])]
	if packet[9] != 1 {
		return s, false
	}
	quotedHeader := int(quoted[0]&0x0f) * 4
	s.extended, s.options = at > 20, quotedHeader > 20
	s.udp, s.minimal = quoted[9] == 17, len(quoted) == quotedHeader+frames.QuotedLen
	return s, true
}

// behindIPv6 is what follows a sound packet's extension headers, and where.
func behindIPv6(packet []byte) (protocol byte, at int) {
	protocol, at = packet[6], 40
	for {
		header := packet[at:]
		switch protocol {
		case 0, 43, 60:
			at += (int(header[1]) + 1) * 8
		case 51:
			at += (int(header[1]) + 2) * 4
		case 44:
			at += 8
		default:
			return protocol, at
		}
		protocol = header[0]
	}
}

func TestSteeredErrorsAreRecognised(t *testing.T) {
	vip4, vip6 := lb.VIP{Addr: netip.MustParseAddr("203.0.113.1"), Port: 443}, lb.VIP{Addr: netip.MustParseAddr("2001:db8::1")}
	client4, client6 := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")
	error4 := func(n int, payload frames.Payload, options ...byte) frames.IPv4 {
		sent := frames.IPv4{Src: vip4.Addr, Dst: client4, Options: options, Payload: payload}
		return frames.IPv4{Src: client4, Dst: vip4.Addr, Payload: frames.ICMP{Type: 3, Data: frames.Quote(sent, n)}}
	}
	error6 := func(n int, payload frames.Payload) frames.IPv6 {
		sent := frames.IPv6{Src: vip6.Addr, Dst: client6, Payload: payload}
		return frames.IPv6{Src: client6, Dst: vip6.Addr, Payload: frames.ICMP{Type: 2, Data: frames.Quote(sent, n)}}
	}
	extended4, extended6 := error4(8, frames.TCP{}), error6(8, frames.TCP{})
	extended4.Options = []byte{1}
	extended6.Extensions = []frames.Extension{
		frames.HopByHop(1), frames.Authentication(1), frames.FragmentHeader(0, 1), frames.Routing(0, 0),
	}
	cases := []struct {
		name   string
		packet frames.Packet
		want   steered
		ok     bool
	}{
		{"TCP in IPv4", frames.IPv4{Src: client4, Dst: vip4.Addr, Payload: frames.TCP{}}, steered{}, false},
		{"TCP in IPv6", frames.IPv6{Src: client6, Dst: vip6.Addr, Payload: frames.TCP{}}, steered{}, false},
		{"IPv4, TCP", error4(8, frames.TCP{}), steered{minimal: true}, true},
		{"IPv4, UDP, more than the least", error4(9, frames.UDP{Data: []byte("x")}), steered{udp: true}, true},
		{"IPv4, quoted options", error4(8, frames.TCP{}, 1), steered{options: true, minimal: true}, true},
		{"IPv4, options", extended4, steered{extended: true, minimal: true}, true},
		{"IPv6, TCP", error6(8, frames.TCP{}), steered{inner6: true, anyPort: true, minimal: true}, true},
		{"IPv6, UDP, more than the least", error6(9, frames.UDP{Data: []byte("x")}), steered{inner6: true, anyPort: true, udp: true}, true},
		{"IPv6, extension headers", extended6, steered{inner6: true, anyPort: true, extended: true, minimal: true}, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			vip := vip4
			if _, v6 := c.packet.(frames.IPv6); v6 {
				vip = vip6
			}
			f := frames.Frame{Packet: c.packet, Trailer: []byte("trailer"), Tags: []frames.Tag{{EtherType: frames.EtherTypeTag}}}
			got, ok := steeredError(f.Bytes(), vip)
			if ok != c.ok || ok && got != c.want {
				t.Errorf("%+v, %t, want %+v, %t", got, ok, c.want, c.ok)
			}
		})
	}
}
