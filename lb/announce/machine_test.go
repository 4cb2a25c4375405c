// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// The VIPs of the tests: web and tls share an address.
const (
	web = "192.0.2.10:80/tcp"
	tls = "192.0.2.10:443/tcp"
	dns = "[2001:db8::53]:53/udp"
)

// ready are the facts of a VIP that lacks nothing.
func ready() Facts {
	return Facts{Attached: true, SelfTest: true, NextHop: true, HealthKnown: true, HealthyReals: 10, HealthyWeight: 100, TotalWeight: 100}
}

// world is the inputs as a test changes them.
type world struct {
	t     *testing.T
	drain bool
	facts map[string]*Facts
}

func (w *world) inputs() Inputs {
	in := Inputs{Drain: w.drain, VIPs: make(map[lb.VIP]Facts)}
	for name, f := range w.facts {
		v, err := lb.ParseVIP(name)
		require.NoError(w.t, err)
		in.VIPs[v] = *f
	}
	return in
}

// healthy sets how much of the weight, and how many of ten reals, are healthy.
func healthy(name string, percent int) func(*world) {
	return func(w *world) { w.facts[name].HealthyWeight, w.facts[name].HealthyReals = uint64(percent), percent/10 }
}

func add(name string, f Facts) func(*world) { return func(w *world) { w.facts[name] = &f } }

func remove(name string) func(*world) { return func(w *world) { delete(w.facts, name) } }

func change(name string, f func(*Facts)) func(*world) { return func(w *world) { f(w.facts[name]) } }

func drainNode(on bool) func(*world) { return func(w *world) { w.drain = on } }

func drainVIP(name string, on bool) func(*world) {
	return change(name, func(f *Facts) { f.Drain = on })
}

func fleet(name string, other Fleet) func(*world) {
	return change(name, func(f *Facts) { f.Fleet = other })
}

func nothing(*world) {}

// step is what happens at a time, and what comes of it.
type step struct {
	// at is the time in seconds since the start.
	at     int
	change func(*world)
	// announced are prefixes and classes, states are those of all VIPs with their codes.
	announced, states string
	// next is when to look again, in seconds since the start; 0 for never.
	next int
}

