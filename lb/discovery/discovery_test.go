// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

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

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/lb/store"
	"github.com/remora-lb/remora/test/require"
)

type noHops struct{}

func (noHops) Want([]netip.Addr) {}

// discoveryBed is a discovery whose goroutine is the test's.
type discoveryBed struct {
	*Discovery
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
	a := NewAssembly(AssemblyConfig{
		Engine: e, File: FileSet(c),
		Resolve: func(context.Context, []netip.Addr) map[netip.Addr]lb.NextHop { return nil },
		Admit:   func(_ []lb.Service, backends map[string][]lb.Backend) map[string][]lb.Backend { return backends },
	})
	d, err := New(Config{File: c, Left: Recall(s, c, reals, vips, log), Assembly: a, Saver: NewSaver(s, log), Log: log})
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
	b.saver.Flush()
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
	for _, r := range b.State().Refused {
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
	if held := b.State().Held; len(held) != 1 || held[0].Rule.String() != "unreachable" {
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
		for _, h := range b.State().Held {
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
	// Consul may read it no more, and somebody has to say so if Consul goes away meanwhile.
	if left := again.leftWatches(again.cfg); len(left) != 1 {
		t.Errorf("asks for %+v while its end is held", left)
	}
	if held := again.State().Held; len(held) != 1 || held[0].Service != "other@192.0.2.131:80/tcp" || held[0].Rule.String() != "empty" {
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
	if services := again.State().Services; len(services) != 1 {
		t.Errorf("not forgotten: %+v", services)
	}
	if left := again.leftWatches(again.cfg); len(left) > 0 {
		t.Errorf("still asks for %+v", left)
	}
}

// broken is an answer that did not come.
func broken(name, service string, claims bool) consul.Update {
	return consul.Update{Answer: &consul.Answer{Name: name, Service: service, Claims: claims, Err: errors.New("connection refused")}}
}

// TestClaimsWithoutConsul: the end of a claimant is held, and Consul goes away: the hold does not run
// out, though nobody reads the claimant for its claims any more.
func TestClaimsWithoutConsul(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
	b.hear(whole("other", true, instance("b", "10.0.0.2", "remora.vip=192.0.2.131")))
	want := b.lines()
	b.hear(whole("other", true))
	b.assertLines(t, "the claimant has gone", want...)
	b.hear(broken("@other", "other", false))
	b.tick(time.Now().Add(time.Hour))
	b.finish()
	b.assertLines(t, "an hour without Consul", want...)
}

// TestClaimsStayReserved: a claimed VIP is its claimant's until that one has been heard as a whole,
// after a restart and with a new reader.
func TestClaimsStayReserved(t *testing.T) {
	thief := whole("first", true, instance("a", "10.0.0.1", "remora.vip=192.0.2.131"))
	for _, tc := range []struct {
		name  string
		begin func(t *testing.T, s *store.Store, b *discoveryBed) *discoveryBed
	}{
		{"restart", func(t *testing.T, s *store.Store, _ *discoveryBed) *discoveryBed {
			return newDiscoveryBed(t, s, consulFile, nil, nil)
		}},
		{"another reader", func(t *testing.T, _ *store.Store, b *discoveryBed) *discoveryBed {
			b.renew(t, strings.Replace(consulFile, "consul:\n", "consul:\n  token: another\n", 1))
			return b
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t)
			b := newDiscoveryBed(t, s, consulFile, nil, nil)
			b.hear(whole("other", true, instance("b", "10.0.0.2", "remora.vip=192.0.2.131")))
			want := b.lines()
			b = tc.begin(t, s, b)
			b.assertLines(t, "begun", want...)
			if left := b.leftWatches(b.cfg); len(left) != 1 {
				t.Errorf("asks for %+v", left)
			}
			b.hear(broken("other", "other", true), thief)
			b.tick(time.Now().Add(time.Hour))
			b.finish()
			if got := b.lines(); !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
				t.Errorf("the claimed VIP has gone: %q", got)
			}
		})
	}
}

// renew replaces the configuration as the goroutine of the discovery does when it is asked to.
func (b *discoveryBed) renew(t *testing.T, text string) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.Replace(t.Context(), b.cfg, parseConfig(t, text)) }()
	(<-b.asked)()
	require.NoError(t, <-done)
}

