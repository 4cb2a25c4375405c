// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestTopology(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options TopologyOptions
		vips    int
		size    uint32
		outer4  int // bytes in front of a packet to an IPv4 real
	}{
		{"plain", TopologyOptions{}, 11, 65537, 20},
		{"gue", TopologyOptions{GUE: true}, 11, 65537, 28},
		{"extra VIPs", TopologyOptions{ExtraVIPs: maxExtraVIPs}, 11 + maxExtraVIPs, 65537, 20},
		{"small rings", TopologyOptions{RingSize: SmallRing}, 11, 4093, 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			top, err := NewTopology(tc.options)
			if err != nil {
				t.Fatal(err)
			}
			if len(top.VIPs) != tc.vips {
				t.Errorf("%d VIPs, want %d", len(top.VIPs), tc.vips)
			}
			if got := top.Reals[0].Tunnel.OuterLen(); got != tc.outer4 {
				t.Errorf("outer headers of %d bytes, want %d", got, tc.outer4)
			}
			checkVIPs(t, top, tc.size)
			checkReals(t, top)
		})
	}
}

// checkVIPs checks that the VIPs differ and that the rings they name exist, full, of one family.
func checkVIPs(t *testing.T, top Topology, size uint32) {
	t.Helper()
	seen := map[lb.VIP]bool{}
	for _, e := range top.VIPs {
		if seen[e.VIP] {
			t.Errorf("VIP %s is there twice", e.VIP)
		}
		seen[e.VIP] = true
		if e.Ring.Size != size || len(top.Rings[e.RingID]) != int(size) {
			t.Fatalf("VIP %s: ring of %d slots, %d said, want %d", e.VIP, len(top.Rings[e.RingID]), e.Ring.Size, size)
		}
	}
	for id, ring := range top.Rings {
		owner, used := top.VIPs[id].VIP, map[lb.RealID]bool{}
		for _, s := range ring {
			used[s.Cur()] = true
		}
		if len(used) != realsByVIP {
			t.Errorf("ring %d has %d reals, want %d", id, len(used), realsByVIP)
		}
		for real := range used {
			if got := top.Reals[real-1].VIP; got != owner {
				t.Errorf("ring %d of %s names real %d of %s", id, owner, real, got)
			}
		}
	}
}

// One slot in 100, one in 10, and all of the VIPs for that move, and no others do.
func TestTopologyMoves(t *testing.T) {
	top, err := NewTopology(TopologyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"198.51.100.11": 656, "198.51.100.12": 6554, "198.51.100.13": 65537}
	for _, v := range top.VIPs {
		moving := 0
		for _, s := range top.Rings[v.RingID] {
			if s.State() == lb.SlotMoving {
				moving++
			}
		}
		if moving != want[v.VIP.Addr.String()] {
			t.Errorf("%s: %d slots move, want %d", v.VIP, moving, want[v.VIP.Addr.String()])
		}
	}
}

func checkReals(t *testing.T, top Topology) {
	t.Helper()
	for i, r := range top.Reals {
		if r.ID != lb.RealID(i+1) || !r.NextHop.Resolved() || r.Tunnel.Destination != r.Backend.Addr {
			t.Fatalf("real %d is %+v", i+1, r)
		}
	}
}

func TestTopologyOptionsRefused(t *testing.T) {
	for _, o := range []TopologyOptions{{ExtraVIPs: -1}, {ExtraVIPs: maxExtraVIPs + 1}, {RingSize: lb.MaxRingSize + 1}, {FlowTable: -1}, {GUE: true, Features: true}, {GUE: true, OptionVIPs: true}} {
		if _, err := NewTopology(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestRemoraTargetExpectsGUE(t *testing.T) {
	target, err := RemoraTarget(TopologyOptions{GUE: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Expectation{
		"tcp4-ack": {lb.TX, 28}, "tcp6": {lb.TX, 48}, "not-a-vip": {lb.Pass, 0}, "icmp-echo": {lb.TX, 0},
	} {
		if got := target.expect(caseNamed(t, name)); got != want {
			t.Errorf("%s: expects %s, want %s", name, got, want)
		}
	}
}
