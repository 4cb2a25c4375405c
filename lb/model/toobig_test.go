// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// narrow has VIPs of both families whose real is behind a link that takes 1000 bytes, by IPIP in IPv4.
func narrow(t testing.TB) *model.Tables {
	t.Helper()
	tables := bothFamilies(t)
	r := tables.Reals[1]
	r.NextHop.MTU = 1000
	tables.Reals[1] = r
	return tables
}

// long is a segment that makes a packet of so many bytes.
func long(v6 bool, length int) frames.Payload {
	headers := 40
	if v6 {
		headers = 60
	}
	return frames.TCP{SrcPort: 50000, DstPort: 443, Flags: frames.ACK, Data: make([]byte, length-headers)}
}

// TestTooBigIsTold compares with answers whose headers are written by hand.
func TestTooBigIsTold(t *testing.T) {
	cases := []struct {
		v6       bool
		headers  string // IP and ICMP, checksums 0
		quote    int
		frameLen int
	}{
		{false, "4500 0070 0000 0000 4001 0000 cb00710a c6336407  0304 0000 0000 03d4", 84, 126},
		{true, `60000000 0100 3a 40 20010db8000000000000000000000010 20010db8000100000000000000000007
			0200 0000 000003d4`, 248, 310},
	}
	for _, c := range cases {
		for _, dontFragment := range []bool{true, false} {
			in := frame(to(c.v6, long(c.v6, 981)))
			if p, ok := in.Packet.(frames.IPv4); ok && !dontFragment {
				p.Fragment = 0
				in.Packet = p
			}
			in.Trailer = []byte("trailer")
			res := process(t, narrow(t), in.Bytes())
			headers := fromHex(t, c.headers)
			message := slices.Concat(headers[len(headers)-8:], in.Packet.Bytes()[:c.quote])
			ip := headers[:len(headers)-8]
			if c.v6 {
				src, dst := ipAddrs(ip)
				binary.BigEndian.PutUint16(message[2:], frames.TransportChecksum(src, dst, 58, message))
			} else {
				binary.BigEndian.PutUint16(ip[10:], frames.Checksum(ip))
				binary.BigEndian.PutUint16(message[2:], frames.Checksum(message))
			}
			want := slices.Concat(routerMAC[:], balancerMAC[:], in.Bytes()[12:14], ip, message)
			if res.Reason != lb.ReasonTooBigTold || len(want) != c.frameLen || !bytes.Equal(res.Frame, want) {
				t.Errorf("%s\ngot  %x\nwant %x", res.Reason, res.Frame, want)
			}
		}
	}
}

// TestTooBigOrTold finds who is told.
func TestTooBigOrTold(t *testing.T) {
	tables := narrow(t)
	for name, vip := range tables.VIPs {
		vip.Options.Fragments = lb.FragmentsByClient
		tables.VIPs[name] = vip
	}
	narrower := func(mtu int, payload int, v6 bool) lb.Reason {
		tables := narrow(t)
		r := tables.Reals[1]
		r.NextHop.MTU = mtu
		tables.Reals[1] = r
		return process(t, tables, frame(to(v6, long(v6, payload))).Bytes()).Reason
	}
	spent := narrow(t)
	spent.AnswersSpent = true
	big := func(v6 bool) []byte { return frame(to(v6, long(v6, 1200))).Bytes() }
	aboutBig := func(v6 bool) []byte { return about(v6, sentBy(v6, long(v6, 1200)).Bytes()) }
	cases := []struct {
		name string
		got  lb.Reason
		want lb.Reason
	}{
		{"IPv4, fits", process(t, tables, frame(to(false, long(false, 980))).Bytes()).Reason, lb.ReasonForwarded},
		{"IPv4, one byte more", process(t, tables, frame(to(false, long(false, 981))).Bytes()).Reason, lb.ReasonTooBigTold},
		{"IPv6, fits", process(t, tables, frame(to(true, long(true, 980))).Bytes()).Reason, lb.ReasonForwarded},
		{"IPv6, one byte more", process(t, tables, frame(to(true, long(true, 981))).Bytes()).Reason, lb.ReasonTooBigTold},
		{"IPv4, a fragment", process(t, tables, fragmentOf(to(false, long(false, 1200)), 0, true)).Reason, lb.ReasonTooBig},
		{"IPv6, a fragment", process(t, tables, fragmentOf(to(true, long(true, 1200)), 0, true)).Reason, lb.ReasonTooBig},
		{"IPv4, an ICMP error", process(t, tables, aboutBig(false)).Reason, lb.ReasonTooBig},
		{"IPv6, an ICMP error", process(t, tables, aboutBig(true)).Reason, lb.ReasonTooBig},
		{"IPv4, no more answers", process(t, spent, big(false)).Reason, lb.ReasonTooBig},
		{"IPv6, no more answers", process(t, spent, big(true)).Reason, lb.ReasonTooBig},
		{"IPv4, as long as the quote", narrower(103, 84, false), lb.ReasonTooBigTold},
		{"IPv4, shorter than the quote", narrower(102, 83, false), lb.ReasonTooBig},
		{"IPv6, as long as the quote", narrower(267, 248, true), lb.ReasonTooBigTold},
		{"IPv6, shorter than the quote", narrower(266, 247, true), lb.ReasonTooBig},
		{"one byte fits", narrower(21, 984, false), lb.ReasonTooBigTold},
		{"nothing fits", narrower(20, 984, false), lb.ReasonTooBig},
		{"less than nothing fits", narrower(0, 984, false), lb.ReasonTooBig},
	}
	for _, c := range cases {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}

// TestEchoesBeyondTheRate are told apart from those that are not for a VIP.
func TestEchoesBeyondTheRate(t *testing.T) {
	tables := bothFamilies(t)
	tables.AnswersSpent = true
	for v6, request := range map[bool]uint8{false: frames.EchoRequest, true: frames.EchoRequest6} {
		if res := process(t, tables, frame(to(v6, frames.ICMP{Type: request})).Bytes()); res.Reason != lb.ReasonEchoLimited {
			t.Errorf("IPv6 %t: %s", v6, res.Reason)
		}
	}
	other := frame(packet(client4, "203.0.113.9", frames.ICMP{Type: frames.EchoRequest})).Bytes()
	if res := process(t, tables, other); res.Reason != lb.ReasonICMP {
		t.Errorf("another address: %s", res.Reason)
	}
}
