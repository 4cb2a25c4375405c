// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/lb/metrics"
	"github.com/remora-lb/remora/lb/nexthop"
)

// observer is the daemon as metrics and probes see it. It may be used from several goroutines.
type observer struct {
	daemon  *daemon
	hops    *nexthop.Watcher
	events  *event.Log
	reloads *reloadLog
	iface   string
}

var (
	_ metrics.Source = (*observer)(nil)
	_ metrics.Prober = (*observer)(nil)
)

// newMetrics makes the server of metrics; nil if there is to be none.
func newMetrics(c config.Metrics, o *observer, log *slog.Logger) (*metrics.Server, error) {
	if c.Listen == "" {
		return nil, nil
	}
	collector, err := metrics.NewCollector(metrics.CollectorConfig{Source: o, PerReal: c.PerReal, MaxSeries: c.MaxSeries})
	if err != nil {
		return nil, err
	}
	return metrics.NewServer(metrics.ServerConfig{Listen: c.Listen, PProf: c.PProf, Collector: collector, Prober: o, Log: log})
}

// Snapshot implements metrics.Source.
func (o *observer) Snapshot(context.Context) metrics.Snapshot {
	s := metrics.Snapshot{
		Version: buildVersion(), Engine: engineMetrics(o.daemon.engine.Status()), Checks: checkMetrics(o.daemon.health.Counters()),
		Governor: governorMetrics(o.daemon.discovery.State()), Reloads: o.reloads.state(), Events: make(map[string]uint64),
	}
	hops := o.hops.Stats()
	s.NextHops = metrics.NextHops{Probes: hops.Probes, Resyncs: hops.Resyncs}
	for _, w := range o.daemon.discovery.Watches() {
		s.Watches = append(s.Watches, metrics.Watch{Kind: string(w.Kind), Name: w.Name, Index: w.Index,
			Changed: w.Changed, Answered: w.Answered, Errors: w.Errors, Failing: w.Failing})
	}
	counts := o.events.Counts()
	for _, kind := range event.Kinds() {
		s.Events[string(kind)] = counts[kind]
	}
	if o.daemon.announcer != nil {
		s.BGP = o.bgp()
	}
	snap, err := dataplane.ReadSnapshot(o.daemon.bpffs, o.daemon.instance)
	if err != nil { // remora_dataplane_readable says so
		return s
	}
	s.Interfaces = []metrics.Interface{{Name: snap.Interface, Mode: snap.Mode.String(), Reason: snap.ModeReason}}
	s.DataPlane = dataPlaneMetrics(snap, o.daemon.statusOf(snap))
	return s
}

func engineMetrics(s engine.Status) metrics.Engine {
	return metrics.Engine{
		Passes: s.Passes, Failures: s.Failures, Changes: s.Changes, LastPass: s.LastPass, LastApply: s.LastApply,
		Failing: s.LastError != "", Settled: s.Settled, Problems: len(s.Problems),
	}
}

func checkMetrics(c healthcheck.Counters) metrics.Checks {
	m := metrics.Checks{Results: c.Results, Durations: metrics.Histogram{Counts: c.Counts, Count: c.Conclusive, Sum: c.Total.Seconds()}}
	for _, bound := range c.Bounds {
		m.Durations.Bounds = append(m.Durations.Bounds, bound.Seconds())
	}
	return m
}

// governorMetrics splits what is held into answers that are refused and changes that are held back.
func governorMetrics(j *discovery.Judgement) metrics.Governor {
	g := metrics.Governor{
		Refused: make(map[string]uint64), Held: make(map[string]uint64), Ended: make(map[string]uint64),
		Holding: make(map[string]int), Unusable: len(j.Refused),
	}
	for rule := governor.RuleNone + 1; rule < governor.RuleLen; rule++ {
		g.Holding[rule.String()] = 0
		if rule <= governor.RuleUnheard {
			g.Refused[rule.String()] = j.Counters.Held[rule]
		} else {
			g.Held[rule.String()] = j.Counters.Held[rule]
		}
	}
	for outcome := governor.Began + 1; outcome < governor.OutcomeLen; outcome++ {
		g.Ended[outcome.String()] = j.Counters.Ended[outcome]
	}
	for _, h := range j.Held {
		g.Holding[h.Rule.String()]++
	}
	return g
}

