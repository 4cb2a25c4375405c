// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

// TestHealthTarget: a backend that is this machine is asked directly; a VIP of a prefix at its first host.
func TestHealthTarget(t *testing.T) {
	backend := netip.MustParseAddr("10.0.0.1")
	for _, tc := range []struct {
		name, vip string
		encap     lb.Encap
		direct    bool
		want      string
		marked    bool
	}{
		{"tunnel", "192.0.2.10:80/tcp", lb.IPIP, false, "192.0.2.10:80", true},
		{"tunnel to a prefix", "192.0.2.0/24:80/tcp", lb.GUE, false, "192.0.2.1:80", true},
		{"direct", "192.0.2.0/24:80/tcp", lb.IPIP, true, "10.0.0.1:80", false},
		{"local", "192.0.2.10:80/tcp", lb.Local, false, "10.0.0.1:80", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &Health{}
			h.tunnelOf.MarkBase = 0x72000000
			c := Checks{Health: config.Health{Direct: tc.direct}}
			got := h.target(c, lb.Real{ID: 1, VIP: mustVIP(t, tc.vip), Backend: lb.Backend{Addr: backend}, Tunnel: lb.Tunnel{Encap: tc.encap, Destination: backend}})
			if got.Addr.String() != tc.want || (got.Mark != 0) != tc.marked {
				t.Errorf("%+v, want %s, marked %t", got, tc.want, tc.marked)
			}
		})
	}
}
