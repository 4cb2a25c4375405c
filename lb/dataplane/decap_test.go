// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// The outer addresses of decapsulation's tests, by what becomes of their inner packets.
var decapDsts = map[string]lb.DecapAction{
	"192.0.2.1": lb.DecapBalance, "192.0.2.2": lb.DecapEgress, "192.0.2.3": lb.DecapHost, "192.0.2.4": lb.DecapNone,
	"2001:db8:ff::1": lb.DecapBalance, "2001:db8:ff::2": lb.DecapEgress, "2001:db8:ff::3": lb.DecapHost,
}

func decapBed(t *testing.T, others lb.DecapAction) *Dataplane {
	t.Helper()
	require.Root(t)
	cfg := Config{Flows: testFlows, Decap: lb.Decap{GUEPort: 6080, Others: others, Destinations: map[netip.Addr]lb.DecapAction{}}}
	for addr, action := range decapDsts {
		cfg.Decap.Destinations[netip.MustParseAddr(addr)] = action
	}
	d, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	fill(t, d, web())
	return d
}

// tunnelled is an inner packet on its way to dst, in IPIP or GUE.
func tunnelled(dst string, gue bool, inner frames.Packet, tags ...frames.Tag) []byte {
	to := netip.MustParseAddr(dst)
	src := netip.MustParseAddr("192.0.2.99")
	if to.Is6() {
		src = netip.MustParseAddr("2001:db8:ff::99")
	}
	payload := inner.(frames.Payload)
	if gue {
		payload = frames.UDP{SrcPort: 1, DstPort: 6080, Data: inner.Bytes()}
	}
	return frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 9}, Tags: tags, Packet: packetFrom(src, to, payload)}.Bytes()
}

// innerWith is a packet to web's VIP, or of IPv6, with a TTL.
func innerWith(v6 bool, ttl uint8) frames.Packet {
	if v6 {
		return frames.IPv6{HopLimit: ttl, Src: clientOf(true), Dst: vipOf(true), Payload: tcpOf(frames.ACK)}
	}
	return frames.IPv4{TTL: ttl, Src: netip.MustParseAddr("198.51.100.7"), Dst: netip.MustParseAddr("203.0.113.10"), Payload: tcpOf(frames.ACK)}
}

func TestDecap(t *testing.T) {
	d := decapBed(t, lb.DecapNone)
	tag := frames.Tag{EtherType: frames.EtherTypeTag, Control: 0x2064}
	for _, tt := range []struct {
		name string
		dst  string
		gue  bool
		v6   bool // the inner packet
		tags []frames.Tag
		want lb.Reason
	}{
		{"balance, IPIP", "192.0.2.1", false, false, nil, lb.ReasonForwarded},
		{"balance, GUE", "192.0.2.1", true, false, nil, lb.ReasonForwarded},
		{"balance, 4 in 6", "2001:db8:ff::1", false, false, nil, lb.ReasonForwarded},
		{"balance, no VIP", "192.0.2.1", false, true, nil, lb.ReasonNotVIP},
		{"egress, IPIP", "192.0.2.2", false, false, nil, lb.ReasonDecapSent},
		{"egress, 6 in 4", "192.0.2.2", false, true, []frames.Tag{tag}, lb.ReasonDecapSent},
		{"egress, GUE in 6", "2001:db8:ff::2", true, true, []frames.Tag{tag, tag}, lb.ReasonDecapSent},
		{"host, IPIP", "192.0.2.3", false, false, []frames.Tag{tag, tag}, lb.ReasonDecapsulated},
		{"host, GUE", "192.0.2.3", true, true, nil, lb.ReasonDecapsulated},
		{"host, 6 in 6", "2001:db8:ff::3", false, true, nil, lb.ReasonDecapsulated},
		{"none, IPIP", "192.0.2.4", false, false, nil, lb.ReasonOtherProtocol},
		{"none, GUE", "192.0.2.4", true, false, nil, lb.ReasonNotVIP},
		{"not listed, IPIP", "192.0.2.5", false, false, nil, lb.ReasonOtherProtocol},
		{"not listed, GUE", "192.0.2.5", true, false, nil, lb.ReasonNotVIP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := tunnelled(tt.dst, tt.gue, innerWith(tt.v6, 64), tt.tags...)
			out := wantEnd(t, d, "packet", in, tt.want)
			link := frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 9}, Tags: tt.tags, Packet: innerWith(tt.v6, 63)}
			if tt.want == lb.ReasonDecapSent {
				link.Dst, link.Src = link.Src, link.Dst
			}
			want := link.Bytes()
			switch tt.want {
			case lb.ReasonOtherProtocol:
				want = in
			case lb.ReasonNotVIP:
				if tt.dst != "192.0.2.1" {
					want = in
				}
			case lb.ReasonForwarded:
				out, want = out[34:], want[14:]
			}
			if !bytes.Equal(out, want) {
				t.Errorf("frame\n%x, want\n%x", out, want)
			}
		})
	}
	s, err := d.Snapshot()
	require.NoError(t, err)
	if s.Decapsulated4 != 5 || s.Decapsulated6 != 5 {
		t.Errorf("%d and %d decapsulated, want 5 and 5", s.Decapsulated4, s.Decapsulated6)
	}
}

