// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// TestTwoBalancersAgree moves all packets from one balancer to another with the same
// configuration; the connections stay with their servers.
func TestTwoBalancersAgree(t *testing.T) {
	b := newBed(t, rig.Config{Balancers: 2})
	b.start(t)
	command := newBalancer(t, b.Lab, b.Balancers[1]).remora.Run(b.config, "--once")
	if _, err := b.Balancers[1].Run(within(t), command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
	conns := b.connections(t, b.Servers...) // the router spreads them over both
	for _, lb := range b.Balancers {
		if err := b.RouteVIPs(lb); err != nil {
			t.Fatal(err)
		}
		before, err := lb.Counters(rig.BalancerInterface)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range conns {
			c.assertStays(t)
		}
		after, err := lb.Counters(rig.BalancerInterface)
		if err != nil {
			t.Fatal(err)
		}
		if after.RxPackets-before.RxPackets < uint64(len(conns)) {
			t.Errorf("%s received %d packets of %d connections", lb.Name, after.RxPackets-before.RxPackets, len(conns))
		}
	}
}
