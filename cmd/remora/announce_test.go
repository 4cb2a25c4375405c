// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/require"
)

func mustVIP(t *testing.T, text string) lb.VIP {
	t.Helper()
	v, err := lb.ParseVIP(text)
	require.NoError(t, err)
	return v
}

func TestKeeper(t *testing.T) {
	a, b := mustVIP(t, "192.0.2.1:80/tcp"), mustVIP(t, "192.0.2.2:80/tcp")
	service := func(name string, vips ...lb.VIP) lb.Service {
		s := lb.Service{Name: name}
		for _, v := range vips {
			s.VIPs = append(s.VIPs, lb.ServiceVIP{VIP: v})
		}
		return s
	}
	old := map[string][]lb.Backend{"web": {{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 1}}}
	none := map[string][]lb.Backend{}
	for _, tc := range []struct {
		name     string
		services []lb.Service
		backends map[string][]lb.Backend
		listed   []lb.VIP
		// held and left are the VIPs of each service before and after the release, want those that
		// are configured.
		held, left map[string][]lb.VIP
		want       []lb.VIP
	}{
		{"nothing changes", []lb.Service{service("web", a, b)}, old, []lb.VIP{a, b},
			map[string][]lb.VIP{"web": {a, b}}, map[string][]lb.VIP{"web": {a, b}}, []lb.VIP{a, b}},
		{"a VIP goes and is still announced", []lb.Service{service("web", a)}, old, []lb.VIP{a, b},
			map[string][]lb.VIP{"web": {a, b}}, map[string][]lb.VIP{"web": {a, b}}, []lb.VIP{a}},
		{"a VIP goes and is withdrawn", []lb.Service{service("web", a)}, old, []lb.VIP{a},
			map[string][]lb.VIP{"web": {a, b}}, map[string][]lb.VIP{"web": {a}}, []lb.VIP{a}},
		{"the service goes", nil, none, []lb.VIP{a},
			map[string][]lb.VIP{"web": {a, b}}, map[string][]lb.VIP{"web": {a}}, nil},
		{"a VIP moves to another service", []lb.Service{service("web", a), service("shop", b)}, old, []lb.VIP{a, b},
			map[string][]lb.VIP{"web": {a}, "shop": {b}}, map[string][]lb.VIP{"web": {a}, "shop": {b}}, []lb.VIP{a, b}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			woken := 0
			k := newKeeper(func() { woken++ })
			k.complete([]lb.Service{service("web", a, b)}, old)
			services, backends := k.complete(tc.services, tc.backends)
			checkServices(t, "before", services, tc.held)
			if held := tc.held["web"]; len(held) > 0 && len(backends["web"]) != 1 {
				t.Errorf("the service has the backends %v", backends["web"])
			}
			got := k.configured()
			slices.SortFunc(got, lb.VIP.Compare)
			if !slices.Equal(got, tc.want) || woken != 2 {
				t.Errorf("configured are %v, want %v; woken %d times, want 2", got, tc.want, woken)
			}
			listed := make(map[lb.VIP]bool)
			for _, v := range tc.listed {
				listed[v] = true
			}
			k.release(listed)
			services, _ = k.complete(tc.services, tc.backends)
			checkServices(t, "after", services, tc.left)
		})
	}
}

func checkServices(t *testing.T, when string, services []lb.Service, want map[string][]lb.VIP) {
	t.Helper()
	if len(services) != len(want) {
		t.Errorf("%s: services %+v, want %v", when, services, want)
	}
	for _, s := range services {
		var vips []lb.VIP
		for _, v := range s.VIPs {
			vips = append(vips, v.VIP)
		}
		if !slices.Equal(vips, want[s.Name]) {
			t.Errorf("%s: service %s has %v, want %v", when, s.Name, vips, want[s.Name])
		}
	}
}

