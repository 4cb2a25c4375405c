// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"pgregory.net/rapid"
)

// drawFacts draws facts that change often, and are mostly good.
func drawFacts(t *rapid.T) Facts {
	mostly := func(name string) bool { return rapid.IntRange(0, 9).Draw(t, name) > 0 }
	healthy := rapid.IntRange(0, 10).Draw(t, "healthy")
	return Facts{
		Attached: mostly("attached"), SelfTest: mostly("self-test"), NextHop: mostly("next hop"), HealthKnown: mostly("health known"),
		HealthyReals: healthy, HealthyWeight: uint64(healthy), TotalWeight: 10,
		Adopted: rapid.Bool().Draw(t, "adopted"),
		Drain:   !mostly("drain"),
		Fleet:   Fleet(rapid.IntRange(0, 2).Draw(t, "fleet")),
	}
}

// TestPromises checks what holds after each of a random sequence of changes.
func TestPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config(func(c *Config) {
			c.Damping = Damping{Off: rapid.Bool().Draw(t, "undamped")}
			c.Share = Share(rapid.IntRange(0, 1).Draw(t, "share"))
			c.LearnTime = time.Duration(rapid.IntRange(0, 1).Draw(t, "learn")) * 20 * time.Second
		})
		m, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		in := Inputs{VIPs: make(map[lb.VIP]Facts)}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "seconds")) * time.Second)
			in.Drain = rapid.IntRange(0, 9).Draw(t, "node drain") == 0
			for _, name := range []string{web, tls, dns} {
				v, err := lb.ParseVIP(name)
				if err != nil {
					t.Fatal(err)
				}
				switch rapid.IntRange(0, 3).Draw(t, name) {
				case 0:
					delete(in.VIPs, v)
				case 1, 2:
					in.VIPs[v] = drawFacts(t)
				}
			}
			checkPromises(t, cfg, in, now, m.Step(now, in))
		}
		checkDrain(t, m, in, now)
	})
}

func checkPromises(t *rapid.T, cfg Config, in Inputs, now time.Time, r Result) {
	if !r.Next.IsZero() && !r.Next.After(now) {
		t.Fatalf("next is %v, not after %v", r.Next, now)
	}
	seen := make(map[lb.VIP]bool)
	for _, s := range r.VIPs {
		seen[s.VIP] = true
		f, configured := in.VIPs[s.VIP]
		up := s.State == Announced || s.State == Degraded
		switch {
		case s.Reason == "" || s.Code == "":
			t.Fatalf("%+v has no reason", s)
		case up && !s.Announced:
			t.Fatalf("%+v is not announced", s)
		case up && (!configured || f.Drain || in.Drain):
			t.Fatalf("%+v shall not be announced", s)
		case up && !f.Attached:
			t.Fatalf("%+v is announced without a data plane", s)
		case up && f.Fleet != FleetAlone && !(f.SelfTest && f.NextHop):
			t.Fatalf("%+v is announced with %+v", s, f)
		case s.State == Withdrawn && s.Announced && cfg.Share == ShareAll:
			t.Fatalf("%+v is announced", s)
		}
	}
	for v := range in.VIPs {
		if !seen[v] {
			t.Fatalf("%v has no status", v)
		}
	}
}

// checkDrain drains the balancer: after the drain and the withdraw time nothing is left.
func checkDrain(t *rapid.T, m *Machine, in Inputs, now time.Time) {
	in.Drain = true
	r := m.Step(now, in)
	for range 10 {
		if r.Next.IsZero() {
			break
		}
		r = m.Step(r.Next, in)
	}
	if !r.Withdrawn() || len(r.Announcements) > 0 || !r.Next.IsZero() {
		t.Fatalf("after a drain there is %+v", r)
	}
}
