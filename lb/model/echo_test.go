// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
)

func TestEchoOrNot(t *testing.T) {
	ping4 := frames.ICMP{Type: frames.EchoRequest, Rest: 0x00010002, Data: []byte("ping")}
	ping6 := frames.ICMP{Type: frames.EchoRequest6, Rest: 0x00010002, Data: []byte("ping")}
	message := func(v6 bool, icmpType uint8) []byte { return frame(to(v6, frames.ICMP{Type: icmpType})).Bytes() }
	raw := func(v6 bool, n int) []byte {
		b := []byte{8, 0, 0, 0, 0, 0, 0, 0}
		protocol := uint8(1)
		if v6 {
			b[0], protocol = 128, 58
		}
		return frame(to(v6, frames.Raw{Protocol: protocol, Data: b[:n]})).Bytes()
	}
	withOptions := to(false, ping4).(frames.IPv4)
	withOptions.Options = []byte{1}
	runReasons(t, bothFamilies(t), []reasonCase{
		{"IPv4", frame(to(false, ping4)).Bytes(), lb.ReasonEchoAnswered},
		{"IPv6", frame(to(true, ping6)).Bytes(), lb.ReasonEchoAnswered},
		{"IPv4, a code", frame(to(false, frames.ICMP{Type: 8, Code: 200})).Bytes(), lb.ReasonEchoAnswered},
		{"IPv4, another address", frame(packet(client4, "203.0.113.9", ping4)).Bytes(), lb.ReasonICMP},
		{"IPv6, another address", frame(packet(client6, "2001:db8::9", ping6)).Bytes(), lb.ReasonICMP},
		{"IPv4, options", frame(withOptions).Bytes(), lb.ReasonICMP},
		{"IPv6, extension header", v6(ping6, frames.DestinationOptions(0)), lb.ReasonICMP},
		{"IPv6, atomic fragment", v6(ping6, frames.FragmentHeader(0, 1)), lb.ReasonICMP},
		{"IPv4, reply", message(false, frames.EchoReply), lb.ReasonICMP},
		{"IPv6, reply", message(true, frames.EchoReply6), lb.ReasonICMP},
		{"IPv4, type 128", message(false, 128), lb.ReasonICMP},
		{"IPv6, type 8", message(true, 8), lb.ReasonICMP},
		{"IPv4, unreachable", message(false, frames.Unreachable), lb.ReasonICMP},
		{"IPv6, too big", message(true, frames.TooBig6), lb.ReasonICMP},
		{"IPv4, 7 bytes", raw(false, 7), lb.ReasonTruncated},
		{"IPv4, 8 bytes", raw(false, 8), lb.ReasonEchoAnswered},
		{"IPv4, nothing", raw(false, 0), lb.ReasonTruncated},
		{"IPv6, 7 bytes", raw(true, 7), lb.ReasonTruncated},
		{"IPv6, 8 bytes", raw(true, 8), lb.ReasonEchoAnswered},
		{"IPv4, 7 bytes, another address", func() []byte {
			p := to(false, frames.Raw{Protocol: 1, Data: make([]byte, 7)}).(frames.IPv4)
			p.Dst = addr("203.0.113.9")
			return frame(p).Bytes()
		}(), lb.ReasonTruncated},
	})
}

// TestOnlyHostsAreAnswered has senders that stand for more than one host, or none, and frames to all.
func TestOnlyHostsAreAnswered(t *testing.T) {
	ping := func(at int, value byte) []byte {
		b := frame(to(false, frames.ICMP{Type: frames.EchoRequest})).Bytes()
		b[at] = value
		return b
	}
	const mac, source = 0, 26 // first bytes, in the frame
	runReasons(t, bothFamilies(t), []reasonCase{
		{"a host", ping(source, 198), lb.ReasonEchoAnswered},
		{"this network", ping(source, 0), lb.ReasonICMP},
		{"multicast", ping(source, 224), lb.ReasonICMP},
		{"broadcast", ping(source, 255), lb.ReasonICMP},
		{"frame to all hosts", ping(mac, 0xff), lb.ReasonICMP},
		{"frame to one host", ping(mac, 0x04), lb.ReasonEchoAnswered},
	})
}

// TestEchoAnswer compares with an answer that is built from nothing, checksums included.
func TestEchoAnswer(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		request, reply, src, dst := uint8(8), uint8(0), client4, vip4
		if v6 {
			request, reply, src, dst = 128, 129, client6, vip6
		}
		tables := bothFamilies(t)
		for rest := uint32(0); rest < 1<<16; rest += 13 { // checksums of all sizes
			message := frames.ICMP{Type: request, Code: uint8(rest % 3), Rest: 0x00010000 | rest, Data: []byte("odd")}
			in := frame(packet(src, dst, message))
			in.Tags = []frames.Tag{{EtherType: frames.EtherTypeTag, Control: 7}}
			in.MinLen = 70

			message.Type = reply
			want := in
			want.Dst, want.Src = in.Src, in.Dst
			want.Packet = packet(dst, src, message)
			wantBytes := want.Bytes()
			ttlAt := 18 + 7
			if !v6 {
				ttlAt = 18 + 8
				header := wantBytes[18:38]
				header[8], header[10], header[11] = 64, 0, 0
				binary.BigEndian.PutUint16(header[10:], frames.Checksum(header))
			}
			wantBytes[ttlAt] = 64

			res := process(t, tables, in.Bytes())
			if res.Reason != lb.ReasonEchoAnswered || !bytes.Equal(res.Frame, wantBytes) {
				t.Fatalf("%s, IPv6 %t, %#x\ngot  %x\nwant %x", res.Reason, v6, rest, res.Frame, wantBytes)
			}
		}
	}
}

// TestEchoKeepsWrongChecksumWrong has one message with checksums around all that carry: each is
// as wrong in the answer as it was.
func TestEchoKeepsWrongChecksumWrong(t *testing.T) {
	tables := bothFamilies(t)
	for v6, request := range map[bool]uint8{false: frames.EchoRequest, true: frames.EchoRequest6} {
		at := 14 + 20 // the message
		if v6 {
			at = 14 + 40
		}
		off := func(b []byte) uint16 {
			if src, dst := ipAddrs(b[14:]); v6 {
				return frames.TransportChecksum(src, dst, 58, b[at:])
			}
			return frames.Checksum(b[at:])
		}
		b := frame(to(v6, frames.ICMP{Type: request, Rest: 1, Data: []byte("data")})).Bytes()
		for high := range 256 {
			for _, low := range []byte{0xfe, 0xff, 0x00, 0x01} {
				b[at+2], b[at+3] = byte(high), low
				before, after := off(b), off(process(t, tables, b).Frame)
				if before != after {
					t.Errorf("IPv6 %t, checksum %02x%02x: off by %#x, and %#x in the answer", v6, high, low, before, after)
				}
			}
		}
	}
}
