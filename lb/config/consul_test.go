// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
)

func TestConsulIsRead(t *testing.T) {
	got := mustParse(t, `
interface: eth0
consul:
  addresses: [127.0.0.1:8500, "unix:///run/consul.sock", "https://consul.test:8501"]
  token: a
  token_file: /b
  datacenter: c
  namespace: d
  partition: e
  tls: {ca_file: /f, ca_path: /g, cert_file: /h, key_file: /i, server_name: j}
  consistency: stale
  max_stale: 3s
  wait: 5m
  connections: 7
  overlay: remora/overlay/
  claims:
    - {services: [web, "web-*"], prefixes: [192.0.2.0/25, "2001:db8::/64"]}
    - {services: [dns], prefixes: [198.51.100.0/24]}
  register: {name: lb, id: lb-1, ttl: 1m}
governor:
  hold: 1h
  radius: {reals: 3, percent: 50, step: 2m}
  damping: {suppress: 8, reuse: 2, half_life: 1m, max_suppress: 1h}
flows: {udp: quic}
services:
  - name: web
    vips: [192.0.2.200:80/tcp]
    source:
      consul: {service: www, tag: v4, filter: Node.Meta.rack == "7", datacenter: k, namespace: l, partition: m, tagged_address: lan, warning: drain}
`)
	claimed := got.Services[0].VIPs[0]
	claimed.VIP = lb.VIP{}
	udp := claimed
	udp.Flows = lb.FlowQUIC
	want := Consul{
		Addresses: []string{"127.0.0.1:8500", "unix:///run/consul.sock", "https://consul.test:8501"},
		Token:     "a", TokenFile: "/b", Datacenter: "c", Namespace: "d", Partition: "e",
		TLS:         ConsulTLS{"/f", "/g", "/h", "/i", "j"},
		Consistency: "stale", MaxStale: 3 * time.Second, Wait: 5 * time.Minute, Connections: 7, Overlay: "remora/overlay/",
		Claims: []ConsulClaim{
			{[]string{"web", "web-*"}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8::/64")}},
			{[]string{"dns"}, []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
		},
		TCP: claimed, UDP: udp,
		Register: &ConsulRegister{Name: "lb", ID: "lb-1", TTL: time.Minute},
	}
	if diff := cmp.Diff(want, got.Consul, compareAddrs()); diff != "" {
		t.Errorf("consul: -want +got:\n%s", diff)
	}
	governor := Governor{
		Hold: time.Hour, EmptyHold: time.Hour, Reals: 3, Percent: 50, Step: 2 * time.Minute,
		Suppress: 8, Reuse: 2, HalfLife: time.Minute, MaxSuppress: time.Hour,
	}
	if got.Governor != governor {
		t.Errorf("governor: %+v, want %+v", got.Governor, governor)
	}
	source := map[string]ConsulSource{"web": {
		Service: "www", Tag: "v4", Filter: `Node.Meta.rack == "7"`, Datacenter: "k", Namespace: "l", Partition: "m",
		TaggedAddress: "lan", DrainWarning: true,
	}}
	if diff := cmp.Diff(source, got.Sources); diff != "" {
		t.Errorf("source: -want +got:\n%s", diff)
	}
}

// TestConsulIsReadOnDemand: only a file that takes something from Consul has it read.
func TestConsulIsReadOnDemand(t *testing.T) {
	const head, service = "interface: eth0\nconsul: {addresses: [consul.test]", "}\nservices:\n  - name: web\n    vips: [192.0.2.10:80/tcp]\n"
	for _, tc := range []struct {
		name, text string
		want       bool
	}{
		{"nothing", head + service, false},
		{"a source", head + service + "    source: {consul: {service: web}}\n", true},
		{"claims", head + ", claims: [{services: [web], prefixes: [192.0.2.0/24]}]" + service, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := mustParse(t, tc.text).ReadsConsul(); got != tc.want {
				t.Errorf("read: %v", got)
			}
		})
	}
}
