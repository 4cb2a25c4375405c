// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package engine keeps a data plane equal to what the configuration and the sources of backends
// want. Its inputs are whole sets; a pure fold makes the desired value of them, a pure diff the
// steps from what is realised to it, and one goroutine applies the steps in an order in which a
// packet never meets an id that is not there.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

// Engine is the only writer of a data plane. The Set methods and Status may be called from any
// goroutine and do not block; Run and Sync are one goroutine's. There is nothing to close.
type Engine struct {
	cfg  Config
	log  *slog.Logger
	sink event.Sink
	dp   Dataplane
	hops NextHops

	changed chan struct{} // room for one: says that in is newer than the last pass
	asked   chan func()   // what others want to have done by Run
	status  atomic.Pointer[Status]

	together sync.RWMutex // held for reading by those who change in in parts

	mu sync.Mutex // guards in
	in inputs

	// What follows belongs to the goroutine of Run or Sync.
	have     realised
	ids      *ids
	planned  state  // the last plan
	adopted  *state // nil once settled
	pasts    *pasts
	absences *absences
	flows    flowCounts
	// unnamed is since when no slot names a real that is absent.
	unnamed   map[lb.RealID]time.Time
	unswept   bool   // flows may be remembered that nothing needs
	met       bool   // the flow table was looked over for what an earlier run left
	passed    uint64 // the version of the inputs that the last pass applied, if it succeeded; else 0
	hopsLeft  map[netip.Addr]lb.NextHop
	deadline  time.Time // of the wait for sources; zero before the start
	repairDue bool
	retry     backoff
	wanted    []netip.Addr // the last set given to hops
	problems  []Problem
	passes    uint64
	failures  uint64
	changes   uint64
	lastPass  time.Time
	lastApply time.Time
	lastError string
}

// New checks cfg and takes over what cfg.Adopted describes. It writes nothing and starts nothing.
func New(cfg Config, dp Dataplane, hops NextHops) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check engine configuration: %v", err)
	}
	e := &Engine{
		cfg:      cfg,
		log:      cfg.Log,
		sink:     cfg.Events,
		dp:       dp,
		hops:     hops,
		changed:  make(chan struct{}, 1),
		asked:    make(chan func()),
		in:       inputs{version: 1, backends: make(map[string]map[string][]lb.Backend)},
		have:     newRealised(),
		ids:      newIDs(cfg.Quarantine),
		planned:  newState(),
		pasts:    newPasts(cfg.Window),
		absences: &absences{of: make(map[realKey]Absence)},
		unnamed:  make(map[lb.RealID]time.Time),
		retry:    backoff{min: cfg.Retry.Min, max: cfg.Retry.Max},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.sink == nil {
		e.sink = event.ToLog(e.log)
	}
	e.adopt(cfg.Adopted)
	e.publish()
	return e, nil
}

// adopt makes what a previous run left the realised state, and keeps its ids.
func (e *Engine) adopt(a Adopted) {
	if len(a.Reals) == 0 && len(a.VIPs) == 0 {
		return
	}
	s := newState()
	e.hopsLeft = make(map[netip.Addr]lb.NextHop)
	for _, r := range a.Reals {
		s.reals[r.ID] = r
		if r.NextHop.Resolved() {
			e.hopsLeft[r.Tunnel.Destination] = r.NextHop
		}
	}
	for _, v := range a.VIPs {
		s.vips[v.VIP] = v
		s.rings[v.RingID] = &ring{vip: v.VIP, spec: v.Ring}
	}
	e.adopted = &s
	e.have.state = s.clone()
	e.planned = s.clone()
	e.recall(a)
	e.ids.adopt(s, time.Now())
	e.unswept = true
}

// Run applies every change of the inputs, retries what failed and repairs, until ctx ends. It then
// leaves the data plane as it is, after the step that is being done, and returns nil. It must not
// be used together with Sync.
func (e *Engine) Run(ctx context.Context) error {
	e.start()
	next := time.NewTimer(0) // the first pass, later the retries, and what is due by itself
	defer next.Stop()
	repair, stopRepair := ticks(e.cfg.RepairInterval)
	defer stopRepair()
	sweep, stopSweep := ticks(e.cfg.SweepInterval)
	defer stopSweep()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.changed:
		case do := <-e.asked:
			do()
		case <-next.C:
		case <-repair:
			e.repairDue = true
		case <-sweep:
			if !e.sweepIsDue() {
				continue
			}
			e.sweep()
		}
		if ctx.Err() != nil { // of several cases that are ready, any may have been taken
			return nil
		}
		next.Stop()
		if err := e.pass(ctx); err != nil && ctx.Err() == nil {
			delay := e.retry.next()
			e.log.Error("data plane is not as wanted", "error", err, "retry_in", delay)
			next.Reset(delay)
		} else if at, due := e.due(); due {
			next.Reset(time.Until(at))
		}
	}
}