// TestStartFollowsTheFile: what an earlier run left of a service that the file no longer names, and
// of an overlay that it no longer has, is not in force for a moment.
func TestStartFollowsTheFile(t *testing.T) {
	s := newStore(t)
	b := newDiscoveryBed(t, s, consulFile, nil, nil)
	b.hear(whole("web", false, instance("a", "10.0.0.1")), whole("other", true, instance("b", "10.0.0.2", "remora.vip=192.0.2.131")),
		overlay(`{"service": "web", "action": "freeze", "author": "ada", "reason": "audit", "expires": "2100-01-01T00:00:00Z"}`))
	if len(b.governor.Frozen()) != 1 {
		t.Fatal("it is not frozen")
	}
	fewer := newDiscoveryBed(t, s, strings.Replace(consulFile, "  overlay: remora/overlay/\n", "", 1), nil, nil)
	if frozen := fewer.governor.Frozen(); len(frozen) > 0 {
		t.Errorf("without the overlay, its freeze stays: %+v", frozen)
	}
	none := newDiscoveryBed(t, s, "interface: eth0\nservices: []\n", nil, nil)
	none.assertLines(t, "the file names nothing")
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
	go func() { done <- b.Run(ctx) }()
	next := parseConfig(t, strings.Replace(file, "consul:\n", "consul:\n  token: another\n", 1))
	require.NoError(t, b.Replace(ctx, b.cfg, next))
	require.NoError(t, b.Replace(ctx, next, parseConfig(t, old)))
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

// TestLocalChecksConfirm: a loss that is held goes when the local checks find the backend down, and not
// before.
func TestLocalChecksConfirm(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), consulFile, nil, nil)
	b.hear(whole("web", false, instance("a", "10.0.0.1"), instance("b", "10.0.0.2")))
	b.hear(whole("web", false))
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var last Verdicts
	tell := func(next Verdicts) {
		b.setLocal(last, next, time.Now())
		b.finish()
		last = next
	}
	tell(Verdicts{"web": {one: governor.LocalUp, two: governor.LocalUnknown}})
	both := []string{"web: 10.0.0.1 weight 2 down false", "web: 10.0.0.2 weight 2 down false"}
	b.assertLines(t, "none is down", both...)
	tell(Verdicts{"web": {one: governor.LocalDown, two: governor.LocalUnknown}})
	b.assertLines(t, "one is down", both[1])
	tell(nil)
	b.assertLines(t, "no checks any more", both[1])
}

const definingFile = `
interface: eth0
consul:
  definitions: {folder: remora/services/, services: ["web-*"], prefixes: [192.0.2.0/25]}
  claims: [{services: ["*"], prefixes: [192.0.2.0/25]}]
governor: {radius: {reals: 100}, damping: {suppress: 0}}
services:
  - {name: fixed, vips: [192.0.2.1:80/tcp], backends: [10.0.0.9]}
`

// folder is a reading of the definitions: keys and texts in turn.
func folder(keysAndTexts ...string) consul.Update {
	p := &consul.Pairs{Prefix: "remora/services/", Facts: consul.Facts{Status: 200, KnownLeader: true}}
	for i := 0; i < len(keysAndTexts); i += 2 {
		p.Pairs = append(p.Pairs, consul.Pair{Key: keysAndTexts[i], Value: []byte(keysAndTexts[i+1])})
	}
	return consul.Update{Definitions: p}
}

