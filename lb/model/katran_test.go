// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

var (
	addr        = netip.MustParseAddr
	nextHopMAC  = [6]byte{2, 0, 0, 0, 0, 0xfe}
	balancerMAC = [6]byte{2, 0, 0, 0, 0, 1}
	routerMAC   = [6]byte{2, 0, 0, 0, 0, 2}
)

// tunnelTo is a tunnel as the packets below are written for.
func tunnelTo(t testing.TB, encap lb.Encap, checksum bool, dst string) lb.Tunnel {
	t.Helper()
	sources := lb.DefaultTunnelSources()
	sources.GUE4, sources.GUE6 = addr("192.0.2.1"), addr("2001:db8:ffff::1")
	sources.GUEPort, sources.GUEChecksum = 9886, checksum
	tunnel, err := sources.Tunnel(encap, addr(dst))
	if err != nil {
		t.Fatal(err)
	}
	return tunnel
}

// oneReal is a table set of one VIP and one real, number 1, which has all slots of Katran's ring
// or, if any are given, only those.
func oneReal(t testing.TB, vip string, tunnel lb.Tunnel, slots ...int) *model.Tables {
	t.Helper()
	v, err := lb.ParseVIP(vip)
	if err != nil {
		t.Fatal(err)
	}
	ring := make(model.Ring, lb.DefaultRingSize)
	for i := range ring {
		if len(slots) == 0 {
			ring[i] = lb.StableSlot(1)
		}
	}
	for _, slot := range slots {
		ring[slot] = lb.StableSlot(1)
	}
	return &model.Tables{
		VIPs: map[lb.VIP]model.VIP{v: {Ring: ring}},
		Reals: map[lb.RealID]lb.Real{1: {
			ID: 1, VIP: v, Backend: lb.Backend{Addr: tunnel.Destination, Weight: 1}, Tunnel: tunnel,
			NextHop: lb.NextHop{MAC: nextHopMAC, MTU: 1500},
		}},
	}
}

// packet is an IP packet of the family of src, with a traffic class worth copying.
func packet(src, dst string, payload frames.Payload) frames.Packet {
	if addr(src).Is6() {
		return frames.IPv6{TrafficClass: 0xb9, FlowLabel: 0x54321, HopLimit: 61, Src: addr(src), Dst: addr(dst), Payload: payload}
	}
	return frames.IPv4{
		TOS: 0xb9, TTL: 61, ID: 0x1234, Fragment: frames.DontFragment, Src: addr(src), Dst: addr(dst), Payload: payload,
	}
}

func frame(p frames.Packet) frames.Frame {
	return frames.Frame{Dst: balancerMAC, Src: routerMAC, Packet: p}
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKatranPackets compares with the bytes that Katran's program writes for the same packets.
func TestKatranPackets(t *testing.T) {
	const client4, client6 = "198.51.100.7", "2001:db8:1::7"
	cases := []struct {
		name            string
		client, vip     string
		slot            int
		encap           lb.Encap
		real, wantOuter string
	}{
		{
			name: "ipip, IPv4 to IPv4", client: client4, vip: "203.0.113.10:443/tcp", slot: 58221, encap: lb.IPIP, real: "10.0.0.3",
			wantOuter: "0200000000fe 020000000001 0800 45b9004100000000 40048f29 ac1034c4 0a000003",
		},
		{
			name: "ipip, IPv4 to IPv6", client: client4, vip: "203.0.113.11:443/tcp", slot: 58221, encap: lb.IPIP, real: "fc00::1",
			wantOuter: `0200000000fe 020000000001 86dd 6b900000 002d 04 40 010000000000000000000000 05636407
				fc000000000000000000000000000001`,
		},
		{
			name: "ipip, IPv6 to IPv6", client: client6, vip: "[2001:db8::10]:443/tcp", slot: 4136, encap: lb.IPIP, real: "fc00::2",
			wantOuter: `0200000000fe 020000000001 86dd 6b900000 0041 29 40 010000000000000000000000 c3500007
				fc000000000000000000000000000002`,
		},
		{
			name: "gue, IPv4 to IPv4", client: client4, vip: "203.0.113.10:443/tcp", slot: 58221, encap: lb.GUE, real: "10.0.0.3",
			wantOuter: "0200000000fe 020000000001 0800 45b9004900000000 4011ade7 c0000201 0a000003 34c4 269e 0035 3e83",
		},
		{
			name: "gue, IPv4 to IPv6", client: client4, vip: "203.0.113.11:443/tcp", slot: 58221, encap: lb.GUE, real: "fc00::1",
			wantOuter: `0200000000fe 020000000001 86dd 6b900000 0035 11 40 20010db8ffff00000000000000000001
				fc000000000000000000000000000001 a757 269e 0035 6e39`,
		},
		{
			name: "gue, IPv6 to IPv6", client: client6, vip: "[2001:db8::10]:443/tcp", slot: 4136, encap: lb.GUE, real: "fc00::2",
			wantOuter: `0200000000fe 020000000001 86dd 6b900000 0049 11 40 20010db8ffff00000000000000000001
				fc000000000000000000000000000002 c350 269e 0049 36c3`,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := oneReal(t, c.vip, tunnelTo(t, c.encap, true, c.real), c.slot)
			vip, _ := lb.ParseVIP(c.vip)
			segment := frames.TCP{
				SrcPort: 50000, DstPort: 443, Seq: 0x01020304, Ack: 0x0a0b0c0d, Flags: frames.PSH | frames.ACK, Window: 512,
				Data: []byte("hello"),
			}
			inner := packet(c.client, vip.Addr.String(), segment)
			res := process(t, tables, frame(inner).Bytes())
			want := append(fromHex(t, c.wantOuter), inner.Bytes()...)
			if res.Reason != lb.ReasonForwarded || res.Real != 1 || !bytes.Equal(res.Frame, want) {
				t.Errorf("%s, real %d\ngot  %x\nwant %x", res.Reason, res.Real, res.Frame, want)
			}
		})
	}
}

// TestKatranSlots has flows whose slots in Katran's ring are known; the real has that slot alone.
func TestKatranSlots(t *testing.T) {
	cases := []struct {
		name         string
		src, vip     string
		sport, dport uint16
		slot         int
	}{
		{"IPv4", "172.16.0.1", "203.0.113.10:80/tcp", 31337, 80, 43349},
		{"IPv4, all ports", "172.16.0.1", "203.0.113.10:0/tcp", 31337, 80, 24830},
		{"IPv4, source port 0", "172.16.0.1", "203.0.113.10:80/tcp", 0, 80, 10127},
		{"IPv4, no source at all", "0.0.0.0", "203.0.113.10:42/tcp", 42, 42, 46348},
		{"IPv4, another source", "192.168.1.1", "203.0.113.10:80/tcp", 31337, 80, 48717},
		{"IPv6", "fc00:2::1", "[2001:db8::10]:80/tcp", 31337, 80, 37505},
		{"IPv6, another source", "2001:db8:1::7", "[2001:db8::10]:443/tcp", 50000, 443, 4136},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := oneReal(t, c.vip, tunnelTo(t, lb.IPIP, false, "10.0.0.1"), c.slot)
			vip, _ := lb.ParseVIP(c.vip)
			f := frame(packet(c.src, vip.Addr.String(), frames.TCP{SrcPort: c.sport, DstPort: c.dport}))
			if res := process(t, tables, f.Bytes()); res.Reason != lb.ReasonForwarded {
				t.Errorf("%s: the flow is not in slot %d", res.Reason, c.slot)
			}
		})
	}
}
