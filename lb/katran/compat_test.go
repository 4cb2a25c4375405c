// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/test/require"
)

// always is what every configuration has.
const always = "behaviour mtu, behaviour icmp, behaviour fragments"

func compatOf(t *testing.T, yaml string) []Difference {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte("interface: eth0\n"+yaml))
	require.NoError(t, err)
	return Compat(c)
}

func TestCompat(t *testing.T) {
	// one is a service that differs in nothing, with more said of it.
	one := func(more string) string {
		return "flows: {tcp: always, udp: sticky}\nservices:\n  - {name: web, vips: ['192.0.2.1:80/tcp'], " + more + "}\n"
	}
	udp := func(more string) string { return strings.Replace(one(more), "80/tcp", "80/udp", 1) }
	const two = "backends: [10.0.0.1, 10.0.0.2]"
	for name, tc := range map[string]struct{ yaml, want string }{
		"nothing":           {one(two), ""},
		"nothing, UDP":      {udp(two), ""},
		"ring size":         {one(two + ", ring: {size: 4093}"), "choice 192.0.2.1:80/tcp"},
		"v1 without weight": {one(two + ", ring: {hash: maglev-v1}"), ""},
		"v1":                {one("backends: [{address: 10.0.0.1, weight: 2}, {address: 10.0.0.2, weight: 2}], ring: {hash: maglev-v1}"), "build 192.0.2.1:80/tcp"},
		"v2":                {one("backends: [{address: 10.0.0.1, weight: 2}, 10.0.0.2]"), "build 192.0.2.1:80/tcp"},
		"one with weight":   {one("backends: [{address: 10.0.0.1, weight: 2}, {address: 10.0.0.2, weight: 0}]"), ""},
		"IPIP source":       {"encapsulation: {ipip: {source4: 10.9.0.0/16, source6: '2001:db8::/96'}}\n" + one(two), "packet encapsulation.ipip.source4, packet encapsulation.ipip.source6"},
		"IPIP source, GUE":  {"encapsulation: {type: gue, ipip: {source4: 10.9.0.0/16}, gue: {source4: 10.9.0.1, checksum: katran}}\n" + one(two), ""},
		"GUE checksum":      {"encapsulation: {type: gue, gue: {source4: 10.9.0.1}}\n" + one(two), "packet encapsulation.gue.checksum"},
		"GUE port":          {"encapsulation: {type: gue, gue: {source4: 10.9.0.1, port: 9886, checksum: katran}}\n" + one(two), "build encapsulation.gue.port"},
		"both encapsulations": {"encapsulation: {gue: {source4: 10.9.0.1, checksum: katran}}\n" + one(two) +
			"  - {name: b, vips: ['192.0.2.2:80/tcp'], encapsulation: gue}\n", "packet encapsulation"},
		"IPv4 prefix":       {strings.Replace(one(two), "192.0.2.1:", "192.0.2.0/24:", 1), "choice 192.0.2.0/24:80/tcp"},
		"IPv6 prefix":       {strings.Replace(one("backends: ['fc00::1']"), "192.0.2.1:", "[2001:db8::/64]:", 1), "build [2001:db8::/64]:80/tcp"},
		"IPv6 over IPv4":    {strings.Replace(one(two), "192.0.2.1:", "[2001:db8::1]:", 1), "packet [2001:db8::1]:80/tcp"},
		"transitions":       {one(two + ", flows: {tcp: transitions}"), "behaviour 192.0.2.1:80/tcp"},
		"never":             {one(two + ", flows: {tcp: never}"), "build 192.0.2.1:80/tcp"},
		"stateless":         {udp(two + ", flows: {udp: stateless}"), "build 192.0.2.1:80/udp"},
		"quic":              {udp(two + ", flows: {udp: quic}"), "behaviour 192.0.2.1:80/udp"},
		"pause":             {"flow_table: {udp_idle: 60s}\n" + udp(two), "behaviour 192.0.2.1:80/udp"},
		"fragments by hash": {one(two + ", fragments: hash-3-tuple"), "choice 192.0.2.1:80/tcp"},
		"fragments pass":    {one(two + ", fragments: pass"), "behaviour 192.0.2.1:80/tcp"},
		"QUIC-LB":           {"quic_lb: {config_id: 0, server_id_bytes: 2}\n" + udp(two+", connection_ids: quic-lb"), "choice 192.0.2.1:80/udp"},
		"connection ids":    {udp(two + ", connection_ids: katran"), ""},
		"build options":     {one(two + ", tcp_ids: true, source_routes: true"), "build 192.0.2.1:80/tcp, build 192.0.2.1:80/tcp"},
		"UDP ids":           {udp(two + ", udp_ids: true"), "build 192.0.2.1:80/udp"},
		"hash":              {one(two + ", hash: [no-source-port, keep-destination-port, destination-port-only]"), ""},
		"local":             {one("backends: [{address: 10.0.0.1, local: true}]"), "build service web"},
		"server id of two": {udp("backends: [{address: 10.0.0.1, server_id: 5}], udp_ids: true") +
			"  - {name: b, vips: ['192.0.2.2:80/udp'], udp_ids: true, backends: [{address: 10.0.0.2, server_id: 5}]}\n",
			"choice service b, build 192.0.2.1:80/udp, build 192.0.2.2:80/udp"},
		"server id of none":  {one("backends: [{address: 10.0.0.1, server_id: 4000000000}]"), ""},
		"last server id":     {udp("connection_ids: katran, backends: [{address: 10.0.0.1, server_id: 16777213}]"), ""},
		"great server id":    {udp("connection_ids: katran, backends: [{address: 10.0.0.1, server_id: 16777214}]"), "choice service web"},
		"source routes":      {"source_routes: [{prefixes: [10.0.0.0/8], backend: 10.0.0.1}]\n" + one(two), "build source_routes"},
		"decapsulation":      {"decapsulation: {others: host}\n" + one(two), "build decapsulation"},
		"decapsulation more": {"decapsulation: {destinations: [{address: 10.0.0.9, action: host}]}\n" + one(two), "build decapsulation, behaviour decapsulation, behaviour decapsulation"},
		"health": {one(two + ", health: {kind: http, slow_start: {duration: 5s}, http: {weight_from: body}}"),
			"behaviour service web, behaviour service web, behaviour service web"},
		"Consul": {one("source: {consul: {service: web}}"), "build 192.0.2.1:80/tcp, behaviour service web"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			kind := 0
			for _, d := range compatOf(t, tc.yaml) {
				if d.What == "" || d.Consequence == "" || d.Kind.rank() < kind {
					t.Errorf("%q says too little, or stands behind a lesser one", d)
				}
				kind = d.Kind.rank()
				got = append(got, string(d.Kind)+" "+d.Where)
			}
			all := strings.Join(got, ", ")
			if tc.want != "" && strings.Contains(all, always+", ") { // behaviour of services follows
				all = strings.Replace(all, always+", ", "", 1)
			} else {
				all = strings.TrimSuffix(strings.TrimSuffix(all, always), ", ")
			}
			if diff := cmp.Diff(tc.want, all); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestCompatSizes: more than Katran has room for.
func TestCompatSizes(t *testing.T) {
	var b strings.Builder
	b.WriteString("flows: {tcp: always}\nservices:\n")
	for i := range MaxVIPs {
		fmt.Fprintf(&b, "  - {name: s%d, vips: ['192.0.%d.%d:80/tcp'], backends: [", i, i/256, i%256)
		for j := range 8 {
			if i*8+j < MaxReals-1 {
				fmt.Fprintf(&b, "'fc00::%x', ", i*8+j+1)
			}
		}
		b.WriteString("]}\n")
	}
	only := func(yaml string, want ...string) {
		t.Helper()
		var got []string
		for _, d := range compatOf(t, yaml) {
			if d.Where == "services" {
				got = append(got, d.What)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	only(b.String())
	only(b.String()+"  - {name: more, vips: ['198.51.100.1:80/tcp'], backends: ['fc00:1::1']}\n",
		"513 VIPs, and Katran has room for 512", "4096 servers, and Katran has room for 4095")
}

// TestSameHash: two addresses of one hash, found by looking.
func TestSameHash(t *testing.T) {
	seen := map[uint64]string{}
	for i := range 1 << 16 {
		addr := fmt.Sprintf("10.0.%d.%d", i/256, i%256)
		a, err := lb.ParseBackendAddr(addr)
		require.NoError(t, err)
		other, ok := seen[maglev.AddrHash(a)]
		if !ok {
			seen[maglev.AddrHash(a)] = addr
			continue
		}
		file := "flows: {tcp: always}\nservices:\n  - {name: web, vips: ['192.0.2.1:80/tcp'], backends: [%s, {address: %s, weight: %d}]}\n"
		if d := compatOf(t, fmt.Sprintf(file, addr, other, 1)); d[0].Kind != KindChoice || d[0].Where != "service web" {
			t.Errorf("%s and %s: %v", addr, other, d)
		}
		if d := compatOf(t, fmt.Sprintf(file, addr, other, 0)); d[0].Kind == KindChoice {
			t.Errorf("%s and %s without weight: %v", addr, other, d)
		}
		return
	}
	t.Fatal("no two addresses of a /16 have the same hash")
}

// TestCompatOfImported: what comes from Katran may run beside it.
func TestCompatOfImported(t *testing.T) {
	dump, err := os.ReadFile("testdata/fleet.json")
	require.NoError(t, err)
	for _, choices := range []Choices{{}, {KatranFlows: true}} {
		c, _, _ := converted(t, readString(t, string(dump)), choices)
		for _, d := range Compat(c) {
			if d.Kind.Breaks() {
				t.Errorf("%+v: %s", choices, d)
			}
		}
	}
}
