// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/remora-lb/remora/lb/probetunnel"
)

// health checks the backends of those services that ask for it, and tells the engine what comes of
// it. Methods may be called from any goroutine.
type health struct {
	engine *engine.Engine
	log    *slog.Logger
	checks *healthcheck.Scheduler[checkID]

	// handing keeps what is handed to the engine in order; it is locked before mu.
	handing sync.Mutex

	mu       sync.Mutex // guards what follows
	tunnel   *probetunnel.Tunnel
	tunnelOf probetunnel.Config
	// plan is by service; next, if not nil, takes its place with the services that it is for.
	plan, next map[string]serviceChecks
	groups     map[lb.VIP]*healthGroup
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

// healthGroup is a VIP whose backends are checked.
type healthGroup struct {
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
	// serving tells that it would be in service by what was known last.
	serving   bool
	diagnosis healthcheck.Diagnosis
	diagnosed time.Time
	// real is the one in the data plane; its id is 0 while there is none.
	real lb.Real
}

// newHealth makes the checks of c, of which none is made before run.
func newHealth(c *config.Config, e *engine.Engine, log *slog.Logger) (*health, error) {
	h := &health{
		engine: e, log: log,
		tunnelOf: probetunnel.Config{Interface: c.Interface, MarkBase: c.ProbeMarks},
		groups:   make(map[lb.VIP]*healthGroup),
		patients: make(map[lb.Target]*patient),
		ill:      make(map[lb.Target]bool),
		fresh:    make(chan struct{}, 1),
	}
	var err error
	if h.plan, err = newHealthPlan(c); err != nil {
		return nil, err
	}
	h.checks, err = healthcheck.New(healthcheck.Config[checkID]{OnChange: h.observe})
	return h, err
}

// open makes the tunnel if probes need one.
func (h *health) open() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.openFor(h.plan)
}

// openFor makes the tunnel if the plan needs one and there is none. The caller holds mu.
func (h *health) openFor(plan map[string]serviceChecks) (err error) {
	if h.tunnel == nil && anyTunnelled(plan) {
		h.tunnel, err = probetunnel.New(h.tunnelOf)
	}
	return err
}

// prepare makes the checks of c, and the tunnel if they need one. Nothing changes before install.
func (h *health) prepare(c *config.Config) (map[string]serviceChecks, error) {
	plan, err := newHealthPlan(c)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return plan, h.openFor(plan)
}

// install has what prepare returned in force from the next call of admit on, which brings the services
// and backends that it is for. What was learned of backends that stay is kept.
func (h *health) install(plan map[string]serviceChecks) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = plan
}

