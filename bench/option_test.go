// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func optionTopology(t *testing.T) Topology {
	t.Helper()
	top, err := NewTopology(TopologyOptions{OptionVIPs: true, RingSize: SmallRing})
	if err != nil {
		t.Fatal(err)
	}
	return top
}

// A VIP whose packets are led has an empty ring, and something that leads them; all others have a full one.
func TestOptionVIPs(t *testing.T) {
	top, plain := optionTopology(t), len(topologyVIPs(t))
	vips := optionVIPs()
	if got, want := len(top.VIPs), plain+len(vips); got != want {
		t.Fatalf("%d VIPs, want %d", got, want)
	}
	for i, v := range vips {
		entry := top.VIPs[plain+i]
		if entry.VIP != v.vip || entry.Options != v.options {
			t.Errorf("%s: VIP is %+v", v.name, entry)
		}
		empty := !slices.ContainsFunc(top.Rings[entry.RingID], func(s lb.Slot) bool { return s != 0 })
		servers := slices.ContainsFunc(top.Servers, func(s lb.ServerTarget) bool { return s.Ring == entry.RingID })
		routes := slices.ContainsFunc(top.Routes, func(r lb.RouteTarget) bool { return r.Ring == entry.RingID })
		if empty != v.led || (servers || routes) != v.led {
			t.Errorf("%s: ring empty: %t, targets of servers: %t, of routes: %t; led: %t", v.name, empty, servers, routes, v.led)
		}
	}
	for i, r := range top.Reals {
		if r.ID != lb.RealID(i+1) || r.NextHop.Resolved() == (r.Tunnel.Encap == lb.Local) {
			t.Fatalf("real %d is %+v", i+1, r)
		}
	}
}

// topologyVIPs are those of ordinary cases.
func topologyVIPs(t *testing.T) []lb.VIPEntry {
	t.Helper()
	top, err := NewTopology(TopologyOptions{RingSize: SmallRing})
	if err != nil {
		t.Fatal(err)
	}
	if top.Features || top.Decap.Enabled() || len(top.Servers)+len(top.Routes)+len(top.SourceRoutes) != 0 {
		t.Errorf("the plain topology has features: %+v", top.Decap)
	}
	return top.VIPs
}

// All clients that the stub stamps have a route of their own prefix.
func TestSourceRoutesOfClients(t *testing.T) {
	routes := optionTopology(t).SourceRoutes
	if len(routes) != sourceRoutes {
		t.Fatalf("%d routes, want %d", len(routes), sourceRoutes)
	}
	seen := map[netip.Prefix]bool{}
	for _, r := range routes {
		if seen[r.Prefix] || r.Prefix != r.Prefix.Masked() {
			t.Fatalf("prefix %s is there twice, or has bits behind its length", r.Prefix)
		}
		seen[r.Prefix] = true
	}
	for _, client := range []string{"10.0.0.1", "10.0.255.255", "10.128.7.9", "10.255.255.255"} {
		if p, err := netip.MustParseAddr(client).Prefix(21); err != nil || !seen[p] {
			t.Errorf("client %s has no route (%v)", client, err)
		}
	}
}

// Features that no packet uses change nothing but what is loaded.
func TestFeaturesTopology(t *testing.T) {
	top, err := NewTopology(TopologyOptions{Features: true, RingSize: SmallRing})
	if err != nil {
		t.Fatal(err)
	}
	if !top.Features || !top.Decap.Enabled() || len(top.VIPs) != len(topologyVIPs(t)) || len(top.Servers)+len(top.Routes)+len(top.SourceRoutes) != 0 {
		t.Errorf("%d VIPs, features %t, %+v", len(top.VIPs), top.Features, top.Decap)
	}
}

// Cases of options are measured on targets with such VIPs only, the others on all.
func TestPlanOfOptionCases(t *testing.T) {
	cases, err := SelectCases([]string{"tcp4-ack", "tcp4-id"})
	if err != nil {
		t.Fatal(err)
	}
	targets := []Target{{Name: Remora}, {Name: RemoraOptions, Options: true}}
	m := newMeasurement(KindProg, Unit, targets)
	m.planProg(nil, cases, []int{1})
	var got []string
	for _, p := range m.points {
		got = append(got, p.target.Name+" "+p.c.Name)
	}
	want := []string{"lb_stats tcp4-ack", "remora tcp4-ack", "remora-options tcp4-ack", "remora-options tcp4-id"}
	if !slices.Equal(got, want) {
		t.Errorf("points are %q, want %q", got, want)
	}
	err = validate(quick(), targets[:1], cases, []int{1})
	if want := `case "tcp4-id": no target has VIPs with options`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("without a target it gives %v, want %q", err, want)
	}
}

// The gate takes no time for options.
func TestGateHasNoOptions(t *testing.T) {
	cases, err := SelectCases(GateCases())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(cases, Cases()...) {
		if c.Option {
			t.Errorf("%s is a case of options", c.Name)
		}
	}
}

func TestOptionTargets(t *testing.T) {
	for _, tc := range []struct {
		options TopologyOptions
		name    string
		takes   bool
	}{
		{TopologyOptions{}, Remora, false},
		{TopologyOptions{Features: true}, RemoraFeatures, false},
		{TopologyOptions{OptionVIPs: true}, RemoraOptions, true},
	} {
		target, err := RemoraTarget(tc.options, nil)
		if err != nil || target.Name != tc.name || target.takes(caseNamed(t, "tcp4-prefix")) != tc.takes || !target.takes(caseNamed(t, "udp4")) {
			t.Errorf("%+v: target %q (%v), takes a case of options: %t", tc.options, target.Name, err, target.takes(caseNamed(t, "tcp4-prefix")))
		}
	}
}