// config has short times and no damping.
func config(change ...func(*Config)) Config {
	cfg := Config{
		MinReals: 2, MinWeightPercent: 10, DegradedPercent: 50, DegradedHold: 10 * time.Second,
		DrainTime: 60 * time.Second, WithdrawTime: 5 * time.Second, Damping: Damping{Off: true},
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func TestSequences(t *testing.T) {
	const host = "192.0.2.10/32 "
	for _, tc := range []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"a VIP gets ready fact by fact", config(func(c *Config) { c.LearnTime = 20 * time.Second }), []step{
			{0, add(web, Facts{}), "", "web waiting not_attached", 0},
			{1, change(web, func(f *Facts) { f.Attached = true }), "", "web waiting self_test", 0},
			{2, change(web, func(f *Facts) { f.SelfTest = true }), "", "web waiting next_hop", 0},
			{3, change(web, func(f *Facts) { f.NextHop = true }), "", "web waiting health_round", 0},
			{4, change(web, func(f *Facts) { f.HealthKnown = true }), "", "web waiting too_few_healthy", 0},
			{5, change(web, func(f *Facts) { *f = ready() }), "", "web waiting learning", 25},
			{24, nothing, "", "web waiting learning", 25},
			{25, nothing, host + "normal", "web announced served", 0},
		}},
		{"the learn time begins anew when something breaks, and does not come back", config(func(c *Config) { c.LearnTime = 20 * time.Second }), []step{
			{0, add(web, ready()), "", "web waiting learning", 20},
			{10, change(web, func(f *Facts) { f.NextHop = false }), "", "web waiting next_hop", 0},
			{12, change(web, func(f *Facts) { f.NextHop = true }), "", "web waiting learning", 32},
			{32, nothing, host + "normal", "web announced served", 0},
			{40, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{41, healthy(web, 100), host + "normal", "web announced served", 0},
			{50, change(web, func(f *Facts) { f.Attached = false }), "", "web waiting not_attached", 0},
			{51, change(web, func(f *Facts) { f.Attached = true }), "", "web waiting learning", 71},
		}},
		{"weight below and above the threshold", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, healthy(web, 50), host + "normal", "web announced served", 0},
			{2, healthy(web, 40), host + "degraded", "web degraded low_weight", 0},
			{3, healthy(web, 60), host + "degraded", "web degraded recovering", 13},
			{9, healthy(web, 40), host + "degraded", "web degraded low_weight", 0},
			{10, healthy(web, 60), host + "degraded", "web degraded recovering", 20},
			{20, nothing, host + "normal", "web announced served", 0},
			{21, healthy(web, 10), "", "web waiting too_few_healthy", 0},
			{22, healthy(web, 20), host + "degraded", "web degraded low_weight", 0},
		}},
		{"a fault of the data plane withdraws at once", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, change(web, func(f *Facts) { f.SelfTest = false }), "", "web waiting self_test", 0},
			{2, change(web, func(f *Facts) { f.SelfTest = true }), host + "normal", "web announced served", 0},
			{3, change(web, func(f *Facts) { f.HealthKnown = false; f.HealthyReals = 0 }), host + "normal", "web announced served", 0},
		}},
		{"drain of a VIP, to the end", config(), []step{
			{0, func(w *world) { add(web, ready())(w); add(dns, ready())(w) }, host + "normal, 2001:db8::53/128 normal", "web announced served, dns announced served", 0},
			{1, drainVIP(web, true), host + "draining, 2001:db8::53/128 normal", "web draining drain_vip, dns announced served", 61},
			{60, nothing, host + "draining, 2001:db8::53/128 normal", "web draining drain_vip, dns announced served", 61},
			{61, nothing, "2001:db8::53/128 normal", "web draining drain_vip, dns announced served", 66},
			{66, nothing, "2001:db8::53/128 normal", "web withdrawn drain_vip, dns announced served", 0},
			{70, drainVIP(web, false), host + "normal, 2001:db8::53/128 normal", "web announced served, dns announced served", 0},
		}},
		{"drain taken back while announced, and while withdrawn", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, drainNode(true), host + "draining", "web draining drain_node", 61},
			{5, drainNode(false), host + "normal", "web announced served", 0},
			{6, drainNode(true), host + "draining", "web draining drain_node", 66},
			{66, nothing, "", "web draining drain_node", 71},
			{67, drainNode(false), host + "normal", "web announced served", 0},
		}},
		{"a draining VIP that fails is withdrawn before its time", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, drainNode(true), host + "draining", "web draining drain_node", 61},
			{9, healthy(web, 0), "", "web draining drain_node", 14},
			{14, nothing, "", "web withdrawn drain_node", 0},
		}},
		{"a drain right after a failure waits for the routers", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{3, drainNode(true), "", "web draining drain_node", 6},
			{6, nothing, "", "web withdrawn drain_node", 0},
		}},
		{"a VIP that is drained from the start", config(), []step{
			{0, func(w *world) { add(web, ready())(w); w.drain = true }, "", "web withdrawn drain_node", 0},
		}},
		{"a removed VIP is drained and forgotten", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, remove(web), host + "draining", "web draining removed", 61},
			{61, nothing, "", "web draining removed", 66},
			{66, nothing, "", "", 0},
		}},
		{"a removed VIP that comes back", config(), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, remove(web), host + "draining", "web draining removed", 61},
			{2, add(web, ready()), host + "normal", "web announced served", 0},
		}},
		{"damping after three failures in a short time", config(func(c *Config) { c.Damping = Damping{} }), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{2, healthy(web, 100), host + "normal", "web announced served", 0},
			{3, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{4, healthy(web, 100), host + "normal", "web announced served", 0},
			{5, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{6, healthy(web, 100), "", "web waiting damped", 118},
			{117, nothing, "", "web waiting damped", 118},
			{118, nothing, host + "normal", "web announced served", 0},
		}},
		{"damping does not hold back the only balancer", config(func(c *Config) { c.Damping = Damping{Suppress: 900} }), []step{
			{0, add(web, ready()), host + "normal", "web announced served", 0},
			{1, healthy(web, 0), "", "web waiting too_few_healthy", 0},
			{2, healthy(web, 100), "", "web waiting damped", 21},
			{3, fleet(web, FleetAlone), host + "normal", "web announced served", 0},
		}},
		{"the fleet guard keeps the last announcer", config(), []step{
			{0, func(w *world) { add(web, ready())(w); fleet(web, FleetAlone)(w) }, host + "normal", "web announced served", 0},
			{1, healthy(web, 0), host + "degraded", "web degraded fleet_guard", 0},
			{2, fleet(web, FleetOthers), "", "web waiting too_few_healthy", 0},
			{3, fleet(web, FleetAlone), "", "web waiting too_few_healthy", 0},
			{4, healthy(web, 100), host + "normal", "web announced served", 0},
			{5, change(web, func(f *Facts) { f.SelfTest = false }), host + "degraded", "web degraded fleet_guard", 0},
			{6, change(web, func(f *Facts) { f.Attached = false }), "", "web waiting not_attached", 0},
		}},
		{"the fleet guard does not stop the operator", config(), []step{
			{0, func(w *world) { add(web, ready())(w); fleet(web, FleetAlone)(w) }, host + "normal", "web announced served", 0},
			{1, drainNode(true), host + "draining", "web draining drain_node", 61},
			{61, nothing, "", "web draining drain_node", 66},
		}},
		{"an adopted VIP waits for the self-test only", config(func(c *Config) { c.LearnTime = 20 * time.Second }), []step{
			{0, add(web, Facts{Attached: true, NextHop: true, Adopted: true}), "", "web waiting self_test", 0},
			{1, change(web, func(f *Facts) { f.SelfTest = true }), host + "normal", "web announced served", 0},
			{2, change(web, func(f *Facts) { f.HealthKnown = true; f.TotalWeight = 100 }), "", "web waiting too_few_healthy", 0},
			{3, healthy(web, 100), "", "web waiting learning", 23},
		}},
		{"all VIPs of an address, by default", config(), []step{
			{0, func(w *world) { add(web, ready())(w); add(tls, Facts{})(w) }, "", "web waiting shared, tls waiting not_attached", 0},
			{1, change(tls, func(f *Facts) { *f = ready() }), host + "normal", "web announced served, tls announced served", 0},
			{2, healthy(tls, 30), host + "degraded", "web announced served, tls degraded low_weight", 0},
			{3, healthy(tls, 0), "", "web waiting shared, tls waiting too_few_healthy", 0},
			{4, remove(tls), host + "normal", "web announced served", 0},
			{5, add(tls, Facts{}), host + "normal", "web announced served, tls waiting not_attached", 0},
			{6, change(tls, func(f *Facts) { *f = ready() }), host + "normal", "web announced served, tls announced served", 0},
			{7, change(tls, func(f *Facts) { f.NextHop = false }), "", "web waiting shared, tls waiting next_hop", 0},
		}},
		{"any VIP of an address", config(func(c *Config) { c.Share = ShareAny }), []step{
			{0, func(w *world) { add(web, ready())(w); add(tls, Facts{})(w) }, host + "normal", "web announced served, tls waiting not_attached", 0},
			{1, drainVIP(web, true), host + "draining", "web draining drain_vip, tls waiting not_attached", 61},
			{2, change(tls, func(f *Facts) { *f = ready() }), host + "normal", "web draining drain_vip, tls announced served", 61},
			{61, nothing, host + "normal", "web draining drain_vip, tls announced served", 66},
		}},
		{"one VIP of an address is removed", config(), []step{
			{0, func(w *world) { add(web, ready())(w); add(tls, ready())(w) }, host + "normal", "web announced served, tls announced served", 0},
			{1, remove(web), host + "normal", "tls announced served", 0},
			{2, remove(tls), host + "draining", "tls draining removed", 62},
		}},
		{"a prefix, and an address within it", config(func(c *Config) {
			c.Aggregates = []Aggregate{{netip.MustParsePrefix("192.0.2.0/29"), ShareAny, false}}
		}), []step{
			{0, func(w *world) {
				add(web, ready())(w)
				add("192.0.2.0/28:80/tcp", ready())(w)
				add("192.0.2.4/30:80/tcp", ready())(w)
			},
				"192.0.2.0/28 normal, 192.0.2.0/29 normal, 192.0.2.10/32 normal",
				"192.0.2.0/28:80/tcp announced served, 192.0.2.4/30:80/tcp announced served, web announced served", 0},
			{1, remove(web), "192.0.2.0/28 normal, 192.0.2.0/29 normal, 192.0.2.10/32 draining",
				"192.0.2.0/28:80/tcp announced served, 192.0.2.4/30:80/tcp announced served, web draining removed", 61},
		}},
		{"an aggregate for any, with hosts for those that are served", config(func(c *Config) {
			c.Aggregates = []Aggregate{{netip.MustParsePrefix("192.0.2.0/24"), ShareAny, true}}
		}), []step{
			{0, func(w *world) { add(web, ready())(w); add("192.0.2.11:80/tcp", ready())(w); add(dns, ready())(w) },
				"192.0.2.0/24 normal, 192.0.2.10/32 normal, 192.0.2.11/32 normal, 2001:db8::53/128 normal",
				"web announced served, 192.0.2.11:80/tcp announced served, dns announced served", 0},
			{1, healthy(web, 0), "192.0.2.0/24 normal, 192.0.2.11/32 normal, 2001:db8::53/128 normal",
				"web waiting too_few_healthy, 192.0.2.11:80/tcp announced served, dns announced served", 0},
			{2, func(w *world) { remove(web)(w); healthy("192.0.2.11:80/tcp", 0)(w) }, "2001:db8::53/128 normal",
				"web draining removed, 192.0.2.11:80/tcp waiting too_few_healthy, dns announced served", 6},
			{6, nothing, "2001:db8::53/128 normal", "192.0.2.11:80/tcp waiting too_few_healthy, dns announced served", 0},
		}},
		{"an aggregate for all, without hosts", config(func(c *Config) {
			c.Aggregates = []Aggregate{{netip.MustParsePrefix("192.0.2.0/24"), ShareAll, false}}
		}), []step{
			{0, func(w *world) { add(web, ready())(w); add("192.0.2.11:80/tcp", ready())(w) }, "192.0.2.0/24 normal",
				"web announced served, 192.0.2.11:80/tcp announced served", 0},
			{1, remove("192.0.2.11:80/tcp"), "192.0.2.0/24 normal", "web announced served, 192.0.2.11:80/tcp draining removed", 61},
			{2, healthy(web, 0), "", "web waiting too_few_healthy, 192.0.2.11:80/tcp draining removed", 61},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { run(t, tc.cfg, tc.steps) })
	}
}