// TestDefinitions: services of the key-value store are there as a whole or not at all, stay while it
// cannot be read, over restarts too, and go as the governor lets them.
func TestDefinitions(t *testing.T) {
	s := newStore(t)
	b := newDiscoveryBed(t, s, definingFile, nil, nil)
	one := `{name: web-a, vips: [192.0.2.2:80/tcp], backends: [10.0.0.1, 10.0.0.2]}`
	two := `{"name": "web-b", "vips": ["192.0.2.3:80/tcp"], "source": {"consul": {"service": "web"}}}`
	b.hear(folder("a", one, "b", two))
	if w := watches(b.Discovery.cfg); len(w) != 1 || w[0].Name != "web-b" || w[0].Service != "web" {
		t.Errorf("it watches %+v", w)
	}
	answer := whole("web", false, instance("n", "10.0.0.5"))
	answer.Answer.Name = "web-b"
	b.hear(answer)
	want := []string{
		"web-a has 192.0.2.2:80/tcp", "web-a: 10.0.0.1 weight 1 down false", "web-a: 10.0.0.2 weight 1 down false",
		"web-b has 192.0.2.3:80/tcp", "web-b: 10.0.0.5 weight 2 down false",
	}
	b.assertLines(t, "defined", want...)

	bad := `{name: web-a, vips: [192.0.2.2:80/tcp, 192.0.2.200:80/tcp], backends: [10.0.0.7]}`
	b.hear(folder("a", bad, "b", two, "c", `{name: fixed, vips: [192.0.2.4:80/tcp]}`, "d", `{name: web-d, vips: [192.0.2.3:80/tcp]}`))
	if diff := cmp.Diff(append([]string{
		"not used:  a: VIP 192.0.2.200:80/tcp is in none of consul.definitions.prefixes; the definition before it stays",
		"not used:  c: c:1: name: duplicate name \"fixed\": already that of services[0] (line 8): expected another",
		`not used:  d: VIP 192.0.2.3:80/tcp is that of service "web-b", which "b" defines`,
	}, want...), b.lines()); diff != "" {
		t.Error(diff)
	}
	b.hear(consul.Update{Definitions: &consul.Pairs{Prefix: "remora/services/", Err: errors.New("gone")}})
	again := newDiscoveryBed(t, s, definingFile, nil, nil)
	again.assertLines(t, "over a restart, without Consul", want...)
	again.hear(folder("a", strings.Replace(one, ", 10.0.0.2", ", 10.0.0.3", 1), "b", two))
	again.assertLines(t, "changed", want[0], want[1], "web-a: 10.0.0.3 weight 1 down false", want[3], want[4])

	again.hear(folder())
	held := again.State().Held
	if len(held) != 3 || held[0].Rule.String() != "empty" {
		t.Errorf("an empty folder: held %+v", held)
	}
	again.assertLines(t, "an empty folder", want[0], want[1], "web-a: 10.0.0.3 weight 1 down false", want[3], want[4])
	// A claim cannot take the VIP meanwhile.
	again.hear(whole("thief", true, instance("x", "10.0.0.8", "remora.vip=192.0.2.2:80/tcp")))
	if got := again.lines(); slices.Contains(got, "thief@192.0.2.2:80/tcp has 192.0.2.2:80/tcp") {
		t.Errorf("the VIP of a defined service was claimed: %q", got)
	}
	again.hear(whole("thief", true))
	again.tick(time.Now().Add(time.Hour))
	again.finish()
	again.assertLines(t, "let go")
	if len(again.defined) != 0 || len(again.State().Services) != 0 {
		t.Errorf("not forgotten: %+v %+v", again.defined, again.State().Services)
	}
}

// TestDefinitionsFollowTheFile: what the file does not allow any more goes with a reload.
func TestDefinitionsFollowTheFile(t *testing.T) {
	b := newDiscoveryBed(t, newStore(t), definingFile, nil, nil)
	b.hear(folder("a", `{name: web-a, vips: [192.0.2.2:80/tcp], backends: [10.0.0.1]}`))
	b.renew(t, strings.Replace(definingFile, `services: ["web-*"]`, `services: ["web-b*"]`, 1))
	b.forget(time.Now())
	b.finish()
	b.assertLines(t, "not allowed any more", `not used:  a: service "web-a" may not be defined: it is none of consul.definitions.services`)
	b.renew(t, definingFile)
	b.assertLines(t, "allowed again", "web-a has 192.0.2.2:80/tcp", "web-a: 10.0.0.1 weight 1 down false")
}
