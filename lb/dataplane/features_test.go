// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// wantFeatures compares what the attached program does beside what each packet needs.
func (l *lab) wantFeatures(names ...string) {
	l.Helper()
	wantEqual(l.T, "features", l.snapshot().Features, names)
}

// Features are switched on under traffic, by whichever verb needs them, and stay; a fresh start has those
// that are still needed.
func TestFeaturesSwitch(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	id := linkID(t, d)
	l.wantFeatures()
	l.wantForwarding("lb0")

	require.NoError(t, d.Reserve(engine.Capacity{Options: true}))
	l.wantFeatures("options")
	l.wantForwarding("lb0")

	vip := web().entry(t)
	vip.Options.Hash.NoSourcePort = true
	require.NoError(t, d.SetVIPs([]lb.VIPEntry{vip}))
	prefix := web().entry(t)
	prefix.VIP, prefix.RingID = testVIP(t, "192.0.2.0/24:443/tcp"), 5
	_, err := d.SetRing(5, web().slots(t))
	require.NoError(t, err)
	require.NoError(t, d.SetVIPs([]lb.VIPEntry{vip, prefix}))
	l.wantFeatures("options", "prefixes")
	want := web().slots(t)[slotOf(netip.MustParseAddrPort("198.51.100.7:0"), 443, lb.DefaultRingSize)].Cur()
	wantReal(t, l.program("lb0"), tcpFrame(client, webTarget), web().backends[want-1])
	inPrefix := web().slots(t)[slotOf(netip.MustParseAddrPort(client), 0, lb.DefaultRingSize)].Cur()
	wantReal(t, l.program("lb0"), tcpFrame(client, "192.0.2.77:443"), web().backends[inPrefix-1])

	require.NoError(t, d.SetVIPs([]lb.VIPEntry{web().entry(t)}))
	l.wantForwarding("lb0")
	l.wantFeatures("options", "prefixes")
	if linkID(t, d) != id {
		t.Error("the attachment was cycled")
	}
	require.NoError(t, d.Close())
	l.open("lb0", attach.Auto)
	l.wantFeatures()
	l.wantForwarding("lb0")
}

// A restart keeps what VIPs and reals are, targets and routes, and does what is configured now.
func TestRestartWithOptions(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	s := web()
	vips := []lb.VIPEntry{s.entry(t), s.entry(t)}
	vips[0].Options = lb.Options{TCPIDs: true, SourceRoutes: true, Fragments: lb.FragmentsPass}
	vips[1].VIP, vips[1].RingID, vips[1].Options = testVIP(t, "[2001:db8::/48]:0/udp"), 5, lb.Options{UDPIDs: true}
	_, err := d.SetRing(5, s.slots(t))
	require.NoError(t, err)
	local := testReal(t, 9, "[2001:db8::/48]:0/udp", lb.IPIP, "10.0.0.9")
	local.Tunnel, local.Backend.Local, local.NextHop = lb.Tunnel{Encap: lb.Local, Destination: local.Backend.Addr}, true, lb.NextHop{}
	require.NoError(t, d.SetReals([]lb.Real{local}))
	require.NoError(t, d.SetTargets([]lb.ServerTarget{{Ring: 0, ServerID: 5, Real: 1}}, nil))
	require.NoError(t, d.SetSourceRoutes([]lb.SourceRoute{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Backend: bedAddr(1)}}))
	require.NoError(t, d.SetVIPs(vips))
	reals, _ := d.Adopted()
	targets, routes := targetsIn(t, d), routesIn(t, d)
	require.NoError(t, d.Close())

	cfg := l.config("lb0", attach.Auto)
	cfg.Decap = lb.Decap{Others: lb.DecapHost}
	d, err = Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	gotReals, gotVIPs := d.Adopted()
	wantEqual(t, "reals", gotReals, reals)
	wantEqual(t, "VIPs", gotVIPs, vips)
	wantEqual(t, "targets", targetsIn(t, d), targets)
	if got := routesIn(t, d); len(got) != 1 || got[0] != routes[0] {
		t.Errorf("routes %v, want %v", got, routes)
	}
	l.wantFeatures("options", "prefixes", "decap")
	if n := l.snapshot().SourceRoutes; n != 1 {
		t.Errorf("the snapshot has %d source routes, want 1", n)
	}
	frame := tunnelled("192.0.2.200", false, innerWith(false, 64))
	if verdict, out := send(t, l.program("lb0"), frame); verdict != lb.Pass || len(out) != len(frame)-20 {
		t.Errorf("verdict %v, %d bytes; want a decapsulated packet to be passed", verdict, len(out))
	}
	led := tcpOf(frames.ACK)
	led.Options = unhex("b706 05000000")
	wantReal(t, l.program("lb0"), frameOf(toVIP(false, led)), "10.0.0.1")
}
