// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/require"
)

// TestSelfTest runs the packets of all kinds of VIPs through a program: they pass where tables are
// right, fail where they are not, and leave nothing in the flow table, whatever the slots are.
func TestSelfTest(t *testing.T) {
	require.Root(t)
	none := lb.Options{}
	for _, tc := range []struct {
		vip     string
		mode    lb.FlowMode
		options lb.Options
	}{
		{"192.0.2.10:80/tcp", lb.FlowTransitions, none}, {"192.0.2.10:0/tcp", lb.FlowAlways, none}, {"[2001:db8:ff::10]:80/tcp", lb.FlowAlways, none},
		{"192.0.2.10:53/udp", lb.FlowNever, none}, {"192.0.2.10:53/udp", lb.FlowAlways, none}, {"[2001:db8:ff::10]:443/udp", lb.FlowQUIC, none},
		{"192.0.2.0/24:80/tcp", lb.FlowTransitions, none}, {"[2001:db8:ff::/64]:0/udp", lb.FlowAlways, none},
		{"192.0.2.10:53/udp", lb.FlowNever, lb.Options{Fragments: lb.FragmentsByClient}},
		{"192.0.2.10:80/tcp", lb.FlowAlways, lb.Options{TCPIDs: true, Hash: lb.HashInput{NoSourcePort: true}}},
	} {
		for _, backend := range []string{"10.20.0.11", "2001:db8:20::11"} {
			t.Run(fmt.Sprintf("%s %s %s by way of %s", tc.vip, tc.mode, tc.options.Names(), backend), func(t *testing.T) {
				checkSelfTest(t, mustVIP(t, tc.vip), tc.mode, tc.options, netip.MustParseAddr(backend))
			})
		}
	}
}

func checkSelfTest(t *testing.T, vip lb.VIP, mode lb.FlowMode, options lb.Options, backend netip.Addr) {
	t.Helper()
	d, err := dataplane.Open(dataplane.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	tunnel, err := lb.DefaultTunnelSources().Tunnel(lb.IPIP, backend)
	require.NoError(t, err)
	real := lb.Real{ID: 1, VIP: vip, Backend: lb.Backend{Addr: backend, Weight: 1}, Tunnel: tunnel,
		NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 9}, MTU: 1500}}
	entry := lb.VIPEntry{VIP: vip, RingID: 1, Ring: lb.Ring{Size: 7}, Flows: mode, Options: options}
	require.NoError(t, d.Reserve(engine.Capacity{VIPs4: 1, VIPs6: 1, Reals: 1, RingSlots: 7}))
	require.NoError(t, d.SetReals([]lb.Real{real}))
	status := engine.VIPStatus{VIPEntry: entry, Reals: []engine.RealStatus{{Real: real, Slots: 7}}}
	ports := map[lb.VIP]bool{vip: true}
	for name, slot := range map[string]lb.Slot{"stable": lb.StableSlot(1), "settling": lb.SettlingSlot(1)} {
		if mode == lb.FlowNever && !slot.Stable() {
			continue // there are none
		}
		slots := []lb.Slot{slot, slot, slot, slot, slot, slot, slot}
		_, err := d.SetRing(1, slots)
		require.NoError(t, err)
		require.NoError(t, d.SetVIPs([]lb.VIPEntry{entry}))
		if err := selfTest(d.Program(), status, ports); err != nil {
			t.Errorf("%s slots: %v", name, err)
		}
		snap, err := d.Snapshot()
		require.NoError(t, err)
		if snap.Flows != 0 {
			t.Errorf("%s slots: %d flows are remembered", name, snap.Flows)
		}
	}
	other := status
	other.Reals = []engine.RealStatus{status.Reals[0]}
	other.Reals[0].NextHop.MAC[5]++
	require.ErrorSays(t, selfTest(d.Program(), other, ports), "that no real of")
	require.NoError(t, d.SetVIPs(nil))
	require.ErrorSays(t, selfTest(d.Program(), status, ports), "was not sent")
}