// ticks is a channel that fires at intervals, or never if that is 0.
func ticks(interval time.Duration) (<-chan time.Time, func()) {
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(interval)
	return t.C, t.Stop
}

// due is when a pass has something to do though no input changes.
func (e *Engine) due() (time.Time, bool) {
	var first time.Time
	at := func(t time.Time) {
		if first.IsZero() || t.Before(first) {
			first = t
		}
	}
	if e.waiting() {
		at(e.deadline)
	}
	for _, p := range e.pasts.of {
		if t, ok := p.history.Expires(e.cfg.Window); ok {
			at(t)
		}
	}
	now := time.Now()
	for _, a := range e.absences.of {
		if a.Until.After(now) {
			at(a.Until)
		}
	}
	return first, !first.IsZero()
}

// Sync makes the data plane equal to the inputs, once. It waits for the named sources as Run does,
// and returns the last error after the configured number of failures in a row, or when ctx ends.
// It may be called again, but not while Run or another Sync runs.
func (e *Engine) Sync(ctx context.Context) error {
	e.start()
	for {
		err := e.pass(ctx)
		if err == nil && e.adopted == nil {
			return nil
		}
		wait := time.Until(e.deadline)
		if err != nil {
			if e.retry.failures+1 >= e.cfg.Retry.Attempts {
				e.retry.reset()
				return err
			}
			wait = e.retry.next()
		}
		if stopped := e.await(ctx, wait, err == nil); stopped != nil {
			return errors.Join(stopped, err)
		}
	}
}

// await returns after d, on a change of the inputs if that is asked for, or with an error when ctx
// ends.
func (e *Engine) await(ctx context.Context, d time.Duration, change bool) error {
	t := time.NewTimer(d)
	defer t.Stop()
	var changed <-chan struct{}
	if change {
		changed = e.changed
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("sync data plane: %v", context.Cause(ctx))
	case <-changed:
	case <-t.C:
	}
	return nil
}

// start begins the wait for sources, the first time that it is called.
func (e *Engine) start() {
	if e.deadline.IsZero() {
		e.deadline = time.Now().Add(e.cfg.Settle)
	}
}

// waiting tells that the deadline still has a meaning.
func (e *Engine) waiting() bool { return e.adopted != nil || e.hopsLeft != nil }

// settle ends the wait for sources when all have reported or the time has passed. From then on
// everything that was adopted is written again or removed.
func (e *Engine) settle(in inputs, now time.Time) {
	late := !now.Before(e.deadline)
	if late {
		e.hopsLeft = nil
	}
	if e.adopted == nil || !late && !in.reported(e.cfg.Sources) {
		return
	}
	e.emitSettled(in)
	e.adopted = nil
	e.have.doubtAll()
}

// pass does everything once: fold, plan, diff, apply, publish; of the last only the counts of flows if
// nothing else can have changed.
func (e *Engine) pass(ctx context.Context) error {
	now := time.Now()
	in := e.snapshot()
	e.passes, e.lastPass = e.passes+1, now
	if in.version == e.passed && !e.repairDue && !e.waiting() && !e.planIsDue(now) {
		e.publishCounts()
		return nil
	}
	e.passed = 0
	if err := e.meet(); err != nil {
		e.finish(nil, err)
		return err
	}
	e.settle(in, now)
	in.hopsLeft = e.hopsLeft

	want, err := e.plan(ctx, in, now)
	if err != nil {
		return err
	}
	e.resolve(want)
	steps := diff(&e.have, want, e.repairDue)
	err = e.apply(ctx, steps)
	e.ids.release(e.have.state, want, time.Now())
	e.finish(steps, err)
	if err == nil {
		e.passed = in.version
	}
	return err
}