// admit takes note of all services and their backends before the engine has them, and returns the
// backends as the engine is to have them: where there are checks, it is these that say who is down.
func (h *health) admit(services []lb.Service, backends map[string][]lb.Backend) map[string][]lb.Backend {
	h.handing.Lock()
	defer h.handing.Unlock()
	down := h.downBefore()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next != nil {
		h.plan, h.next = h.next, nil
	}
	backends = maps.Clone(backends)
	groups := make(map[lb.VIP]*healthGroup)
	patients := make(map[lb.Target]*patient)
	for _, s := range services {
		checks, checked := h.plan[s.Name]
		if !checked {
			continue
		}
		for _, v := range s.VIPs {
			if groups[v.VIP] != nil {
				continue // the engine refuses it too
			}
			g := &healthGroup{service: s.Name}
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
			slices.SortFunc(g.targets, compareTargets)
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
func (h *health) downBefore() map[lb.Target]bool {
	down := make(map[lb.Target]bool)
	for t, r := range realsByTarget(h.engine.Status()) {
		down[t] = r.Absence.Cause == engine.CauseDown
	}
	return down
}

func (h *health) admitOne(t lb.Target, service string, c serviceChecks, b lb.Backend, wasDown bool) *patient {
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
func (h *health) decide() {
	set := make(map[lb.Target]engine.Health)
	for vip, g := range h.groups {
		members := make([]healthcheck.Member, len(g.targets))
		for i, t := range g.targets {
			p := h.patients[t]
			members[i] = healthcheck.Member{Local: p.verdict, Outside: p.outside, Serving: p.serving}
		}
		d := healthcheck.Decide(h.plan[g.service].group, members)
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
func (h *health) tellGroup(vip lb.VIP, g *healthGroup, d healthcheck.GroupDecision) {
	log := h.log.With("service", g.service, "vip", vip)
	if d.FailOpen != g.last.FailOpen {
		if d.FailOpen {
			log.Warn("health checks are not believed", "detail", d.Detail)
		} else {
			log.Info("health checks are believed again", "healthy", d.Healthy, "reals", len(d.Members))
		}
	}
	if short := d.Healthy < h.plan[g.service].MinHealthy; short && d.Detail != g.last.Detail {
		log.Warn("too few reals are healthy", "detail", d.Detail)
	}
}

// observe takes changed verdicts.
func (h *health) observe(changes []healthcheck.Change[checkID]) {
	h.handing.Lock()
	defer h.handing.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range changes {
		p := h.patients[c.ID.Target]
		switch {
		case p == nil: // gone meanwhile
		case c.ID.fullSize:
			h.observeFullSize(p, c)
		default:
			h.observeOne(p, c)
		}
	}
	h.decide()
}

func (h *health) observeOne(p *patient, c healthcheck.Change[checkID]) {
	p.verdict = c.New
	if c.Old.State == c.New.State {
		return // the weight
	}
	log := h.log.With("service", p.service, "vip", c.ID.VIP, "real", c.ID.Backend)
	if c.New.State != healthcheck.Down {
		p.diagnosis = healthcheck.Diagnosis{}
		log.Info("real is "+c.New.State.String(), "reason", c.Result.Reason)
		return
	}
	log.Warn("real is down", "reason", c.Result.Reason, "detail", c.Result.Detail, "suppressed", c.New.Suppressed)
	h.callDoctor(c.ID.Target)
}

// observeFullSize logs what becomes of full-size packets to a backend that is otherwise well.
func (h *health) observeFullSize(p *patient, c healthcheck.Change[checkID]) {
	log := h.log.With("service", p.service, "vip", c.ID.VIP, "real", c.ID.Backend)
	d := fullSizeFault(c.New.State, c.Result)
	switch {
	case p.verdict.State == healthcheck.Down:
	case d.Fault != healthcheck.NoFault:
		log.Warn("full-size packets do not reach the real", "fault", d.Fault, "detail", d.Detail)
	case c.Old.State == healthcheck.Down:
		log.Info("full-size packets reach the real")
	}
}

// fullSizeFault is what the full-size probe of a backend says of the path. Without a connection it
// says nothing of sizes.
func fullSizeFault(s healthcheck.State, last healthcheck.Result) healthcheck.Diagnosis {
	if s != healthcheck.Down || last.Reason == healthcheck.Timeout || last.Reason == healthcheck.Refused {
		return healthcheck.Diagnosis{}
	}
	return healthcheck.Diagnose(healthcheck.Parts{Padded: &last})
}

// followInterval is how often it is looked whether the data plane has changed: new reals are checked
// from then on, and probes follow a new link address.
const followInterval = 100 * time.Millisecond

// run checks until ctx ends.
func (h *health) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.checks.Run(ctx) })
	g.Go(func() error { return h.diagnoses(ctx) })
	g.Go(func() error { return h.follow(ctx) })
	return g.Wait()
}

// follow keeps the set of checks equal to what the data plane has.
func (h *health) follow(ctx context.Context) error {
	look := time.NewTicker(followInterval)
	defer look.Stop()
	changes := ^uint64(0)
	for {
		if s := h.engine.Status(); s.Changes != changes || h.isStale() {
			changes = s.Changes
			if err := h.place(s); err != nil {
				h.log.Error("health checks are not as wanted", "error", err)
				changes = ^uint64(0)
			}
		}
		h.visit(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

func (h *health) isStale() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stale
}

// place makes the checks of all reals that the data plane has.
func (h *health) place(s engine.Status) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stale = false
	reals := realsByTarget(s)
	checks := make(map[checkID]healthcheck.Check)
	var tunnelled []lb.Real
	var errs []error
	for t, p := range h.patients {
		r, there := reals[t]
		if !there || r.Absence.Cause == engine.CauseRemoved {
			p.real, p.verdict = lb.Real{}, initialVerdict(h.plan[p.service].rules)
			continue
		}
		p.real = r.Real
		c := h.plan[p.service]
		if c.tunnelled() {
			tunnelled = append(tunnelled, r.Real)
		}
		checks[checkID{Target: t}] = h.check(c, r.Real)
		if c.FullSize > 0 && t.VIP.Protocol == lb.TCP && r.NextHop.Resolved() {
			full, err := h.fullSizeCheck(c, r.Real)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			checks[checkID{t, true}] = full
		}
	}
	if h.tunnel != nil {
		errs = append(errs, h.tunnel.Set(tunnelled))
	}
	return errors.Join(append(errs, h.checks.Set(checks))...)
}

func (h *health) check(c serviceChecks, r lb.Real) healthcheck.Check {
	return healthcheck.Check{Probe: c.probe, Target: h.target(c, r), Server: r.Backend.Addr, Timeout: c.Timeout, Rules: c.rules}
}

// fullSizeFall is how many full-size probes in a row must fail.
const fullSizeFall = 2

func (h *health) fullSizeCheck(c serviceChecks, r lb.Real) (healthcheck.Check, error) {
	probe, err := fullSizeProbe(r)
	if err != nil {
		return healthcheck.Check{}, fmt.Errorf("full-size probe of %s to %s: %v", r.VIP, r.Backend.Addr, err)
	}
	target := h.target(c, r)
	return healthcheck.Check{Probe: probe, Target: target, Server: r.Backend.Addr, Timeout: c.Timeout, Rules: healthcheck.Rules{
		Rise: 1, Fall: fullSizeFall, UpInterval: c.FullSize, Jitter: c.Jitter,
	}}, nil
}

// close takes the program of probes off the interface.
func (h *health) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tunnel == nil {
		return nil
	}
	return h.tunnel.Close()
}
