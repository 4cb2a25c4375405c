// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

const (
	host4, egress4, balance4, none4 = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"
	host6, egress6, balance6, none6 = "2001:db8:dec::1", "2001:db8:dec::2", "2001:db8:dec::3", "2001:db8:dec::4"
	guePort                         = 6080
)

// decapsulating has VIPs of both families and tunnels that end here.
func decapsulating(t testing.TB) *model.Tables {
	t.Helper()
	tables := bothFamilies(t)
	tables.Decap = lb.Decap{GUEPort: guePort, Others: lb.DecapEgress, Destinations: map[netip.Addr]lb.DecapAction{
		addr(host4): lb.DecapHost, addr(egress4): lb.DecapEgress, addr(balance4): lb.DecapBalance, addr(none4): lb.DecapNone,
		addr(host6): lb.DecapHost, addr(egress6): lb.DecapEgress, addr(balance6): lb.DecapBalance, addr(none6): lb.DecapNone,
	}}
	return tables
}

// by is a packet in a packet to dst, by IPIP or GUE.
func by(tunnel lb.Encap, dst string, inner frames.Packet) frames.Packet {
	src := client4
	if addr(dst).Is6() {
		src = client6
	}
	if tunnel == lb.GUE {
		return packet(src, dst, frames.UDP{SrcPort: 4, DstPort: guePort, Data: inner.Bytes()})
	}
	protocol := map[byte]uint8{4: 4, 6: 41}[inner.Bytes()[0]>>4]
	return packet(src, dst, frames.Raw{Protocol: protocol, Data: inner.Bytes()})
}

// oneHopOn is the packet as it is behind one more router.
func oneHopOn(p frames.Packet) frames.Packet {
	switch p := p.(type) {
	case frames.IPv4:
		p.TTL--
		return p
	case frames.IPv6:
		p.HopLimit--
		return p
	}
	return p
}

// TestDecapsulation compares whole frames, with tags and a trailer, of each pair of families.
func TestDecapsulation(t *testing.T) {
	tables := decapsulating(t)
	cases := []struct {
		dst4, dst6 string
		want       lb.Reason
	}{
		{host4, host6, lb.ReasonDecapsulated}, {egress4, egress6, lb.ReasonDecapSent}, {balance4, balance6, lb.ReasonForwarded},
		{"192.0.2.77", "2001:db8:dec::77", lb.ReasonDecapSent},
	}
	for _, c := range cases {
		for n := range 8 {
			tunnel, v6, dst := []lb.Encap{lb.IPIP, lb.GUE}[n%2], n&2 != 0, c.dst4
			if n&4 != 0 {
				dst = c.dst6
			}
			inner := to(v6, tcp)
			in := frame(by(tunnel, dst, inner))
			in.Tags, in.Trailer = []frames.Tag{{EtherType: frames.EtherTypeTag, Control: 7}}, []byte("trailer")
			res := process(t, tables, in.Bytes())

			want := in
			want.Packet = oneHopOn(inner)
			if res.Decapsulated != map[bool]int{false: 4, true: 6}[v6] || res.Reason != c.want {
				t.Fatalf("%s to %s: %s, decapsulated %d", tunnel, dst, res.Reason, res.Decapsulated)
			}
			switch c.want {
			case lb.ReasonForwarded:
				plain := process(t, tables, want.Bytes())
				if res.Real != plain.Real || res.Bytes != plain.Bytes || !bytes.Equal(res.Frame, plain.Frame) {
					t.Errorf("%s to %s: the inner packet is not forwarded as it would be alone", tunnel, dst)
				}
				continue
			case lb.ReasonDecapSent:
				want.Dst, want.Src = in.Src, in.Dst
			}
			if !bytes.Equal(res.Frame, want.Bytes()) {
				t.Errorf("%s to %s\ngot  %x\nwant %x", tunnel, dst, res.Frame, want.Bytes())
			}
		}
	}
}

