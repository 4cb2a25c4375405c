// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
	"github.com/remora-lb/remora/lb/store"
	"github.com/remora-lb/remora/test/require"
)

type noHops struct{}

func (noHops) Want([]netip.Addr) {}

// discoveryBed is a discovery whose goroutine is the test's.
type discoveryBed struct {
	*discovery
	store *store.Store
	cfg   *config.Config
}

// consulFile is a file with a service from Consul, and rules for claims.
const consulFile = `
interface: eth0
consul:
  overlay: remora/overlay/
  claims:
    - {services: [first, "web-*"], prefixes: [192.0.2.128/25]}
    - {services: ["*"], prefixes: [192.0.2.128/25]}
governor: {radius: {reals: 100}, damping: {suppress: 0}}
services:
  - name: web
    vips: [192.0.2.10:80/tcp]
    source: {consul: {service: web}}
  - name: fixed
    vips: [192.0.2.200:80/tcp]
    backends: [10.0.0.9]
`

func parseConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

// newDiscoveryBed makes a discovery that goes on from what the store has.
func newDiscoveryBed(t *testing.T, s *store.Store, text string, reals []lb.Real, vips []lb.VIPEntry) *discoveryBed {
	t.Helper()
	e, err := engine.New(engine.DefaultConfig(), enginetest.NewDataplane(t, 1), noHops{})
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	c := parseConfig(t, text)
	a := newAssembly(e, func(context.Context, []netip.Addr) map[netip.Addr]lb.NextHop { return nil })
	a.admit = func(_ []lb.Service, backends map[string][]lb.Backend) map[string][]lb.Backend { return backends }
	a.file = fileSet(c)
	d, err := newDiscovery(c, recall(s, c, reals, vips, log), a, newJudgedSaver(s, log), log)
	require.NoError(t, err)
	return &discoveryBed{d, s, c}
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// hear has the discovery read updates, as its goroutine would, and save.
func (b *discoveryBed) hear(updates ...consul.Update) {
	for _, u := range updates {
		b.inbox.put(u)
	}
	b.read(b.inbox.take(), time.Now())
	b.finish()
	b.saver.flush()
}

// lines are what was handed over: a line for each VIP and each backend, and what is not used.
func (b *discoveryBed) lines() []string {
	var lines []string
	for _, s := range b.assembly.services {
		lines = append(lines, fmt.Sprintf("%s has %s", s.Name, s.VIPs[0].VIP))
	}
	for name, list := range b.assembly.backends {
		for _, one := range list {
			lines = append(lines, fmt.Sprintf("%s: %s weight %d down %v", name, one.Addr, one.Weight, one.Down))
		}
	}
	for _, r := range b.state().Refused {
		lines = append(lines, fmt.Sprintf("not used: %s %s: %s", r.Service, r.Object, r.Reason))
	}
	slices.Sort(lines)
	return lines
}

func (b *discoveryBed) assertLines(t *testing.T, what string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, append([]string{}, b.lines()...)); diff != "" {
		t.Errorf("%s: -want +got:\n%s", what, diff)
	}
}

func instance(node, address string, tags ...string) consul.Instance {
	return consul.Instance{
		Node:    consul.Node{Name: node, Address: address},
		Service: consul.Service{ID: "s", Port: 80, Tags: tags, Weights: consul.Weights{Passing: 2, Warning: 1}},
	}
}

func whole(service string, claims bool, list ...consul.Instance) consul.Update {
	return consul.Update{Answer: &consul.Answer{
		Name: service, Service: service, Claims: claims, Instances: list, Facts: consul.Facts{Status: 200, KnownLeader: true},
	}}
}

func overlay(documents ...string) consul.Update {
	p := &consul.Pairs{Prefix: "remora/overlay/", Facts: consul.Facts{Status: 200, KnownLeader: true}}
	for i, d := range documents {
		p.Pairs = append(p.Pairs, consul.Pair{Key: fmt.Sprint(i), Value: []byte(d)})
	}
	return consul.Update{Overlay: p}
}

