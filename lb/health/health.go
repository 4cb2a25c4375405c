// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package health has the backends of services checked: it makes checks of the configuration, follows the
// data plane with them, tells the engine what comes of them, and finds out what is broken on the way to a
// backend that is down. How a backend is asked, and what verdict that leads to, is healthcheck's.
package health

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/probetunnel"
)

// Health checks the backends of those services that ask for it, and tells the engine what comes of
// it. Methods may be called from any goroutine, Run only once; whoever made it closes it.
type Health struct {
	engine *engine.Engine
	log    *slog.Logger
	events event.Sink
	checks *healthcheck.Scheduler[checkID]

	// handing keeps what is handed to the engine in order; it is locked before mu.
	handing sync.Mutex

	mu       sync.Mutex // guards what follows
	tunnel   *probetunnel.Tunnel
	tunnelOf probetunnel.Config
	// opens tells that a tunnel may be made: the checks are going to run.
	opens bool
	// plan has the checks in force; next, if not nil, takes its place with the services that it is for.
	plan, next *Plan
	groups     map[lb.VIP]*group
	patients   map[lb.Target]*patient
	// ill are those that are to be diagnosed; fresh has room for one and says that there are some.
	ill   map[lb.Target]bool
	fresh chan struct{}
	// stale tells that checks are to be made anew though the data plane is as it was.
	stale bool
}

// checkID names a check: the one that counts, or that of full-size packets.
type checkID struct {
	lb.Target
	fullSize bool
}

// group is a VIP whose backends are checked.
type group struct {
	service string
	targets []lb.Target // by backend
	last    healthcheck.GroupDecision
}

// patient is what is known of a backend of one VIP.
type patient struct {
	service string
	// outside is the catalogue's verdict.
	outside healthcheck.State
	verdict healthcheck.Verdict
	// heard tells that a result has spoken for the verdict or against it: before, it is the initial one.
	heard bool
	// serving tells that it would be in service by what was known last.
	serving   bool
	diagnosis healthcheck.Diagnosis
	diagnosed time.Time
	// real is the one in the data plane; its id is 0 while there is none.
	real lb.Real
}

// Config is what a Health begins with. All but Events is needed.
type Config struct {
	// File is the configuration.
	File   *config.Config
	Engine *engine.Engine
	Log    *slog.Logger
	// Events receives changed verdicts. Nil for only the log.
	Events event.Sink
}

// New makes the checks of a configuration, of which none is made before Run.
func New(cfg Config) (*Health, error) {
	c, log := cfg.File, cfg.Log
	h := &Health{
		engine: cfg.Engine, log: log, events: cfg.Events,
		tunnelOf: probetunnel.Config{Interface: c.Interface, MarkBase: c.ProbeMarks},
		groups:   make(map[lb.VIP]*group),
		patients: make(map[lb.Target]*patient),
		ill:      make(map[lb.Target]bool),
		fresh:    make(chan struct{}, 1),
	}
	if h.events == nil {
		h.events = event.ToLog(log)
	}
	var err error
	if h.plan, err = newPlan(c); err != nil {
		return nil, err
	}
	h.checks, err = healthcheck.New(healthcheck.Config[checkID]{OnChange: h.observe})
	return h, err
}

// Open makes the tunnel if probes need one.
func (h *Health) Open() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opens = true
	return h.openFor(h.plan)
}

// openFor makes the tunnel if the plan needs one and there is none. The caller holds mu.
func (h *Health) openFor(plan *Plan) (err error) {
	if h.tunnel == nil && plan.anyTunnelled() {
		h.tunnel, err = probetunnel.New(h.tunnelOf)
	}
	return err
}

// Prepare makes the checks of c, and the tunnel if they need one. Nothing changes before Install.
func (h *Health) Prepare(c *config.Config) (*Plan, error) {
	plan, err := newPlan(c)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return plan, h.openFor(plan)
}

// PrepareOne makes the checks of a service that Consul defines, and the tunnel if they need one.
func (h *Health) PrepareOne(c config.Health) (Checks, error) {
	checks, err := newChecks(c)
	if err != nil {
		return checks, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.opens {
		return checks, nil
	}
	return checks, h.openFor(&Plan{checks: map[string]Checks{"": checks}})
}

// Define has the checks of services that Consul defines in force, nil for those without checks, from the
// next call of Admit on. The file's services are not touched.
func (h *Health) Define(checks map[string]*Checks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, c := range checks {
		switch {
		case h.plan.configured[name]:
		case c == nil:
			delete(h.plan.checks, name)
		default:
			h.plan.checks[name] = *c
		}
	}
}

// Install has what Prepare returned in force from the next call of Admit on, which brings the services
// and backends that it is for. What was learned of backends that stay is kept.
func (h *Health) Install(plan *Plan) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = plan
}

