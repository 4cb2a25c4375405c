// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

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
	"github.com/remora-lb/remora/test/require"
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
	health *Health
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
	if w.health, err = New(Config{File: w.cfg, Engine: w.engine, Log: slog.New(slog.NewTextHandler(&w.log, nil))}); err != nil {
		w.t.Fatal(err)
	}
	w.hand(w.cfg.Backends)
}

// hand gives the backends to the checks and to the engine, as the assembly does.
func (w *ward) hand(backends map[string][]lb.Backend) {
	w.t.Helper()
	w.engine.SetServicesAndBackends(w.cfg.Services, "file", w.health.Admit(w.cfg.Services, backends))
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
		if r, ok := w.engine.Status().ByTarget()[w.target(n)]; ok && r.Absence.Cause == engine.CauseNone {
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
	slots := w.engine.Status().ByTarget()[w.target(2)].Slots
	if slots == 0 || slots > 251/10 {
		t.Errorf("in slow start backend 2 has %d of 251 slots", slots)
	}
	w.judge(2, healthcheck.Up, 0)
	w.wantActive("2 asks for nothing", "1 3")
	for _, line := range []string{`msg="real is down" service=web vip=192.0.2.10:80/tcp real=10.0.0.2 from=unknown to=down cause=refused`, `msg="real is up"`} {
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
		plan, err := newPlan(c) // and no tunnel, which needs an interface
		require.NoError(t, err)
		w.health.Install(plan)
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
	known := w.engine.Status().Services[0].VIPs[0]
	vip := control.VIP{VIPEntry: known.VIPEntry}
	for _, r := range known.Reals {
		vip.Reals = append(vip.Reals, control.Real{Real: r.Real})
	}
	s := []control.Service{{VIPs: []control.VIP{vip}}}
	w.health.Annotate(s)
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

// TestChecksOutliveTheirService: a service that is removed and whose VIP is still served keeps its
// checks until the VIP goes; one that is only not checked any more loses them.
func TestChecksOutliveTheirService(t *testing.T) {
	w := newWard(t, "kind: tcp")
	w.judge(2, healthcheck.Down, 0)
	none, err := config.Parse("test.yaml", []byte("interface: eth0\nservices: []\n"))
	require.NoError(t, err)
	plan, err := w.health.Prepare(none)
	require.NoError(t, err)
	w.health.Install(plan)
	w.hand(w.cfg.Backends)
	if n := len(w.health.checks.Snapshot()); n != 3 {
		t.Errorf("%d backends of a VIP that is on its way out are checked, want 3", n)
	}
	w.wantActive("on its way out", "1 3")
	w.judge(3, healthcheck.Down, 0)
	w.wantActive("another is down", "1")
	w.cfg.Services = nil
	w.hand(nil)
	if n := len(w.health.checks.Snapshot()); n != 0 || len(w.health.plan.checks) != 0 {
		t.Errorf("%d checks are left, and those of %d services", n, len(w.health.plan.checks))
	}

	w = newWard(t, "kind: tcp")
	unchecked := w.parse("kind: tcp")
	unchecked.Health = nil
	plan, err = w.health.Prepare(unchecked)
	require.NoError(t, err)
	w.health.Install(plan)
	w.hand(w.cfg.Backends)
	if n := len(w.health.checks.Snapshot()); n != 0 {
		t.Errorf("%d backends of a service without checks are checked", n)
	}
}

func mustVIP(t *testing.T, text string) lb.VIP {
	t.Helper()
	v, err := lb.ParseVIP(text)
	require.NoError(t, err)
	return v
}