// TestAnswersBecomeBackends: what an instance is, and what speaks against it.
func TestAnswersBecomeBackends(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
	b.assertLines(t, "nothing is known")
	critical := instance("b", "10.0.0.2")
	critical.Checks = []consul.Check{{CheckID: "c", Status: "critical"}}
	resting := instance("c", "10.0.0.3")
	resting.Checks = []consul.Check{{CheckID: "_node_maintenance", Status: "critical"}}
	elsewhere := instance("d", "10.0.0.4")
	elsewhere.Service.Port = 81
	b.hear(whole("web", false, instance("a", "10.0.0.1"), critical, resting, elsewhere))
	want := []string{
		"not used: web d/s: port 81 is not the VIP's 80: encapsulation cannot translate ports",
		"web: 10.0.0.1 weight 2 down false",
		"web: 10.0.0.2 weight 2 down true",
		"web: 10.0.0.3 weight 0 down false",
	}
	b.assertLines(t, "whole", want...)
	b.hear(consul.Update{Answer: &consul.Answer{Name: "web", Service: "web", Err: errors.New("connection refused")}})
	b.assertLines(t, "an answer that did not come", want...)
	if held := b.state().Held; len(held) != 1 || held[0].Rule.String() != "unreachable" {
		t.Errorf("held: %+v", held)
	}
	b.hear(whole("web", false))
	b.assertLines(t, "empty: what gets nothing may go", want[1], want[3])
}

// TestOverlay: overrides change what Consul says; what is none is told; they end by themselves.
func TestOverlay(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
	const by = `"author": "ada", "reason": "disk", "expires": "2100-01-01T00:00:00Z"}`
	b.hear(whole("web", false, instance("a", "10.0.0.1"), instance("b", "10.0.0.2")),
		overlay(`{"service": "web", "action": "drain", "backend": "10.0.0.1", `+by, `{"service": "web", "action": "weight", "node": "b", "factor": 4, `+by, `{"service": "web"}`))
	lines := b.lines()
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "not used:  remora/overlay/2: ") {
		t.Errorf("%q", lines)
	}
	want := []string{"web: 10.0.0.1 weight 0 down false", "web: 10.0.0.2 weight 8 down false"}
	if diff := cmp.Diff(want, lines[1:]); diff != "" {
		t.Error(diff)
	}
	b.hear(consul.Update{Overlay: &consul.Pairs{Prefix: "remora/overlay/", Err: errors.New("gone")}})
	if got := b.lines()[1:]; !slices.Equal(got, want) {
		t.Errorf("without the folder: %q", got)
	}
	expires := time.Now().Add(time.Hour)
	b.hear(overlay(`{"service": "web", "action": "drain", "backend": "10.0.0.1", "author": "ada", "reason": "disk", "expires": "` + expires.Format(time.RFC3339) + `"}`))
	b.assertLines(t, "another override", "web: 10.0.0.1 weight 0 down false", "web: 10.0.0.2 weight 2 down false")
	b.tick(expires.Add(time.Second))
	b.finish()
	b.assertLines(t, "its end", "web: 10.0.0.1 weight 2 down false", "web: 10.0.0.2 weight 2 down false")
}

// TestFreezeByOverlay: a freeze of the overlay ends with its document, also if that went while the
// daemon was away; an operator's own does not.
func TestFreezeByOverlay(t *testing.T) {
	s := newStore(t)
	b := newDiscoveryBed(t, s, consulFile, nil, nil)
	b.hear(whole("web", false, instance("a", "10.0.0.1")),
		overlay(`{"service": "web", "action": "freeze", "author": "ada", "reason": "audit", "expires": "2100-01-01T00:00:00Z"}`))
	frozen := []string{"web: 10.0.0.1 weight 2 down false"}
	b.hear(whole("web", false, instance("b", "10.0.0.2")))
	b.assertLines(t, "frozen", frozen...)
	again := newDiscoveryBed(t, s, consulFile, nil, nil)
	again.hear(whole("web", false, instance("b", "10.0.0.2")))
	again.assertLines(t, "frozen over a restart", frozen...)
	again.hear(overlay())
	again.assertLines(t, "thawed", "web: 10.0.0.2 weight 2 down false")
}