func dataPlaneMetrics(snap *dataplane.Snapshot, status control.Status) *metrics.DataPlane {
	dp := &metrics.DataPlane{
		Attached: snap.Attached, Reasons: snap.Reasons, Removed: metrics.Traffic(snap.Removed), FlowEvents: snap.FlowEvents,
		Flows: snap.Flows, Places: snap.FlowCapacity,
	}
	for _, m := range snap.Maps {
		dp.Maps = append(dp.Maps, metrics.Map(m))
	}
	groups, health := make(map[lb.VIP]*control.HealthGroup), make(map[lb.RealID]*control.Health)
	for _, s := range status.Services {
		for _, v := range s.VIPs {
			groups[v.VIP] = v.Health
			for _, r := range v.Reals {
				health[r.ID] = r.Health
			}
		}
	}
	reals := make(map[lb.VIP][]dataplane.RealState)
	for _, r := range snap.Reals {
		reals[r.VIP] = append(reals[r.VIP], r)
	}
	for _, v := range snap.VIPs {
		m := metrics.VIP{VIPEntry: v.VIPEntry, Digest: digest(v.VIP, reals[v.VIP]), Slots: v.SlotStates}
		if g := groups[v.VIP]; g != nil {
			m.Health = &metrics.Health{FailOpen: g.FailOpen, Servable: g.Servable}
		}
		for _, r := range reals[v.VIP] {
			m.Reals = append(m.Reals, metrics.Real{Real: r.Real, Traffic: metrics.Traffic(r.Counter),
				State: healthState(health[r.ID]), Flows: r.Flows, Active: r.ActiveFlows})
		}
		dp.VIPs = append(dp.VIPs, m)
	}
	return dp
}

// healthState is one of metrics.HealthStates.
func healthState(h *control.Health) string {
	if h == nil {
		return "unchecked"
	}
	return healthcheck.State(h.Local).String()
}

// bgp is what is announced, to whom.
func (o *observer) bgp() *metrics.BGP {
	status := o.daemon.announcer.status()
	b := &metrics.BGP{Drained: status.Drained}
	for _, s := range status.Sessions {
		b.Sessions = append(b.Sessions, metrics.Session{Peer: s.Peer, ASN: s.ASN, State: s.State, Since: s.Since,
			Routes: s.Routes, Flaps: s.Flaps, BFD: s.BFD})
	}
	for _, v := range status.VIPs {
		b.VIPs = append(b.VIPs, metrics.Announcement{VIP: v.VIP, State: announce.State(v.State).String(), Code: v.Code, Announced: v.Announced})
	}
	return b
}

// aliveTime is how long ago the last pass of the engine may have ended: it makes one a minute, and takes
// its time for very many VIPs.
const aliveTime = 3 * time.Minute

// Alive implements metrics.Prober.
func (o *observer) Alive(now time.Time) []metrics.Condition {
	ago := now.Sub(o.daemon.engine.Status().LastPass)
	c := metrics.Condition{Name: "engine", OK: ago <= aliveTime, Detail: fmt.Sprintf("last pass %v ago", ago.Round(time.Millisecond))}
	return []metrics.Condition{c}
}

// Ready implements metrics.Prober.
func (o *observer) Ready(time.Time) []metrics.Condition {
	s := o.daemon.engine.Status()
	attached := metrics.Condition{Name: "attached", OK: true, Detail: o.iface}
	if prog, err := dataplane.OpenAttached(o.daemon.bpffs, o.daemon.instance, o.iface); err != nil {
		attached.OK, attached.Detail = false, err.Error()
	} else {
		prog.Close()
	}
	passed := metrics.Condition{Name: "first pass", OK: !s.LastApply.IsZero(), Detail: s.LastError}
	settled := metrics.Condition{Name: "sources", OK: s.Settled, Detail: "all have reported"}
	unheard := o.daemon.discovery.State().Unheard
	switch {
	case !s.Settled:
		settled.Detail = "what an earlier run left is held until they have reported"
	case len(unheard) > 0:
		settled.OK, settled.Detail = false, "nothing is known yet of "+strings.Join(unheard, ", ")
	}
	return []metrics.Condition{attached, passed, settled}
}

// reloadLog is what became of the configuration file since the start. It may be used from several
// goroutines.
type reloadLog struct {
	events event.Sink

	mu   sync.Mutex
	last metrics.Reloads // guarded by mu
}

func newReloadLog(events event.Sink, now time.Time) *reloadLog {
	return &reloadLog{events: events, last: metrics.Reloads{LastOK: true, At: now}}
}

func (r *reloadLog) state() metrics.Reloads {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// note takes in the end of a reload.
func (r *reloadLog) note(c *config.Config, err error, now time.Time) {
	e := event.Event{Kind: event.KindConfiguration, From: "in force", To: "reloaded"}
	r.mu.Lock()
	if r.last.LastOK = err == nil; err == nil {
		r.last.Succeeded, r.last.At = r.last.Succeeded+1, now
		e.Cause = servicesText(len(c.Services))
	} else {
		r.last.Failed++
		e.Level, e.To, e.Cause, e.Detail = slog.LevelError, "not reloaded, the present one stays", problemsText(err), err.Error()
	}
	r.mu.Unlock()
	r.events.Emit(e)
}

func servicesText(n int) string {
	if n == 1 {
		return "1 service"
	}
	return fmt.Sprintf("%d services", n)
}

// problemsText is the first problems of a configuration, each a line of the error, and how many there are.
func problemsText(err error) string {
	const shown = 3
	lines := strings.Split(err.Error(), "\n")
	if len(lines) <= shown {
		return strings.Join(lines, "; ")
	}
	return fmt.Sprintf("%d problems, the first are: %s", len(lines), strings.Join(lines[:shown], "; "))
}
