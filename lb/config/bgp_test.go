// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBGPDefaults(t *testing.T) {
	got := mustParse(t, `
interface: eth0
bgp:
  asn: 65001
  router_id: 10.0.0.2
  peers: [{address: 10.0.0.1, asn: 65000, bfd: {}}]
services: []
`).BGP
	want := &BGP{
		ASN: 65001, RouterID: netip.MustParseAddr("10.0.0.2"),
		Peers: []BGPPeer{{
			Address: netip.MustParseAddr("10.0.0.1"), ASN: 65000, Port: 179,
			Hold: 9 * time.Second, ConnectRetry: 5 * time.Second, Idle: 5 * time.Second,
			IPv4: true, BFD: true, BFDInterval: 300 * time.Millisecond, BFDMultiplier: 3,
		}},
		Normal:   BGPAttributes{LocalPref: 100},
		Degraded: BGPAttributes{MED: 100, LocalPref: 50, Prepend: 2},
		Draining: BGPAttributes{Communities: []string{"graceful-shutdown"}, MED: 200, LocalPref: 1},
		Announce: Announce{
			MinReals: 1, DegradedHold: 10 * time.Second, Drain: time.Minute, Withdraw: 5 * time.Second,
			Damping: AnnounceDamping{Penalty: 1000, Suppress: 2500, Reuse: 800, HalfLife: time.Minute, MaxSuppress: 5 * time.Minute},
		},
	}
	if diff := cmp.Diff(want, got, compareAddrs()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if b := mustParse(t, "interface: eth0\nservices: []\n").BGP; b != nil {
		t.Errorf("without a section there is %+v", b)
	}
}

func TestEveryBGPFieldIsRead(t *testing.T) {
	got := mustParse(t, `
interface: eth0
bgp:
  asn: 4200000000
  router_id: 10.0.0.2
  listen: {port: 1179, addresses: [10.0.0.2]}
  graceful_restart: {time: 40s, deferral: 4s}
  api_socket: /run/x.sock
  peers:
    - address: 10.0.0.1
      asn: 65000
      port: 180
      source: 10.0.0.2
      passive: true
      ttl_security_hops: 2
      password_file: /etc/key
      hold: 12s
      keepalive: 4s
      connect_retry: 6s
      idle: 7s
      families: [ipv4, ipv6]
      only: [192.0.2.0/24]
      next_hop_ipv4: 10.0.0.3
      next_hop_ipv6: "2001:db8::3"
      bfd: {interval: 50ms, multiplier: 5}
    - {address: "2001:db8::1", asn: 65000, multihop_ttl: 3, families: [ipv4], extended_next_hop: true}
  attributes:
    normal: {communities: ["1:2", no-export], large_communities: ["1:2:3"], med: 4, local_pref: 5, prepend: 6}
    draining: {communities: []}
  announce:
    min_reals: 2
    min_weight: 20
    degraded_below: 60
    degraded_hold: 0
    learn: 3s
    drain: 4s
    withdraw: 2s
    share: any
    aggregates: [{prefix: 192.0.2.0/24, share: any, hosts: true}]
    damping: {penalty: 10, suppress: 0, reuse: 5, half_life: 2s, max_suppress: 9s}
services: []
`).BGP
	addr, prefixes := netip.MustParseAddr, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	want := &BGP{
		ASN: 4200000000, RouterID: addr("10.0.0.2"), Port: 1179, ListenAddresses: []netip.Addr{addr("10.0.0.2")},
		RestartTime: 40 * time.Second, Deferral: 4 * time.Second, APISocket: "/run/x.sock",
		Peers: []BGPPeer{
			{
				Address: addr("10.0.0.1"), ASN: 65000, Port: 180, Source: addr("10.0.0.2"), Passive: true, TTLSecurityHops: 2,
				PasswordFile: "/etc/key", Hold: 12 * time.Second, Keepalive: 4 * time.Second, ConnectRetry: 6 * time.Second, Idle: 7 * time.Second,
				IPv4: true, IPv6: true, Only: prefixes, NextHop4: addr("10.0.0.3"), NextHop6: addr("2001:db8::3"),
				BFD: true, BFDInterval: 50 * time.Millisecond, BFDMultiplier: 5,
			},
			{
				Address: addr("2001:db8::1"), ASN: 65000, Port: 179, MultihopTTL: 3, Hold: 9 * time.Second, ConnectRetry: 5 * time.Second,
				Idle: 5 * time.Second, IPv4: true, ExtendedNextHop: true, BFDInterval: 300 * time.Millisecond, BFDMultiplier: 3,
			},
		},
		Normal:   BGPAttributes{Communities: []string{"1:2", "no-export"}, LargeCommunities: []string{"1:2:3"}, MED: 4, LocalPref: 5, Prepend: 6},
		Degraded: BGPAttributes{MED: 100, LocalPref: 50, Prepend: 2},
		Draining: BGPAttributes{MED: 200, LocalPref: 1},
		Announce: Announce{
			MinReals: 2, MinWeight: 20, DegradedBelow: 60, Learn: 3 * time.Second, Drain: 4 * time.Second, Withdraw: 2 * time.Second,
			ShareAny: true, Aggregates: []Aggregate{{Prefix: prefixes[0], ShareAny: true, Hosts: true}},
			Damping: AnnounceDamping{Penalty: 10, Reuse: 5, HalfLife: 2 * time.Second, MaxSuppress: 9 * time.Second},
		},
	}
	if diff := cmp.Diff(want, got, compareAddrs()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