// TestClaims: whatever the order of the answers, each VIP goes to the same service, and the others
// are told why not.
func TestClaims(t *testing.T) {
	answers := []consul.Update{
		whole("first", true, instance("a", "10.0.0.1", "remora.vip=192.0.2.130:80/tcp")),
		whole("other", true, instance("b", "10.0.0.2", "remora.vip=192.0.2.130,192.0.2.131"), instance("c", "10.0.0.3", "remora.vip=192.0.2.131")),
		whole("thief", true, instance("d", "10.0.0.4", "remora.vip=192.0.2.200,192.0.2.10,198.51.100.1")),
	}
	want := []string{
		"first@192.0.2.130:80/tcp has 192.0.2.130:80/tcp",
		"first@192.0.2.130:80/tcp: 10.0.0.1 weight 2 down false",
		`not used: other 192.0.2.130:80/tcp: service "first" claims it, too, and goes before`,
		`not used: thief d/s 192.0.2.10: the VIP is that of service "web" in the file`,
		`not used: thief d/s 192.0.2.200: the VIP is that of service "fixed" in the file`,
		"not used: thief d/s 198.51.100.1: address 198.51.100.1 is in no prefix that the service may claim",
		"other@192.0.2.131:80/tcp has 192.0.2.131:80/tcp",
		"other@192.0.2.131:80/tcp: 10.0.0.2 weight 2 down false",
		"other@192.0.2.131:80/tcp: 10.0.0.3 weight 2 down false",
	}
	slices.Sort(want)
	for seed := range uint64(6) {
		b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
		r := rand.New(rand.NewPCG(seed, 0))
		for _, i := range r.Perm(len(answers)) {
			b.hear(answers[i])
		}
		// What a loser had for a moment goes when it is let go: an operator need not wait.
		for _, h := range b.state().Held {
			r, err := b.governor.Accept(h.Service, time.Now())
			require.NoError(t, err)
			b.note(r)
		}
		b.finish()
		b.assertLines(t, fmt.Sprintf("order of seed %d", seed), want...)
	}
}

// TestClaimsOverRestart: what a claimant had is there at once after a restart; one that has gone
// meanwhile is asked for, and goes when it says so itself.
func TestClaimsOverRestart(t *testing.T) {
	s := newStore(t)
	b := newDiscoveryBed(t, s, consulFile, nil, nil)
	b.hear(whole("other", true, instance("b", "10.0.0.2", "remora.vip=192.0.2.131")))
	want := b.lines()
	again := newDiscoveryBed(t, s, consulFile, nil, nil)
	again.assertLines(t, "restarted", want...)
	left := again.leftWatches(again.cfg)
	if len(left) != 1 || left[0].Service != "other" || left[0].Name != "@other" {
		t.Fatalf("asks for %+v", left)
	}
	// Meanwhile another claims the VIP: it has to wait for the one that had it.
	again.hear(whole("first", true, instance("a", "10.0.0.1", "remora.vip=192.0.2.131")))
	if got := again.lines(); !slices.Contains(got, want[0]) {
		t.Errorf("the VIP was taken: %q", got)
	}
	gone := whole("other", false)
	gone.Answer.Name = "@other"
	again.hear(gone)
	if left := again.leftWatches(again.cfg); len(left) > 0 {
		t.Errorf("still asks for %+v", left)
	}
	if held := again.state().Held; len(held) != 1 || held[0].Service != "other@192.0.2.131:80/tcp" || held[0].Rule.String() != "empty" {
		t.Errorf("held: %+v", held)
	}
	again.hear(whole("first", true, instance("a", "10.0.0.1", "remora.vip=192.0.2.131")))
	again.assertLines(t, "the next has it, the last is yet to go", "first@192.0.2.131:80/tcp has 192.0.2.131:80/tcp",
		"first@192.0.2.131:80/tcp: 10.0.0.1 weight 2 down false", "other@192.0.2.131:80/tcp: 10.0.0.2 weight 2 down false")
	r, err := again.governor.Accept("other@192.0.2.131:80/tcp", time.Now())
	require.NoError(t, err)
	again.note(r)
	again.finish()
	again.assertLines(t, "it is gone", "first@192.0.2.131:80/tcp has 192.0.2.131:80/tcp", "first@192.0.2.131:80/tcp: 10.0.0.1 weight 2 down false")
	if services := again.state().Services; len(services) != 1 {
		t.Errorf("not forgotten: %+v", services)
	}
}