// Admit takes note of all services and their backends before the engine has them, and returns the
// backends as the engine is to have them: where there are checks, it is these that say who is down.
func (h *Health) Admit(services []lb.Service, backends map[string][]lb.Backend) map[string][]lb.Backend {
	h.handing.Lock()
	defer h.handing.Unlock()
	down := h.downBefore()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next != nil {
		h.next.keep(h.plan)
		h.plan, h.next = h.next, nil
	}
	h.plan.drop(services)
	backends = maps.Clone(backends)
	groups := make(map[lb.VIP]*group)
	patients := make(map[lb.Target]*patient)
	for _, s := range services {
		checks, checked := h.plan.checks[s.Name]
		if !checked {
			continue
		}
		for _, v := range s.VIPs {
			if groups[v.VIP] != nil {
				continue // the engine refuses it too
			}
			g := &group{service: s.Name}
			if old := h.groups[v.VIP]; old != nil {
				g.last = old.last
			}
			for _, b := range backends[s.Name] {
				t := lb.Target{VIP: v.VIP, Backend: b.Addr}
				if patients[t] != nil {
					continue
				}
				patients[t] = h.admitOne(t, s.Name, checks, b, down[t])
				g.targets = append(g.targets, t)
			}
			slices.SortFunc(g.targets, lb.Target.Compare)
			groups[v.VIP] = g
		}
		backends[s.Name] = withoutVerdicts(backends[s.Name])
	}
	h.groups, h.patients, h.stale = groups, patients, true
	h.decide()
	return backends
}

// downBefore are the targets that the engine has as down: by an earlier run's checks, if they are new
// here. Only a backend with no verdict yet makes use of it.
func (h *Health) downBefore() map[lb.Target]bool {
	down := make(map[lb.Target]bool)
	for t, r := range h.engine.Status().ByTarget() {
		down[t] = r.Absence.Cause == engine.CauseDown
	}
	return down
}

func (h *Health) admitOne(t lb.Target, service string, c Checks, b lb.Backend, wasDown bool) *patient {
	p := h.patients[t]
	if p == nil {
		p = &patient{serving: c.Initial != config.InitialDown && !wasDown, verdict: initialVerdict(c.rules)}
	}
	p.service, p.outside = service, healthcheck.Up
	if b.Down {
		p.outside = healthcheck.Down
	}
	return p
}

func initialVerdict(r healthcheck.Rules) healthcheck.Verdict {
	j := healthcheck.NewJudgement(r, time.Time{})
	return j.Verdict()
}

func withoutVerdicts(backends []lb.Backend) []lb.Backend {
	backends = slices.Clone(backends)
	for i := range backends {
		backends[i].Down = false
	}
	return backends
}

// decide makes of all verdicts what the engine is to do, and hands it over. The caller holds handing
// and mu.
func (h *Health) decide() {
	set := make(map[lb.Target]engine.Health)
	for vip, g := range h.groups {
		members := make([]healthcheck.Member, len(g.targets))
		for i, t := range g.targets {
			p := h.patients[t]
			members[i] = healthcheck.Member{Local: p.verdict, Outside: p.outside, Serving: p.serving}
		}
		d := healthcheck.Decide(h.plan.checks[g.service].group, members)
		for i, m := range d.Members {
			h.patients[g.targets[i]].serving = m.Healthy
			set[g.targets[i]] = engineHealth(m)
		}
		h.tellGroup(vip, g, d)
		g.last = d
	}
	h.engine.SetHealth(set)
}

// engineHealth is what the engine is to do: a server that asks for no weight gets no new flows, as one
// that is down.
func engineHealth(m healthcheck.MemberDecision) engine.Health {
	if !m.Serve || m.Weight == 0 {
		return engine.Health{Down: true}
	}
	return engine.Health{Percent: uint8(m.Weight)}
}

// tellGroup logs when a VIP keeps backends that its checks hold for down, or may not be served.
func (h *Health) tellGroup(vip lb.VIP, g *group, d healthcheck.GroupDecision) {
	log := h.log.With("service", g.service, "vip", vip)
	if d.FailOpen != g.last.FailOpen {
		h.events.Emit(beliefEvent(g.service, vip, d))
	}
	if short := d.Healthy < h.plan.checks[g.service].MinHealthy; short && d.Detail != g.last.Detail {
		log.Warn("too few reals are healthy", "detail", d.Detail)
	}
}

// Run checks until ctx ends.
func (h *Health) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.checks.Run(ctx) })
	g.Go(func() error { return h.diagnoses(ctx) })
	g.Go(func() error { return h.follow(ctx) })
	return g.Wait()
}

// Counters are the results of all checks since the start.
func (h *Health) Counters() healthcheck.Counters { return h.checks.Counters() }

// Close takes the program of probes off the interface.
func (h *Health) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tunnel == nil {
		return nil
	}
	return h.tunnel.Close()
}