// planIsDue tells whether the same inputs make another plan than the last one.
func (e *Engine) planIsDue(now time.Time) bool {
	for _, p := range e.pasts.of {
		if at, changes := p.history.Expires(e.cfg.Window); p.due || changes && !at.After(now) {
			return true
		}
	}
	for key, a := range e.absences.of {
		id := e.ids.reals[key]
		real := e.planned.reals[id]
		empty := a.Cause == CauseRemoved && !mayHaveFlows(id, e.unnamed, e.flows) && !isLedTo(e.planned.vips[key.vip].Options, real)
		if empty || real.Use != a.use(now) {
			return true
		}
	}
	return false
}

// plan folds the inputs and gives everything its id. It fails only when ctx ends: rings, of thousands of
// VIPs perhaps, take their time. The last plan is then the last one still.
func (e *Engine) plan(ctx context.Context, in inputs, now time.Time) (state, error) {
	d := fold(in)
	e.ids.expire(now)
	p := planner{
		now: now, in: in, ids: e.ids, last: e.planned, pasts: e.pasts, absences: e.absences, flows: e.flows,
		unnamed: e.unnamed, want: newState(), problems: d.problems,
	}
	p.hold(e.adopted)
	before := p.last.realsByVIP()
	for _, v := range d.vips {
		if ctx.Err() != nil {
			return state{}, fmt.Errorf("plan changes: %v", context.Cause(ctx))
		}
		if e.adopted == nil || !e.adopted.has(v.vip) {
			p.place(ctx, v, before[v.vip])
		}
	}
	p.forget()
	if e.adopted == nil {
		clear(e.pasts.left)
		p.want.targets = newTargets(p.want) // those that are left may lead to what is held
	}
	p.want.routes = in.routes
	e.planned = p.want
	e.setProblems(p.problems)
	return p.want, nil
}

// resolve tells the resolver what it is to resolve, if that changed.
func (e *Engine) resolve(want state) {
	addrs := want.destinations()
	if e.wanted != nil && slices.Equal(addrs, e.wanted) {
		return
	}
	e.wanted = addrs
	e.hops.Want(slices.Clone(addrs))
}

// setProblems remembers the problems of the inputs and logs those that are new.
func (e *Engine) setProblems(problems []Problem) {
	known := make(map[Problem]bool, len(e.problems))
	for _, p := range e.problems {
		known[p] = true
	}
	for _, p := range problems {
		if !known[p] {
			e.log.LogAttrs(context.Background(), slog.LevelWarn, p.Text, p.attrs()...)
		}
	}
	e.problems = problems
}

// finish records how a pass ended.
func (e *Engine) finish(steps []step, err error) {
	before := e.Status()
	defer func() { e.emit(before, e.Status()) }()
	e.lastPass = time.Now()
	if err != nil {
		e.failures++
		e.lastError = err.Error()
		e.publish()
		return
	}
	e.retry.reset()
	e.lastError, e.lastApply = "", e.lastPass
	if n := changes(steps); n > 0 {
		e.changes++
		e.unswept = true
		e.log.Info("data plane changed", "change", e.changes, "steps", n,
			"vips", len(e.have.vips), "reals", len(e.have.reals))
	}
	e.repairDue = false
	e.pasts.written(e.lastApply)
	e.findUnnamed(e.lastApply)
	e.publish()
	e.tellMemory()
}

// findUnnamed notes which absent reals no slot names, now that all is written.
func (e *Engine) findUnnamed(now time.Time) {
	maps.DeleteFunc(e.unnamed, func(id lb.RealID, _ time.Time) bool { return e.isNamed(id) })
	for key := range e.absences.of {
		id := e.ids.reals[key]
		if _, known := e.unnamed[id]; !known && !e.isNamed(id) {
			e.unnamed[id] = now
		}
	}
}

// isNamed tells whether a slot names the real, or may, since it is held as a previous run left it.
func (e *Engine) isNamed(id lb.RealID) bool {
	real, ok := e.have.reals[id]
	if !ok {
		return true
	}
	r := e.have.rings[e.have.vips[real.VIP].RingID]
	return r == nil || r.slots == nil || r.shares[id] > 0 || r.prevs[id] > 0
}

// tellMemory hands over what is to be remembered, if it is not what was handed over last. While
// adopted state is held that is more than is known here.
func (e *Engine) tellMemory() {
	if e.cfg.OnMemory == nil || e.adopted != nil || !e.pasts.changed && !e.absences.changed {
		return
	}
	e.pasts.changed, e.absences.changed = false, false
	e.cfg.OnMemory(e.memory(nil))
}