// TestRecallFromTheDataPlane: where nothing was saved, what the data plane has is the last known good.
func TestRecallFromTheDataPlane(t *testing.T) {
	real := func(id lb.RealID, vip, addr string, use lb.RealUse, weight uint32) lb.Real {
		v, err := lb.ParseVIP(vip)
		require.NoError(t, err)
		return lb.Real{ID: id, VIP: v, Backend: lb.Backend{Addr: netip.MustParseAddr(addr), Weight: weight}, Use: use}
	}
	reals := []lb.Real{
		real(1, "192.0.2.10:80/tcp", "10.0.0.1", lb.RealActive, 5), real(2, "192.0.2.10:80/tcp", "10.0.0.2", lb.RealDraining, 1),
		real(3, "192.0.2.10:80/tcp", "10.0.0.3", lb.RealRetired, 1), real(4, "192.0.2.200:80/tcp", "10.0.0.9", lb.RealActive, 1),
		real(5, "192.0.2.131:80/tcp", "10.0.0.4", lb.RealActive, 1),
	}
	vips := []lb.VIPEntry{
		{VIP: reals[0].VIP, Service: "web", RingID: 1}, {VIP: reals[3].VIP, Service: "fixed", RingID: 2},
		{VIP: reals[4].VIP, Service: "other@192.0.2.131:80/tcp", RingID: 3},
	}
	s := newStore(t)
	b := newDiscoveryBed(t, s, consulFile, reals, vips)
	b.assertLines(t, "recalled", "other@192.0.2.131:80/tcp has 192.0.2.131:80/tcp", "other@192.0.2.131:80/tcp: 10.0.0.4 weight 1 down false",
		"web: 10.0.0.1 weight 5 down false", "web: 10.0.0.2 weight 0 down false")
	b.hear(whole("web", false, instance("a", "10.0.0.7")))
	// What was saved goes before what the data plane has.
	again := newDiscoveryBed(t, s, consulFile, reals, vips)
	if got := again.lines(); !slices.Contains(got, "web: 10.0.0.7 weight 2 down false") || slices.Contains(got, "web: 10.0.0.1 weight 5 down false") {
		t.Errorf("recalled %q", got)
	}
}

// TestReplaceKeepsBackends: a service that comes from the file keeps its servers until Consul has
// answered; one that the file no longer names is forgotten, but not before retain.
func TestReplaceKeepsBackends(t *testing.T) {
	file := strings.Replace(consulFile, "overlay: remora/overlay/", "addresses: [\"unix:///nowhere\"]", 1)
	old := strings.Replace(file, "source: {consul: {service: web}}", "backends: [10.0.0.1, 10.0.0.2]", 1)
	b := newDiscoveryBed(t, newStore(t), old, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.run(ctx) }()
	next := parseConfig(t, strings.Replace(file, "consul:\n", "consul:\n  token: another\n", 1))
	require.NoError(t, b.replace(ctx, b.cfg, next))
	require.NoError(t, b.replace(ctx, next, parseConfig(t, old)))
	cancel()
	require.NoError(t, <-done)
	kept := []string{"web: 10.0.0.1 weight 1 down false", "web: 10.0.0.2 weight 1 down false"}
	b.assertLines(t, "before retain", kept...)
	b.forget(time.Now())
	b.finish()
	b.assertLines(t, "after")
	if left := maps.Keys(b.answers); len(slices.Collect(left)) != 0 {
		t.Errorf("answers are left: %v", b.answers)
	}
}

// TestLocalChecksConfirm: a loss that is held goes when the local checks find the backend down for
// every VIP, and not before.
func TestLocalChecksConfirm(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
	b.hear(whole("web", false, instance("a", "10.0.0.1"), instance("b", "10.0.0.2")))
	b.hear(whole("web", false))
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	h := &health{patients: make(map[lb.Target]*patient)}
	find := func(addr netip.Addr, states ...healthcheck.State) {
		for i, s := range states {
			h.patients[lb.Target{VIP: lb.VIP{Port: uint16(i)}, Backend: addr}] = &patient{service: "web", verdict: healthcheck.Verdict{State: s}}
		}
	}
	var last localVerdicts
	tell := func() {
		next := h.verdicts()
		b.setLocal(last, next, time.Now())
		b.finish()
		last = next
	}
	find(one, healthcheck.Down, healthcheck.Up)
	find(two, healthcheck.Unknown, healthcheck.Down)
	tell()
	both := []string{"web: 10.0.0.1 weight 2 down false", "web: 10.0.0.2 weight 2 down false"}
	b.assertLines(t, "not down for all VIPs", both...)
	find(one, healthcheck.Down, healthcheck.Down)
	tell()
	b.assertLines(t, "down for all VIPs", both[1])
	clear(h.patients)
	tell()
	b.assertLines(t, "no checks any more", both[1])
}