func TestDecapRefusals(t *testing.T) {
	d := decapBed(t, lb.DecapHost)
	truncated := frames.Raw{Protocol: 4, Data: make([]byte, 19)}
	wrong := frames.Raw{Protocol: 4, Data: append([]byte{0x65}, make([]byte, 30)...)}
	gue := func(data ...byte) frames.Payload {
		return frames.UDP{SrcPort: 1, DstPort: 6080, Data: data}
	}
	src, dst := netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("192.0.2.200")
	to := func(p frames.Payload) []byte { return frameOf(packetFrom(src, dst, p)) }
	for _, tt := range []struct {
		name  string
		frame []byte
		want  lb.Reason
	}{
		{"others", tunnelled("192.0.2.200", false, innerWith(false, 64)), lb.ReasonDecapsulated},
		{"inner header cut", to(truncated), lb.ReasonTruncated},
		{"inner version", to(wrong), lb.ReasonMalformed},
		{"GUE, empty", to(gue()), lb.ReasonTruncated},
		{"GUE, version 5", to(gue(append([]byte{0x50}, make([]byte, 40)...)...)), lb.ReasonMalformed},
		{"GUE, IPv6 cut", to(gue(append([]byte{0x60}, make([]byte, 38)...)...)), lb.ReasonTruncated},
		{"TTL 1", tunnelled("192.0.2.1", false, innerWith(false, 1)), lb.ReasonTTLExpired},
		{"TTL 0", tunnelled("192.0.2.1", true, innerWith(false, 0)), lb.ReasonTTLExpired},
		{"hop limit 1", tunnelled("192.0.2.3", false, innerWith(true, 1)), lb.ReasonTTLExpired},
		{"TTL 2", tunnelled("192.0.2.3", false, innerWith(false, 2)), lb.ReasonDecapsulated},
		{"a fragment", frameOf(frames.IPv4{TTL: 64, Fragment: frames.MoreFragments, Src: src, Dst: dst, Payload: innerWith(false, 64).(frames.Payload)}), lb.ReasonNotVIP},
		{"GUE to another port", to(frames.UDP{SrcPort: 1, DstPort: 6081, Data: innerWith(false, 64).Bytes()}), lb.ReasonNotVIP},
		{"within another tunnel", tunnelled("192.0.2.1", false, packetFrom(src, dst, innerWith(false, 64).(frames.Payload))), lb.ReasonOtherProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) { wantEnd(t, d, "packet", tt.frame, tt.want) })
	}
}