func TestHealthFacts(t *testing.T) {
	real := func(weight uint32, cause engine.Cause, resolved bool) engine.RealStatus {
		r := engine.RealStatus{Real: lb.Real{Backend: lb.Backend{Weight: weight}}, Absence: engine.Absence{Cause: cause}}
		if resolved {
			r.NextHop.MAC = [6]byte{2, 0, 0, 0, 0, 1}
		}
		return r
	}
	for _, tc := range []struct {
		name  string
		reals []engine.RealStatus
		want  announce.Facts
	}{
		{"no reals", nil, announce.Facts{NextHop: true}},
		{"all well", []engine.RealStatus{real(1, engine.CauseNone, true), real(3, engine.CauseNone, false)},
			announce.Facts{NextHop: true, HealthyReals: 2, HealthyWeight: 4, TotalWeight: 4}},
		{"no next hop", []engine.RealStatus{real(1, engine.CauseNone, false), real(1, engine.CauseDown, true)},
			announce.Facts{HealthyReals: 1, HealthyWeight: 1, TotalWeight: 2}},
		{"all down", []engine.RealStatus{real(1, engine.CauseDown, true), real(2, engine.CauseDrain, true)},
			announce.Facts{NextHop: true, TotalWeight: 3}},
		{"one removed", []engine.RealStatus{real(5, engine.CauseRemoved, true), real(1, engine.CauseNone, true), real(0, engine.CauseWeight, true)},
			announce.Facts{NextHop: true, HealthyReals: 1, HealthyWeight: 1, TotalWeight: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := healthFacts(engine.VIPStatus{Reals: tc.reals}); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestSelfTestIsRepeated: one failure may be a table that is being changed, three are not.
func TestSelfTestIsRepeated(t *testing.T) {
	x := newExaminer(instanceFlags{}, "lo", slog.New(slog.DiscardHandler))
	fault := errors.New("fault")
	tested := new(tested)
	for i, step := range []struct {
		err           error
		passed, again bool
	}{
		{fault, false, true}, {nil, true, false}, {fault, true, true}, {fault, true, true}, {nil, true, false},
		{fault, true, true}, {fault, true, true}, {fault, false, false}, {fault, false, false}, {nil, true, false},
	} {
		again := x.note(lb.VIP{}, tested, step.err, time.Time{})
		if tested.passed != step.passed || again != step.again {
			t.Errorf("step %d: passed %t, again %t; want %t, %t", i, tested.passed, again, step.passed, step.again)
		}
	}
}

func TestSameSessions(t *testing.T) {
	peers := func() []config.BGPPeer {
		return []config.BGPPeer{{Address: netip.MustParseAddr("10.0.0.1"), ASN: 65000}}
	}
	base := func() *config.BGP { return &config.BGP{ASN: 65001, Peers: peers()} }
	other := base()
	other.Peers[0].Hold = time.Second
	rules := base()
	rules.Announce.MinReals, rules.Degraded.MED = 3, 7
	for _, tc := range []struct {
		name     string
		old, new *config.BGP
		same     bool
	}{
		{"none", nil, nil, true}, {"equal", base(), base(), true}, {"other rules and attributes", base(), rules, true},
		{"another peer", base(), other, false}, {"it comes", nil, base(), false}, {"it goes", base(), nil, false},
	} {
		if err := sameSessions(tc.old, tc.new); (err == nil) != tc.same {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
}

// TestBGPOfSample: what the full sample says is valid for those who get it, and each class has its
// attributes.
func TestBGPOfSample(t *testing.T) {
	c, err := config.Load("../../configs/full.yaml")
	require.NoError(t, err)
	s := speakerConfig(c.BGP, true, slog.New(slog.DiscardHandler))
	require.NoError(t, s.Validate())
	if !s.Restarting || len(s.Peers) != 2 || !s.Peers[0].BFD.Enabled || len(s.Peers[1].Families) != 2 {
		t.Errorf("the speaker's configuration is %+v", s)
	}
	a := announceConfig(c.BGP.Announce)
	require.NoError(t, a.Validate())
	if a.DegradedPercent != 50 || a.Aggregates[0].Share != announce.ShareAny || a.Damping.Off {
		t.Errorf("the configuration of announcements is %+v", a)
	}
	attributes, err := newAttributes(c.BGP)
	require.NoError(t, err)
	p := netip.MustParsePrefix("192.0.2.1/32")
	got := attributes.routes([]announce.Announcement{{Prefix: p, Class: announce.ClassDraining}, {Prefix: p, Class: announce.ClassDegraded}})
	if len(got) != 2 || got[0].Prefix != p || !slices.Equal(got[0].Communities, []bgp.Community{bgp.GracefulShutdown}) ||
		got[0].LocalPref != 1 || got[1].Prepend != 2 || got[1].MED != 100 {
		t.Errorf("routes %+v", got)
	}
}
