// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-lb/remora/lb"
)

var update = flag.Bool("update", false, "write the expected errors in testdata anew")

// compareAddrs lets cmp compare netip values.
func compareAddrs() cmp.Options {
	return cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.IgnoreFields(Config{}, "doc")}
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatalf("parse:\n%v", err)
	}
	return c
}

func vip(t *testing.T, s string) lb.VIP {
	t.Helper()
	v, err := lb.ParseVIP(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func backend(addr string, weight uint32) lb.Backend {
	return lb.Backend{Addr: netip.MustParseAddr(addr), Weight: weight}
}

func TestDefaults(t *testing.T) {
	got := mustParse(t, `
interface: eth0
services:
  - name: web
    vips: [192.0.2.10:80/tcp]
    backends: [10.0.0.11]
`)
	want := &Config{
		Interface: "eth0",
		Mode:      ModeAuto,
		OnExit:    OnExitKeep,
		Table:     FlowTable{Window: 15 * time.Minute, Size: 1 << 20, NewPerSecond: 125_000, UDPIdle: 30 * time.Second},
		Consul:    DefaultConsul(),
		Governor:  DefaultGovernor(),
		Sources:   map[string]ConsulSource{},

		ProbeMarks: DefaultProbeMarks,
		Metrics:    DefaultMetrics(),
		Health:     map[string]Health{},

		AnswersPerSecond: DefaultAnswersPerSecond,
		Services: []lb.Service{{Name: "web", VIPs: []lb.ServiceVIP{{
			VIP:   vip(t, "192.0.2.10:80/tcp"),
			Encap: lb.IPIP,
			Ring:  lb.Ring{Size: 65537, Hash: lb.MaglevV2},
			Tunnel: lb.TunnelSources{
				IPIP4:   netip.MustParsePrefix("172.16.0.0/16"),
				IPIP6:   netip.MustParsePrefix("100::/96"),
				GUEPort: 6080,
			},
			Flows: lb.FlowTransitions,
			Leave: lb.Leave{Drain: time.Hour, Grace: 30 * time.Second},
		}}}},
		Backends: map[string][]lb.Backend{"web": {backend("10.0.0.11", 1)}},
	}
	if diff := cmp.Diff(want, got, compareAddrs()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEveryFieldIsRead(t *testing.T) {
	got := mustParse(t, `
interface: lan0
mode: generic
on_exit: detach
encapsulation:
  type: gue
  ipip: {source4: 10.99.0.0/16, source6: "2001:db8:99::/96"}
  gue: {source4: 192.0.2.1, source6: "2001:db8::1", port: 6081, checksum: katran}
next_hop: {mac: "02:00:00:00:00:fe", mtu: 9000}
flows: {tcp: never, udp: quic, drain: 2h, on_down: rehash, grace: 5s}
flow_table: {window: 20m, size: 4096, new_per_second: 10, udp_idle: 45s}
metrics: {listen: "[::1]:9645", pprof: true, per_real: false, max_series: 7}
source_routes: [{prefixes: [198.51.100.0/24, "2001:db8:aa::/48"], file: /etc/routes, backend: 10.0.0.9}]
decapsulation: {gue_port: 6081, destinations: [{address: 192.0.2.1}, {address: 192.0.2.2, action: egress}], others: host}
quic_lb: {config_id: 3, server_id_bytes: 2}
icmp: {answers_per_second: 7}
services:
  - name: web
    ring: {size: 4093, hash: maglev-v1}
    encapsulation: ipip
    flows: {tcp: always, on_down: keep}
    vips:
      - 192.0.2.10:80/tcp
      - {vip: "[2001:db8:ff::10]:443/udp", ring: {size: 251}, encapsulation: gue, flows: {udp: sticky, drain: 0}}
      - {vip: 192.0.2.10:0/tcp, ring: {hash: maglev-v2}, flows: {tcp: transitions, grace: 1h30m}}
    backends:
      - 10.0.0.11
      - {address: "2001:db8:1::11", weight: 0}
      - {address: 10.0.0.12, weight: 1000000}
  - name: dns
    vips: [192.0.2.53:53/udp]
    backends:
  - name: options
    connection_ids: quic-lb
    tcp_ids: true
    udp_ids: true
    source_routes: true
    hash: [no-source-port, keep-destination-port]
    vips:
      - "[2001:db8:ff::/64]:0/udp"
      - {vip: 192.0.2.0/28:80/tcp, hash: [destination-port-only], source_routes: false}
      - {vip: 192.0.2.99:80/tcp, hash: [], fragments: hash-3-tuple, tcp_ids: false}
      - {vip: 192.0.2.98:80/tcp, fragments: pass}
      - {vip: 192.0.2.98:80/udp, connection_ids: katran, udp_ids: false}
    backends: [{address: 10.0.0.11, server_id: 65535}, {address: 10.0.0.2, local: true}]
`)
	tunnel := lb.TunnelSources{
		IPIP4:       netip.MustParsePrefix("10.99.0.0/16"),
		IPIP6:       netip.MustParsePrefix("2001:db8:99::/96"),
		GUE4:        netip.MustParseAddr("192.0.2.1"),
		GUE6:        netip.MustParseAddr("2001:db8::1"),
		GUEPort:     6081,
		GUEChecksum: true,
	}
	both := lb.HashInput{NoSourcePort: true, KeepDestinationPort: true}
	optioned := func(t *testing.T, text string, o lb.Options) lb.ServiceVIP {
		v := lb.ServiceVIP{VIP: vip(t, text), Encap: lb.GUE, Ring: lb.Ring{Size: 65537, Hash: lb.MaglevV2}, Tunnel: tunnel,
			Flows: lb.FlowNever, Leave: lb.Leave{Drain: 2 * time.Hour}, Options: o}
		if v.VIP.Protocol == lb.UDP {
			v.Flows = lb.FlowQUIC
		}
		return v
	}
	want := &Config{
		Interface: "lan0",
		Mode:      ModeGeneric,
		OnExit:    OnExitDetach,
		NextHop:   &lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 0xfe}, MTU: 9000},
		Table:     FlowTable{Window: 20 * time.Minute, Size: 4096, NewPerSecond: 10, UDPIdle: 45 * time.Second},
		Consul:    DefaultConsul(),
		Governor:  DefaultGovernor(),
		Sources:   map[string]ConsulSource{},

		ProbeMarks: DefaultProbeMarks,
		Metrics:    Metrics{Listen: "[::1]:9645", PProf: true, MaxSeries: 7},
		Health:     map[string]Health{},
		SourceRoutes: []SourceRoutes{{File: "/etc/routes", Backend: netip.MustParseAddr("10.0.0.9"), Line: 13, Prefixes: []netip.Prefix{
			netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:aa::/48")}}},
		Decap: lb.Decap{GUEPort: 6081, Others: lb.DecapHost, Destinations: map[netip.Addr]lb.DecapAction{
			netip.MustParseAddr("192.0.2.1"): lb.DecapBalance, netip.MustParseAddr("192.0.2.2"): lb.DecapEgress}},
		QUICLB:           lb.QUICLB{ConfigID: 3, ServerIDBytes: 2},
		AnswersPerSecond: 7,
		Services: []lb.Service{
			{Name: "web", VIPs: []lb.ServiceVIP{
				{VIP: vip(t, "192.0.2.10:80/tcp"), Encap: lb.IPIP, Ring: lb.Ring{Size: 4093, Hash: lb.MaglevV1}, Tunnel: tunnel,
					Flows: lb.FlowAlways, Leave: lb.Leave{Drain: 2 * time.Hour, Grace: 5 * time.Second}},
				{VIP: vip(t, "[2001:db8:ff::10]:443/udp"), Encap: lb.GUE, Ring: lb.Ring{Size: 251, Hash: lb.MaglevV1}, Tunnel: tunnel,
					Flows: lb.FlowAlways, Leave: lb.Leave{Grace: 5 * time.Second}},
				{VIP: vip(t, "192.0.2.10:0/tcp"), Encap: lb.IPIP, Ring: lb.Ring{Size: 4093, Hash: lb.MaglevV2}, Tunnel: tunnel,
					Flows: lb.FlowTransitions, Leave: lb.Leave{Drain: 2 * time.Hour, Grace: 90 * time.Minute}},
			}},
			{Name: "dns", VIPs: []lb.ServiceVIP{
				{VIP: vip(t, "192.0.2.53:53/udp"), Encap: lb.GUE, Ring: lb.Ring{Size: 65537, Hash: lb.MaglevV2}, Tunnel: tunnel,
					Flows: lb.FlowQUIC, Leave: lb.Leave{Drain: 2 * time.Hour}},
			}},
			{Name: "options", VIPs: []lb.ServiceVIP{
				optioned(t, "[2001:db8:ff::/64]:0/udp", lb.Options{Hash: both, ConnectionIDs: lb.ConnectionIDsQUICLB, UDPIDs: true, SourceRoutes: true}),
				optioned(t, "192.0.2.0/28:80/tcp", lb.Options{Hash: lb.HashInput{DestinationPortOnly: true}, TCPIDs: true}),
				optioned(t, "192.0.2.99:80/tcp", lb.Options{Fragments: lb.FragmentsByClient, SourceRoutes: true}),
				optioned(t, "192.0.2.98:80/tcp", lb.Options{Hash: both, Fragments: lb.FragmentsPass, TCPIDs: true, SourceRoutes: true}),
				optioned(t, "192.0.2.98:80/udp", lb.Options{Hash: both, ConnectionIDs: lb.ConnectionIDsKatran, SourceRoutes: true}),
			}},
		},
		Backends: map[string][]lb.Backend{
			"web": {backend("10.0.0.11", 1), backend("2001:db8:1::11", 0), backend("10.0.0.12", 1000000)},
			"dns": nil,
			"options": {
				{Addr: netip.MustParseAddr("10.0.0.11"), Weight: 1, ServerID: 65535},
				{Addr: netip.MustParseAddr("10.0.0.2"), Weight: 1, Local: true},
			},
		},
	}
	if diff := cmp.Diff(want, got, compareAddrs()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestSameMeaning has pairs of files that say the same.
func TestSameMeaning(t *testing.T) {
	const plain = `
interface: eth0
services:
  - {name: a, vips: [192.0.2.10:80/tcp], ring: {size: 251}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}
  - {name: b, vips: [192.0.2.11:80/tcp], ring: {size: 251}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}
`
	for name, text := range map[string]string{
		"anchor of a list": `
interface: eth0
services:
  - {name: a, vips: [192.0.2.10:80/tcp], ring: {size: 251}, backends: &all [10.0.0.1, {address: 10.0.0.2, weight: 2}]}
  - {name: b, vips: [192.0.2.11:80/tcp], ring: {size: 251}, backends: *all}
`,
		"merge": `
interface: eth0
services:
  - &a {name: a, vips: [192.0.2.10:80/tcp], ring: {size: 251}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}
  - {<<: *a, name: b, vips: [192.0.2.11:80/tcp]}
`,
		"merge of a list: the first wins": `
interface: eth0
services:
  - &a {name: a, vips: [192.0.2.10:80/tcp], ring: &ring {size: 251, hash: maglev-v2}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}
  - name: b
    vips: [192.0.2.11:80/tcp]
    <<: [{ring: {<<: *ring}}, {ring: {size: 7}}, *a]
`,
		"quotes, comments and line ends": "interface: 'eth0' # comment\r\nservices:\r\n" +
			"- {name: \"a\", vips: [\"192.0.2.10:80/tcp\"], ring: {size: 251}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}\r\n" +
			"- {name: \"b\", vips: [{vip: '192.0.2.11:80/tcp'}], ring: {size: 251}, backends: [10.0.0.1, {address: 10.0.0.2, weight: 2}]}\r\n",
		"document markers": "---" + plain + "...\n# the end\n",
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(mustParse(t, plain), mustParse(t, text), compareAddrs()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestNoServices(t *testing.T) {
	if c := mustParse(t, "interface: eth0\nservices: []\n"); len(c.Services) != 0 || len(c.Backends) != 0 {
		t.Errorf("got %d services and backends of %d, want none", len(c.Services), len(c.Backends))
	}
}

// TestInvalid parses each testdata/invalid-*.yaml, one mistake each but for invalid-many.yaml, and
// compares the error with the .txt beside it.
func TestInvalid(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d files, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Parse(filepath.Base(file), data)
			var problems Problems
			if !errors.As(err, &problems) || c != nil {
				t.Fatalf("got %v and error %v, want no configuration and Problems", c, err)
			}
			if many := strings.HasSuffix(file, "-many.yaml"); (len(problems) > 1) != many {
				t.Errorf("got %d problems:\n%v", len(problems), err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "remora.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: got %v, want fs.ErrNotExist", err)
	}
	if err := os.WriteFile(path, []byte("interface: eth0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := Problems{{File: path, Line: 1, Path: "services", Message: "missing: expected a list of services, or [] for none"}}
	_, err := Load(path)
	var got Problems
	if !errors.As(err, &got) {
		t.Fatalf("got %T %v, want Problems", err, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