func run(t *testing.T, cfg Config, steps []step) {
	t.Helper()
	m, err := New(cfg)
	require.NoError(t, err)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, facts: make(map[string]*Facts)}
	for _, s := range steps {
		s.change(w)
		now := start.Add(time.Duration(s.at) * time.Second)
		r := m.Step(now, w.inputs())
		if got := announcements(r); got != s.announced {
			t.Errorf("at %d s: announced %q, want %q", s.at, got, s.announced)
		}
		if got := states(r); got != s.states {
			t.Errorf("at %d s: states %q, want %q", s.at, got, s.states)
		}
		next := 0
		if !r.Next.IsZero() {
			next = int(math.Ceil(r.Next.Sub(start).Seconds()))
			if !r.Next.After(now) {
				t.Errorf("at %d s: next is %v, not later", s.at, r.Next.Sub(start))
			}
		}
		if next != s.next {
			t.Errorf("at %d s: next at %d s, want %d", s.at, next, s.next)
		}
		// The same again changes nothing.
		if again := m.Step(now, w.inputs()); fmt.Sprint(again) != fmt.Sprint(r) {
			t.Errorf("at %d s: a second step gives %v, the first %v", s.at, again, r)
		}
	}
}

func announcements(r Result) string {
	var parts []string
	for _, a := range r.Announcements {
		parts = append(parts, fmt.Sprintf("%v %v", a.Prefix, a.Class))
	}
	return strings.Join(parts, ", ")
}

