// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// workedServices are balanced over three reals each, by Katran's numbers.
func workedServices(encap lb.Encap) []service {
	v4, v6 := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}, []string{"fc00::1", "fc00::2", "fc00::3"}
	const n = lb.DefaultRingSize
	return []service{
		{vip: "203.0.113.10:443/tcp", ring: 0, size: n, encap: encap, firstID: 1, backends: v4},
		{vip: "203.0.113.11:443/tcp", ring: 1, size: n, encap: encap, firstID: 4, backends: v6},
		{vip: "[2001:db8::10]:443/tcp", ring: 2, size: n, encap: encap, firstID: 7, backends: v6},
	}
}

// Katran's program writes the same bytes for the same flows, reals and addresses.
func TestWorkedPackets(t *testing.T) {
	const (
		client4, client6 = "198.51.100.7:50000", "[2001:db8:1::7]:50000"
		link             = "0200000000fe 020000000001"
		fc001, fc002     = "fc000000000000000000000000000001", "fc000000000000000000000000000002"
		gueSource        = "20010db8ffff00000000000000000001"
	)
	for _, tt := range []struct {
		name, src, dst string
		encap          lb.Encap
		real           lb.RealID
		bytes          uint64
		want           string
	}{
		{"4 in IPv4", client4, "203.0.113.10:443", lb.IPIP, 3, 45,
			link + "0800 45b9004100000000 40048f29 ac1034c4 0a000003"},
		{"4 in IPv6", client4, "203.0.113.11:443", lb.IPIP, 4, 45,
			link + "86dd 6b900000 002d 04 40 010000000000000000000000 05636407" + fc001},
		{"6 in IPv6", client6, "[2001:db8::10]:443", lb.IPIP, 8, 65,
			link + "86dd 6b900000 0041 29 40 010000000000000000000000 c3500007" + fc002},
		{"GUE in IPv4", client4, "203.0.113.10:443", lb.GUE, 3, 45,
			link + "0800 45b9004900000000 4011ade7 c0000201 0a000003 34c4 269e 0035 3e83"},
		{"GUE in IPv6", client4, "203.0.113.11:443", lb.GUE, 4, 45,
			link + "86dd 6b900000 0035 11 40" + gueSource + fc001 + "a757 269e 0035 6e39"},
		{"GUE in IPv6, IPv6 client", client6, "[2001:db8::10]:443", lb.GUE, 8, 65,
			link + "86dd 6b900000 0049 11 40" + gueSource + fc002 + "c350 269e 0049 36c3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := testOpen(t)
			fill(t, d, workedServices(tt.encap)...)
			in := tcpFrame(tt.src, tt.dst)
			verdict, out := send(t, d.Program(), in)
			if want := append(unhex(tt.want), in[14:]...); verdict != lb.TX || !bytes.Equal(out, want) {
				t.Errorf("verdict %v, frame\n%x, want tx\n%x", verdict, out, want)
			}
			wantCounts(t, d, counts{
				Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: 1},
				Reals:   map[lb.RealID]Counter{tt.real: {1, tt.bytes}},
			})
		})
	}
}

// One frame for every reason but one: the program and lb.Reason give the same verdict. A frame
// without room for the outer headers cannot be had in a test run.
func TestVerdicts(t *testing.T) {
	good := tcpFrame("198.51.100.7:50000", "203.0.113.10:443")
	changed := func(at int, b ...byte) []byte {
		frame := bytes.Clone(good)
		copy(frame[at:], b)
		return frame
	}
	echo := append(changed(14+9, 1)[:34], 8, 0, 0xf7, 0xff, 0, 0, 0, 0)
	copy(echo[16:], []byte{0, 28})
	routed := tcpFrame("[2001:db8:1::7]:50000", "[2001:db8::10]:443")
	routed[14+6] = 43
	copy(routed[54:], []byte{6, 0, 0, 1}) // one segment left
	for _, tt := range []struct {
		reason lb.Reason
		frame  []byte
	}{
		{lb.ReasonForwarded, good},
		{lb.ReasonTruncated, good[:40]},
		{lb.ReasonMalformed, changed(14, 0x44)},
		{lb.ReasonFragment, changed(14+6, 0x20)},
		{lb.ReasonRingEmpty, tcpFrame("198.51.100.7:50000", "203.0.113.20:443")},
		{lb.ReasonRealUnknown, tcpFrame("198.51.100.7:50000", "203.0.113.21:443")},
		{lb.ReasonNextHopUnknown, tcpFrame("198.51.100.7:50000", "203.0.113.22:443")},
		{lb.ReasonTooBig, tcpFrame("198.51.100.7:50000", "203.0.113.23:443")},
		{lb.ReasonNotIP, changed(12, 8, 6)},
		{lb.ReasonNotVIP, tcpFrame("198.51.100.7:50000", "203.0.113.10:444")},
		{lb.ReasonOtherProtocol, changed(14+9, 47)},
		{lb.ReasonICMP, changed(14+9, 1)},
		{lb.ReasonIPv6Extension, routed},
		{lb.ReasonEchoAnswered, echo},
	} {
		t.Run(tt.reason.String(), func(t *testing.T) {
			d := testOpen(t)
			fillRefusals(t, d)
			if verdict, _ := send(t, d.Program(), tt.frame); verdict != tt.reason.Verdict() {
				t.Errorf("verdict %v, want %v", verdict, tt.reason.Verdict())
			}
			s, err := d.Snapshot()
			require.NoError(t, err)
			wantEqual(t, "reasons", countsOf(s).Reasons, map[lb.Reason]uint64{tt.reason: 1})
		})
	}
}

// fillRefusals sets web and, beside it, VIPs whose packets end at their ring or real.
func fillRefusals(t *testing.T, d *Dataplane) {
	t.Helper()
	one := func(vip string, ring lb.RingID, id lb.RealID) service {
		return service{vip: vip, ring: ring, size: 7, firstID: id, backends: []string{"10.0.0.9"}}
	}
	empty := service{vip: "203.0.113.20:443/tcp", ring: 1, size: 7}
	unknown := one("203.0.113.21:443/tcp", 2, 21)
	silent := one("203.0.113.22:443/tcp", 3, 22)
	narrow := one("203.0.113.23:443/tcp", 4, 23)
	fill(t, d, web(), empty, unknown, silent, narrow)
	require.NoError(t, d.DeleteReals([]lb.RealID{21}))
	reals := append(silent.reals(t), narrow.reals(t)...)
	reals[0].NextHop = lb.NextHop{Problem: "no answer"}
	reals[1].NextHop.MTU = 64
	require.NoError(t, d.SetReals(reals))
}
