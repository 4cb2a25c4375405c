// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/dataplane"
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

// TestSelfTestOfOurOwn: that a self-test cannot be made says nothing about the VIP.
func TestSelfTestOfOurOwn(t *testing.T) {
	x := newExaminer(instanceFlags{}, "lo", slog.New(slog.DiscardHandler))
	own := fmt.Errorf("%w: run program: operation not permitted", errNotTested)
	for _, passed := range []bool{false, true} {
		tested := &tested{passed: passed, failures: 2}
		for range 2 * testTries {
			if x.note(lb.VIP{}, tested, own, time.Time{}) || tested.passed != passed || tested.unmade == "" {
				t.Errorf("%+v, want passed %t as before", tested, passed)
			}
		}
		if x.note(lb.VIP{}, tested, nil, time.Time{}); !tested.passed || tested.unmade != "" {
			t.Errorf("it passed: %+v", tested)
		}
	}
	// The same of a program that cannot be opened: it is not taken for gone.
	x.attached, x.open = true, func() (*ebpf.Program, error) { return nil, errors.New("too many open files") }
	vip := mustVIP(t, "192.0.2.1:80/tcp")
	x.tests[vip], x.announceable = &tested{passed: true}, func(lb.VIP) (bool, string) { return true, "" }
	s := engine.Status{Settled: true, Services: []engine.ServiceStatus{{VIPs: []engine.VIPStatus{{VIPEntry: lb.VIPEntry{VIP: vip}}}}}}
	for range 2 * testTries {
		facts, _ := x.facts([]lb.VIP{vip}, s, time.Now())
		if f := facts[vip]; !f.Attached || !f.SelfTest || !strings.Contains(f.Untested, "too many open files") {
			t.Fatalf("facts %+v", f)
		}
	}
	x.open = func() (*ebpf.Program, error) { return nil, dataplane.ErrNotAttached }
	for range testTries {
		x.facts([]lb.VIP{vip}, s, time.Now())
	}
	if x.attached {
		t.Error("it is still taken for attached")
	}
}

// TestRemovedOverARestart: a VIP that the daemon before announced, and that the file lacks now, is
// drained as after a reload: it is kept in the data plane with its servers, and announced as draining.
func TestRemovedOverARestart(t *testing.T) {
	vip, other := mustVIP(t, "192.0.2.1:80/tcp"), mustVIP(t, "192.0.2.2:80/tcp")
	real := func(addr string, cause engine.Cause) engine.RealStatus {
		a := netip.MustParseAddr(addr)
		tunnel, err := lb.TunnelSources{GUE4: netip.MustParseAddr("10.9.9.9"), GUEPort: 6081, GUEChecksum: true}.Tunnel(lb.GUE, a)
		require.NoError(t, err)
		return engine.RealStatus{Real: lb.Real{VIP: vip, Backend: lb.Backend{Addr: a, Weight: 3}, Tunnel: tunnel}, Absence: engine.Absence{Cause: cause}}
	}
	left := engine.Status{Services: []engine.ServiceStatus{{Name: "web", VIPs: []engine.VIPStatus{
		{VIPEntry: lb.VIPEntry{VIP: vip, Service: "web", Ring: lb.Ring{Size: 251}, Flows: lb.FlowAlways},
			Reals: []engine.RealStatus{real("10.0.0.1", engine.CauseNone), real("10.0.0.2", engine.CauseDown), real("10.0.0.3", engine.CauseRemoved)}},
		{VIPEntry: lb.VIPEntry{VIP: other, Service: "web"}},
	}}}}
	x := newExaminer(instanceFlags{}, "lo", slog.New(slog.DiscardHandler))
	x.adopted[vip] = true
	k := newKeeper(func() {})
	k.seed(adoptedVIPs(left, x.adopted, lb.DefaultTunnelSources()))
	services, backends := k.complete(nil, map[string][]lb.Backend{})
	want := []lb.Service{{Name: "web", VIPs: []lb.ServiceVIP{{
		VIP: vip, Encap: lb.GUE, Ring: lb.Ring{Size: 251}, Flows: lb.FlowAlways, Leave: lb.DefaultLeave(), Tunnel: lb.DefaultTunnelSources(),
	}}}}
	want[0].VIPs[0].Tunnel.GUE4, want[0].VIPs[0].Tunnel.GUEPort, want[0].VIPs[0].Tunnel.GUEChecksum = netip.MustParseAddr("10.9.9.9"), 6081, true
	if !reflect.DeepEqual(services, want) {
		t.Errorf("services %+v, want %+v", services, want)
	}
	servers := []lb.Backend{{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 3}, {Addr: netip.MustParseAddr("10.0.0.2"), Weight: 3, Down: true}}
	if !slices.Equal(backends["web"], servers) {
		t.Errorf("servers %+v, want %+v", backends["web"], servers)
	}

	m, err := announce.New(announce.Config{})
	require.NoError(t, err)
	a := &announcer{machine: m, examiner: x, keeper: k}
	now := time.Now()
	a.resume(k.configured(), now)
	r := m.Step(now, announce.Inputs{})
	if len(r.VIPs) != 1 || r.VIPs[0].State != announce.Draining || len(r.Announcements) != 1 || r.Announcements[0].Class != announce.ClassDraining {
		t.Fatalf("decided: %+v", r)
	}
	a.resume(k.configured(), now)
	r = m.Step(now.Add(time.Hour), announce.Inputs{})
	for r.Next != (time.Time{}) {
		r = m.Step(r.Next, announce.Inputs{})
	}
	if len(r.VIPs) != 0 || !k.release(nil) {
		t.Errorf("in the end it is still there: %+v", r.VIPs)
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

// TestAnnouncementInTrouble: what is decided and cannot be said is not shown as announced.
func TestAnnouncementInTrouble(t *testing.T) {
	for _, tc := range []struct {
		name, trouble string
		decided, want bool
		reason        string
	}{
		{"announced", "", true, true, "because"},
		{"announced, and nobody speaks", "BGP does not run: port taken", true, false, "because; but nothing is announced: BGP does not run: port taken"},
		{"not announced, and nobody speaks", "BGP does not run: port taken", false, false, "because"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := announcement(announce.Status{Announced: tc.decided, Reason: "because"}, tc.trouble)
			if got.Announced != tc.want || got.Reason != tc.reason {
				t.Errorf("announced %t: %q; want %t: %q", got.Announced, got.Reason, tc.want, tc.reason)
			}
		})
	}
}
