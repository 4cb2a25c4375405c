// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

// ward is a service of three backends whose checks are fed with verdicts, and an engine with a model of
// the maps.
type ward struct {
	t      *testing.T
	cfg    *config.Config
	log    bytes.Buffer
	dp     *enginetest.Dataplane
	memory *engine.Memory
	engine *engine.Engine
	health *health
	vip    lb.VIP
}

func newWard(t *testing.T, checks string) *ward {
	t.Helper()
	w := &ward{t: t, dp: enginetest.NewDataplane(t, 1)}
	w.cfg = w.parse(checks)
	w.vip = w.cfg.Services[0].VIPs[0].VIP
	w.start()
	return w
}

func (w *ward) parse(checks string) *config.Config {
	w.t.Helper()
	c, err := config.Parse("test.yaml", fmt.Appendf(nil, `
interface: eth0
services:
  - name: web
    vips: [192.0.2.10:80/tcp]
    ring: {size: 251}
    backends: [{address: 10.0.0.1, weight: 100}, {address: 10.0.0.2, weight: 100}, {address: 10.0.0.3, weight: 100}]
    health: {%s}
`, checks))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// start is the start of a daemon, with what the one before left.
func (w *ward) start() {
	w.t.Helper()
	cfg := engine.DefaultConfig()
	cfg.OnMemory = func(m *engine.Memory) { w.memory = m }
	cfg.Adopted = w.dp.Adopted()
	cfg.Adopted.Memory = w.memory
	var err error
	if w.engine, err = engine.New(cfg, w.dp, new(enginetest.NextHops)); err != nil {
		w.t.Fatal(err)
	}
	if w.health, err = newHealth(w.cfg, w.engine, slog.New(slog.NewTextHandler(&w.log, nil))); err != nil {
		w.t.Fatal(err)
	}
	w.hand(w.cfg.Backends)
}

// hand gives the backends to the checks and to the engine, as the assembly does.
func (w *ward) hand(backends map[string][]lb.Backend) {
	w.t.Helper()
	w.engine.SetServicesAndBackends(w.cfg.Services, staticSource, w.health.admit(w.cfg.Services, backends))
	w.sync()
}

func (w *ward) sync() {
	w.t.Helper()
	if err := w.engine.Sync(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if err := w.health.place(w.engine.Status()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) target(backend int) lb.Target {
	return lb.Target{VIP: w.vip, Backend: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", backend))}
}

// judge feeds a changed verdict of one backend.
func (w *ward) judge(backend int, s healthcheck.State, weight int) {
	w.t.Helper()
	t := w.target(backend)
	c := healthcheck.Change[checkID]{ID: checkID{Target: t}, Old: w.health.patients[t].verdict, New: healthcheck.Verdict{State: s, Weight: weight}, At: time.Now()}
	if s == healthcheck.Down {
		c.Result = healthcheck.Result{Reason: healthcheck.Refused}
	}
	w.health.observe([]healthcheck.Change[checkID]{c})
	w.sync()
}

// active says which backends get new flows, as in "1 3".
func (w *ward) active() string {
	w.t.Helper()
	var list []string
	for n := 1; n <= 3; n++ {
		if r, ok := realsByTarget(w.engine.Status())[w.target(n)]; ok && r.Absence.Cause == engine.CauseNone {
			list = append(list, fmt.Sprint(n))
		}
	}
	return strings.Join(list, " ")
}

func (w *ward) wantActive(what, want string) {
	w.t.Helper()
	if got := w.active(); got != want {
		w.t.Errorf("%s: backends %q get new flows, want %q", what, got, want)
	}
}

func TestHealthVerdicts(t *testing.T) {
	w := newWard(t, "kind: tcp")
	w.wantActive("at the start", "1 2 3")
	w.judge(2, healthcheck.Down, 0)
	w.wantActive("2 is down", "1 3")
	w.judge(2, healthcheck.Up, 10)
	w.wantActive("2 is up", "1 2 3")
	slots := realsByTarget(w.engine.Status())[w.target(2)].Slots
	if slots == 0 || slots > 251/10 {
		t.Errorf("in slow start backend 2 has %d of 251 slots", slots)
	}
	w.judge(2, healthcheck.Up, 0)
	w.wantActive("2 asks for nothing", "1 3")
	for _, line := range []string{`msg="real is down" service=web vip=192.0.2.10:80/tcp real=10.0.0.2 reason=refused`, `msg="real is up"`} {
		if n := strings.Count(w.log.String(), line); n != 1 {
			t.Errorf("the log has %q %d times:\n%s", line, n, &w.log)
		}
	}
}

func TestHealthFailOpen(t *testing.T) {
	for _, c := range []struct{ name, checks, one, none string }{
		{"by default when none is healthy", "kind: tcp", "3", "1 2 3"},
		{"never", "fail_open: 0", "3", ""},
		{"below half", "fail_open: 50", "1 2 3", "1 2 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWard(t, c.checks)
			w.judge(1, healthcheck.Down, 0)
			w.wantActive("one is down", "2 3")
			w.judge(2, healthcheck.Down, 0)
			w.wantActive("two are down", c.one)
			w.judge(3, healthcheck.Down, 0)
			w.wantActive("all are down", c.none)
			w.judge(1, healthcheck.Up, 100)
			w.judge(2, healthcheck.Up, 100)
			w.wantActive("two are up again", "1 2")
			if open := strings.Contains(w.log.String(), "checks are not believed"); open != (c.checks != "fail_open: 0") {
				t.Errorf("the log says so: %v", open)
			}
		})
	}
}

func TestHealthInitial(t *testing.T) {
	for _, c := range []struct{ name, checks, first, restarted string }{
		{"unchanged", "initial: unchanged", "1 2 3", "1 3"},
		{"up", "initial: up", "1 2 3", "1 2 3"},
		{"down", "initial: down, fail_open: 0", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWard(t, c.checks)
			w.wantActive("at the first start", c.first)
			for n := 1; n <= 3; n++ {
				w.judge(n, healthcheck.Up, 100)
			}
			w.judge(2, healthcheck.Down, 0)
			w.wantActive("2 is down", "1 3")
			w.start()
			if c.name != "unchanged" {
				w.wantActive("after a restart", c.restarted)
				return
			}
			w.wantActive("after a restart", c.restarted)
			w.judge(2, healthcheck.Up, 100)
			w.wantActive("2 passes", "1 2 3")
		})
	}
}

func TestHealthPolicy(t *testing.T) {
	for _, c := range []struct{ policy, want string }{
		{"local", "2 3"}, {"consul", "1 3"}, {"both", "3"},
	} {
		t.Run(c.policy, func(t *testing.T) {
			w := newWard(t, "policy: "+c.policy)
			for n := 1; n <= 3; n++ {
				w.judge(n, healthcheck.Up, 100)
			}
			w.judge(1, healthcheck.Down, 0)
			backends := map[string][]lb.Backend{"web": {}}
			for n := 1; n <= 3; n++ {
				backends["web"] = append(backends["web"], lb.Backend{Addr: w.target(n).Backend, Weight: 100, Down: n == 2})
			}
			w.hand(backends)
			w.wantActive("1 fails, the catalogue says that 2 does", c.want)
		})
	}
}

// TestHealthReload: the same file changes nothing, a backend that goes and comes is new, and a service
// whose checks go has its backends back.
func TestHealthReload(t *testing.T) {
	w := newWard(t, "kind: tcp")
	w.judge(2, healthcheck.Down, 0)
	reload := func(c *config.Config) {
		t.Helper()
		plan, err := w.health.prepare(&config.Config{Health: map[string]config.Health{}})
		if err != nil {
			t.Fatal(err)
		}
		// The tunnel needs an interface; the rest of the plan does not.
		for name, h := range c.Health {
			if plan[name], err = newServiceChecks(h); err != nil {
				t.Fatal(err)
			}
		}
		w.health.install(plan)
		w.cfg = c
		w.hand(c.Backends)
	}
	before := w.health.checks.Snapshot()
	reload(w.parse("kind: tcp"))
	w.wantActive("the same file", "1 3")
	if after := w.health.checks.Snapshot(); len(after) != len(before) || len(after) != 3 {
		t.Errorf("%d checks became %d", len(before), len(after))
	}
	reload(w.parse("kind: tcp, interval: 5s"))
	w.wantActive("another interval", "1 3")
	unchecked := w.parse("kind: tcp")
	unchecked.Health = nil
	reload(unchecked)
	w.wantActive("no checks", "1 2 3")
	if after := w.health.checks.Snapshot(); len(after) != 0 {
		t.Errorf("%d checks are left", len(after))
	}
}

func TestHealthStatus(t *testing.T) {
	w := newWard(t, "min_healthy: 3")
	w.judge(1, healthcheck.Down, 0)
	s := []control.Service{controlService(w.engine.Status().Services[0], nil)}
	w.health.annotate(s)
	v := s[0].VIPs[0]
	if v.Health == nil || v.Health.Checked != 3 || v.Health.Healthy != 2 || v.Health.Servable || v.Health.Detail == "" {
		t.Errorf("the VIP has %+v", v.Health)
	}
	if h := v.Reals[0].Health; h == nil || h.Local != control.HealthDown || h.Outside != control.HealthUp {
		t.Errorf("the real that is down has %+v", h)
	}
	if !strings.Contains(w.log.String(), "too few reals are healthy") {
		t.Errorf("the log does not say that too few are healthy:\n%s", &w.log)
	}
}

func TestRealHealthWords(t *testing.T) {
	for _, c := range []struct {
		state  string
		health *realHealth
		want   string
	}{
		{"ok", nil, "ok"},
		{"retired", nil, "retired"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 100}, "up"},
		{"stale next hop", &realHealth{Local: "up", Outside: "up", Percent: 100}, "up; stale next hop"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 40}, "up, 40% of its weight"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 100, Fault: "path_mtu"}, "up, path_mtu"},
		{"ok", &realHealth{Local: "up", Outside: "down", Percent: 100}, "up, the catalogue says down"},
		{"draining, 1 flows (0)", &realHealth{Local: "down", Outside: "up", Reason: "refused"}, "down, refused; draining, 1 flows (0)"},
		{"retired", &realHealth{Local: "down", Outside: "up", Reason: "timeout", Fault: "vip_missing"}, "down, vip_missing; retired"},
		{"retired", &realHealth{Local: "down", Outside: "up", Suppressed: true}, "down, flapping; retired"},
		{"ok", &realHealth{Local: "unknown", Outside: "up", Percent: 100}, "unknown"},
	} {
		if got := (realStatus{State: c.state, Health: c.health}).state(); got != c.want {
			t.Errorf("%s, %+v: got %q, want %q", c.state, c.health, got, c.want)
		}
	}
}
