// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/engine"
)

// TestTestDestination: the packet of a self-test goes to an address and port of which no other VIP gets the
// packets.
func TestTestDestination(t *testing.T) {
	const prefix = "192.0.2.0/30:80/tcp"
	for _, tc := range []struct {
		name, vip string
		others    []string
		want      string // empty for none
	}{
		{"an address", "192.0.2.10:80/tcp", []string{"192.0.2.0/24:80/tcp"}, "192.0.2.10:80"},
		{"all ports", "192.0.2.10:0/tcp", []string{"192.0.2.10:1/tcp", "192.0.2.10:2/udp"}, "192.0.2.10:2"},
		{"all ports, within a prefix", "192.0.2.10:0/tcp", []string{"192.0.2.0/24:1/tcp"}, "192.0.2.10:2"},
		{"a prefix", prefix, nil, "192.0.2.1:80"},
		{"a prefix of two addresses", "192.0.2.0/31:80/tcp", nil, "192.0.2.0:80"},
		{"a prefix with addresses of their own", prefix, []string{"192.0.2.1:80/tcp", "192.0.2.2:0/tcp"}, "192.0.2.2:80"},
		{"a prefix with a longer one", prefix, []string{"192.0.2.0/31:80/tcp"}, "192.0.2.2:80"},
		{"a prefix of which nothing is left", "192.0.2.0/31:80/tcp", []string{"192.0.2.0:80/tcp", "192.0.2.1:80/tcp"}, ""},
		{"a prefix of IPv6, all ports", "[2001:db8::/64]:0/udp", []string{"[2001:db8::/32]:1/udp"}, "[2001:db8::1]:2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := mustVIP(t, tc.vip)
			all := map[lb.VIP]bool{v: true}
			for _, other := range tc.others {
				all[mustVIP(t, other)] = true
			}
			got, ok := testDestination(v, all)
			if ok != (tc.want != "") || ok && got.String() != tc.want {
				t.Errorf("%v, %t, want %q", got, ok, tc.want)
			}
		})
	}
}

// TestFactsOfOptions: a backend that is this machine needs no next hop, and one that only source routes lead
// to makes no VIP fit to be announced.
func TestFactsOfOptions(t *testing.T) {
	real := func(weight uint32, encap lb.Encap) engine.RealStatus {
		return engine.RealStatus{Real: lb.Real{Backend: lb.Backend{Weight: weight, Routed: weight == 0}, Tunnel: lb.Tunnel{Encap: encap}}}
	}
	for _, tc := range []struct {
		name string
		real engine.RealStatus
		want announce.Facts
	}{
		{"local", real(2, lb.Local), announce.Facts{NextHop: true, HealthyReals: 1, HealthyWeight: 2, TotalWeight: 2}},
		{"not resolved", real(2, lb.IPIP), announce.Facts{HealthyReals: 1, HealthyWeight: 2, TotalWeight: 2}},
		{"routed only", real(0, lb.IPIP), announce.Facts{NextHop: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := healthFacts(engine.VIPStatus{Reals: []engine.RealStatus{tc.real}}); got != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
		})
	}
}