// TestWhatIsDecapsulated goes through all that ends otherwise.
func TestWhatIsDecapsulated(t *testing.T) {
	inner := to(false, tcp)
	cut := func(n int) frames.Packet { return frames.Raw{Data: inner.Bytes()[:n]} }
	ttl := func(n uint8) frames.Packet {
		p := to(false, tcp).(frames.IPv4)
		p.TTL = n
		return p
	}
	hops := func(n uint8) frames.Packet {
		p := to(true, tcp).(frames.IPv6)
		p.HopLimit = n
		return p
	}
	ipip := func(protocol uint8, b []byte) frames.Packet {
		return packet(client4, host4, frames.Raw{Protocol: protocol, Data: b})
	}
	gue := func(b []byte) frames.Packet {
		return packet(client4, host4, frames.UDP{DstPort: guePort, Data: b})
	}
	options := by(lb.IPIP, host4, inner).(frames.IPv4)
	options.Options = []byte{1, 1, 1, 1}
	extended := by(lb.GUE, host6, inner).(frames.IPv6)
	extended.Extensions = []frames.Extension{frames.HopByHop(0)}
	nested := by(lb.IPIP, balance4, by(lb.IPIP, host4, inner))
	toVIP := packet(client4, vip4, frames.UDP{DstPort: guePort, Data: inner.Bytes()})
	runReasons(t, decapsulating(t), []reasonCase{
		{"no action", frame(by(lb.IPIP, none4, inner)).Bytes(), lb.ReasonOtherProtocol},
		{"no action, GUE", frame(by(lb.GUE, none6, inner)).Bytes(), lb.ReasonNotVIP},
		{"GUE by another port", frame(packet(client4, host4, frames.UDP{DstPort: guePort + 1, Data: inner.Bytes()})).Bytes(), lb.ReasonNotVIP},
		{"GUE by TCP", frame(packet(client4, host4, frames.TCP{DstPort: guePort, Data: inner.Bytes()})).Bytes(), lb.ReasonNotVIP},
		{"GUE to a VIP", frame(toVIP).Bytes(), lb.ReasonForwarded},
		{"another protocol", frame(ipip(47, inner.Bytes())).Bytes(), lb.ReasonOtherProtocol},
		{"options", frame(options).Bytes(), lb.ReasonDecapsulated},
		{"extension headers", frame(extended).Bytes(), lb.ReasonDecapsulated},
		{"a fragment of IPIP", fragmentOf(by(lb.IPIP, host4, inner), 0, true), lb.ReasonNotVIP},
		{"a fragment of GUE", fragmentOf(by(lb.GUE, host4, inner), 0, true), lb.ReasonNotVIP},
		{"TTL 0", frame(by(lb.IPIP, host4, ttl(0))).Bytes(), lb.ReasonTTLExpired},
		{"TTL 1", frame(by(lb.IPIP, host4, ttl(1))).Bytes(), lb.ReasonTTLExpired},
		{"TTL 2", frame(by(lb.IPIP, host4, ttl(2))).Bytes(), lb.ReasonDecapsulated},
		{"hop limit 1", frame(by(lb.GUE, host6, hops(1))).Bytes(), lb.ReasonTTLExpired},
		{"hop limit 2", frame(by(lb.GUE, host6, hops(2))).Bytes(), lb.ReasonDecapsulated},
		{"IPv4 said to be IPv6", frame(ipip(41, inner.Bytes())).Bytes(), lb.ReasonMalformed},
		{"IPv6 said to be IPv4", frame(ipip(4, to(true, tcp).Bytes())).Bytes(), lb.ReasonMalformed},
		{"19 bytes", frame(by(lb.IPIP, host4, cut(19))).Bytes(), lb.ReasonTruncated},
		{"20 bytes", frame(by(lb.IPIP, host4, cut(20))).Bytes(), lb.ReasonDecapsulated},
		{"39 bytes of IPv6", frame(ipip(41, to(true, tcp).Bytes()[:39])).Bytes(), lb.ReasonTruncated},
		{"GUE, nothing", frame(gue(nil)).Bytes(), lb.ReasonTruncated},
		{"GUE, 19 bytes", frame(gue(inner.Bytes()[:19])).Bytes(), lb.ReasonTruncated},
		{"GUE, version 5", frame(gue([]byte{0x55})).Bytes(), lb.ReasonMalformed},
		{"twice", frame(nested).Bytes(), lb.ReasonOtherProtocol},
		{"balance, a fragment", frame(by(lb.IPIP, balance4, frames.Raw{Data: fragmentOf(to(false, tcp), 0, true)[14:]})).Bytes(), lb.ReasonFragment},
		{"balance, an ICMP error", frame(by(lb.IPIP, balance4, frames.Raw{Data: tcpError[14:]})).Bytes(), lb.ReasonForwarded},
	})
	off := decapsulating(t)
	off.Decap = lb.Decap{}
	if res := process(t, off, frame(by(lb.IPIP, host4, inner)).Bytes()); res.Reason != lb.ReasonOtherProtocol || res.Decapsulated != 0 {
		t.Errorf("not configured: %s", res.Reason)
	}
}

// TestChecksumOfDecapsulated: the adjusted checksum is as right or wrong as it was, for all that carry.
func TestChecksumOfDecapsulated(t *testing.T) {
	tables := decapsulating(t)
	inner := to(false, tcp).Bytes()
	for n := range 1 << 16 {
		if high := n >> 8; n&0xff != 0 && n&0xff != 0xff && high != 0 && high < 0xfd {
			continue
		}
		binary.BigEndian.PutUint16(inner[10:], uint16(n))
		before := frames.Checksum(inner[:20])
		out := process(t, tables, frame(by(lb.IPIP, host4, frames.Raw{Data: inner})).Bytes()).Frame[14:34]
		if after := frames.Checksum(out); before%0xffff != after%0xffff {
			t.Errorf("checksum %04x: off by %#x, and %#x afterwards", n, before, after)
		}
	}
}