// states writes web for web, and so on, in the order in which the tests name them.
func states(r Result) string {
	names := strings.NewReplacer(web, "web", tls, "tls", dns, "dns")
	var parts []string
	for _, s := range r.VIPs {
		parts = append(parts, fmt.Sprintf("%v %v %v", names.Replace(s.VIP.String()), s.State, s.Code))
	}
	return strings.Join(parts, ", ")
}

func TestStatus(t *testing.T) {
	m, err := New(config())
	require.NoError(t, err)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, facts: make(map[string]*Facts)}
	add(web, ready())(w)
	add(tls, ready())(w)
	m.Step(start, w.inputs())
	healthy(web, 40)(w)
	m.Step(start.Add(time.Second), w.inputs())
	healthy(web, 30)(w)
	healthy(tls, 0)(w)
	m.Step(start.Add(2*time.Second), w.inputs())
	r := m.Step(start.Add(3*time.Second), w.inputs())
	for i, want := range []Status{
		{State: Waiting, Since: start.Add(2 * time.Second), Code: CodeShared,
			Reason: "192.0.2.10/32 is not announced because 192.0.2.10:443/tcp shares it: 0 of its reals are healthy, 2 are needed"},
		{State: Waiting, Since: start.Add(2 * time.Second), Code: CodeTooFewHealthy,
			Reason: "0 of its reals are healthy, 2 are needed"},
	} {
		got := r.VIPs[i]
		got.VIP = lb.VIP{}
		if got != want {
			t.Errorf("status of %v is %+v, want %+v", r.VIPs[i].VIP, got, want)
		}
	}
	if r.Withdrawn() {
		t.Error("all are withdrawn, although two wait")
	}
}

