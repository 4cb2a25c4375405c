// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// TestPing needs no server: the balancer answers.
func TestPing(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.write(t, b.Servers, ipv4, "")
	b.startDaemon(t)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		for _, size := range []int{0, 56, 1400} {
			t.Run(fmt.Sprintf("%s, %d bytes", vip, size), func(t *testing.T) {
				before := b.answered(t)
				if err := b.Client.Ping(within(t), vip, size); err != nil {
					t.Fatal(err)
				}
				if after := b.answered(t); after != before+1 {
					t.Errorf("the count of answered pings went from %d to %d", before, after)
				}
			})
		}
	}
}

// answered is the balancer's count of answered pings.
func (b *bed) answered(t *testing.T) uint64 {
	t.Helper()
	s, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return s.Reasons["echo_answered"]
}