func TestConfigure(t *testing.T) {
	m, err := New(config())
	require.NoError(t, err)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{t: t, facts: make(map[string]*Facts)}
	add(web, ready())(w)
	healthy(web, 70)(w)
	m.Step(start, w.inputs())
	require.ErrorSays(t, m.Configure(Config{MinReals: -1}), "MinReals")
	require.NoError(t, m.Configure(config(func(c *Config) { c.DegradedPercent = 80 })))
	if got, want := states(m.Step(start, w.inputs())), "web degraded low_weight"; got != want {
		t.Errorf("states %q, want %q", got, want)
	}
}

func TestValidate(t *testing.T) {
	err := Config{
		MinReals: -1, MinWeightPercent: 60, DegradedPercent: 50, LearnTime: -1, DrainTime: -1, WithdrawTime: -1,
		Damping: Damping{Penalty: -1, Suppress: 1, Reuse: 2, HalfLife: -1, MaxSuppressed: -1},
		Aggregates: []Aggregate{
			{Prefix: netip.MustParsePrefix("192.0.2.1/24")},
			{Prefix: netip.MustParsePrefix("192.0.2.0/24")},
			{Prefix: netip.MustParsePrefix("192.0.2.0/25")},
		},
	}.Validate()
	require.ErrorSays(t, err, "MinReals", "DegradedPercent: 50 is less than MinWeightPercent, 60", "LearnTime", "DrainTime",
		"WithdrawTime", "Damping.Penalty", "Damping.Suppress", "Damping.HalfLife", "Damping.MaxSuppressed",
		"Aggregates[0].Prefix: 192.0.2.1/24", "Aggregates[2].Prefix: 192.0.2.0/25 overlaps Aggregates[1]")
	require.NoError(t, Config{}.Validate())
}
