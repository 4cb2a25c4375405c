// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/store"
)

// drains are the operator's: they last until they are ended or their backend is gone, over restarts
// too. Methods may be called from any goroutine.
type drains struct {
	store  *store.Store
	log    *slog.Logger
	events event.Sink
	added  chan struct{} // room for one: says that a deadline may be near

	// The engine's: what it has done, and what it is to do.
	status func() engine.Status
	hand   func(map[lb.Target]engine.Drain)
	// count is what the flow table has, as of now.
	count func() (map[lb.Target]flowCount, error)

	mu  sync.Mutex // guards what follows, and keeps what is handed over and saved in order
	set map[lb.Target]*drain
	// unsaved tells that the last save failed.
	unsaved bool
}

// flowCount is how many flows are remembered at a backend of one VIP, and how many of them had a packet
// within the last minute.
type flowCount struct{ flows, active int }

func (c flowCount) text() string {
	return fmt.Sprintf("%d flows, %d of them active", c.flows, c.active)
}

// drain is one of them, and how it stands. Until its deadline the state may change to and fro; what it is
// then is for good.
type drain struct {
	engine.Drain
	State control.DrainState
	// over tells that the deadline has come, and what is below is how it was.
	over bool
	flowCount
}

// savedDrain is a drain on disk.
type savedDrain struct {
	VIP     lb.VIP             `json:"vip"`
	Backend string             `json:"backend"`
	Since   time.Time          `json:"since"`
	Until   time.Time          `json:"until"`
	State   control.DrainState `json:"state"`
	Flows   int                `json:"flows"`
	Active  int                `json:"active,omitempty"`
}

// newDrains takes over those of an earlier run, and hands them to the engine.
func newDrains(f instanceFlags, e *engine.Engine, s *store.Store, events event.Sink, log *slog.Logger) *drains {
	d := &drains{
		store: s, log: log, events: events, added: make(chan struct{}, 1),
		status: e.Status, hand: e.SetDrains,
		count: func() (map[lb.Target]flowCount, error) { return countFlows(f) },
		set:   make(map[lb.Target]*drain),
	}
	d.load(time.Now())
	return d
}

// load takes over what an earlier run saved. Deadlines that came since then are judged by what the data
// plane still has: it went on without a daemon.
func (d *drains) load(now time.Time) {
	var saved []savedDrain
	d.store.Recall(drainsName, drainsVersion, &saved, d.log)
	missed := false
	for _, one := range saved {
		addr, err := lb.ParseBackendAddr(one.Backend)
		if err != nil {
			continue // nothing was saved so
		}
		is := &drain{
			Drain: engine.Drain{Since: one.Since, Until: one.Until}.Anchored(now),
			State: one.State, flowCount: flowCount{one.Flows, one.Active},
		}
		is.over = !now.Before(is.Until)
		missed = missed || is.over && is.State == control.DrainRunning
		d.set[lb.Target{VIP: one.VIP, Backend: addr}] = is
	}
	if missed {
		d.expireMissed()
	}
	d.handOver()
}

// expireMissed ends the drains whose deadline came while there was no daemon. Whether flows had ended by
// then is not known, so none of them is done.
func (d *drains) expireMissed() {
	counts, err := d.count()
	for t, one := range d.set {
		if !one.over || one.State != control.DrainRunning {
			continue
		}
		one.State = control.DrainExpired
		if err == nil { // otherwise what was saved has to do
			one.flowCount = counts[t]
		}
		d.emit(t, drainWord(control.DrainRunning), drainWord(one.State),
			fmt.Sprintf("drain ended: its time passed while no daemon ran; %s", one.text()))
	}
	_ = d.save() // run tries again
}

// add begins drains, or changes their deadlines. It returns once they are saved.
func (d *drains) add(until map[lb.Target]time.Time, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, deadline := range until {
		since, before := now, "none"
		if old, ok := d.set[t]; ok {
			since, before = old.Since, drainWord(old.State)
		}
		d.set[t] = &drain{Drain: engine.Drain{Since: since, Until: deadline}}
		d.emit(t, before, drainWord(control.DrainRunning), "an operator drains it; its flows have until "+deadline.UTC().Format(time.RFC3339))
	}
	select {
	case d.added <- struct{}{}:
	default: // already said
	}
	return d.changed()
}

// end ends the drains of these targets, and returns which there were.
func (d *drains) end(targets []lb.Target) ([]lb.Target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ended []lb.Target
	for _, t := range targets {
		if old, ok := d.set[t]; ok {
			delete(d.set, t)
			d.emit(t, drainWord(old.State), drainWord(control.DrainEnded), "an operator ended the drain")
			ended = append(ended, t)
		}
	}
	if len(ended) == 0 {
		return nil, nil
	}
	return ended, d.changed()
}

// changed hands the set over and saves it. The caller holds mu.
func (d *drains) changed() error {
	d.handOver()
	return d.save()
}

func (d *drains) handOver() {
	set := make(map[lb.Target]engine.Drain, len(d.set))
	for t, one := range d.set {
		set[t] = one.Drain
	}
	d.hand(set)
}

// save saves the set. If that fails it says so once, and run tries again.
func (d *drains) save() error {
	saved := make([]savedDrain, 0, len(d.set))
	for _, t := range d.targets() {
		one := d.set[t]
		saved = append(saved, savedDrain{t.VIP, t.Backend.String(), one.Since, one.Until, one.State, one.flows, one.active})
	}
	err := d.store.Save(drainsName, drainsVersion, saved)
	switch {
	case err != nil && !d.unsaved:
		d.log.Error("drains not saved; it is tried again", "error", err)
	case err == nil && d.unsaved:
		d.log.Info("drains saved")
	}
	d.unsaved = err != nil
	return err
}

// targets are those of all drains, by VIP and address.
func (d *drains) targets() []lb.Target {
	return slices.SortedFunc(maps.Keys(d.set), lb.Target.Compare)
}

// run looks how far the drains are until ctx ends.
func (d *drains) run(ctx context.Context) error {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.added:
		case <-next.C:
			d.look(time.Now())
		}
		next.Reset(d.pause(time.Now()))
	}
}

const (
	// drainInterval is the time between two looks.
	drainInterval = time.Second
	// drainLastLook is how long before a deadline there is another: afterwards other reals have the flows.
	drainLastLook = 100 * time.Millisecond
)

// pause is the time until the next look.
func (d *drains) pause(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	pause := drainInterval
	for _, one := range d.set {
		if last := one.remaining(now) - drainLastLook; last > 0 {
			pause = min(pause, last)
		}
	}
	return pause
}

// look judges how the drains stand, drops those of backends that are gone, and saves what changed or could
// not be saved before.
func (d *drains) look(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := d.judge(now)
	if changed {
		d.handOver()
	}
	if changed || d.unsaved {
		_ = d.save() // the next look tries again
	}
}

// judge judges how the drains stand, and drops those of backends that are gone. It tells whether any
// changed. The caller holds mu.
func (d *drains) judge(now time.Time) (changed bool) {
	if len(d.set) == 0 {
		return false
	}
	status := d.status()
	reals := status.ByTarget()
	counted := d.recount(reals, func(t lb.Target) bool {
		left := d.set[t].remaining(now)
		return left > 0 && left <= 2*drainInterval
	})
	for t, one := range d.set {
		before := one.State
		real, there := reals[t]
		switch {
		case !there:
			if status.Settled && now.Sub(one.Since) > engineTime {
				d.emit(t, drainWord(before), "gone", "drain ended: the backend is gone")
				delete(d.set, t)
				changed = true
			}
			continue
		case one.over:
			continue
		case !now.Before(one.Until):
			one.end()
		// A real that is held as a previous run left it is not absent; and nothing is known before it is counted.
		case real.Absence.Cause != engine.CauseNone && (counted || !status.Swept.IsZero()):
			one.follow(real, status.Swept)
		}
		if one.State != before || one.over {
			d.say(t, one, before)
			changed = true
		}
	}
	return changed
}

// say tells how a drain stands now.
func (d *drains) say(t lb.Target, one *drain, before control.DrainState) {
	what := "drained: no flow was seen for a minute"
	switch {
	case one.over:
		what = "drain ended: its time has passed"
	case one.State == control.DrainRunning:
		what = "drain goes on: a flow is seen again"
	}
	d.emit(t, drainWord(before), drainWord(one.State), what+"; "+one.text())
}

func (d *drains) emit(t lb.Target, from, to, cause string) {
	d.events.Emit(event.Event{Kind: event.KindDrain, VIP: t.VIP, Real: t.Backend, From: from, To: to, Cause: cause})
}

func drainWord(s control.DrainState) string {
	switch s {
	case control.DrainRunning:
		return "running"
	case control.DrainDone:
		return "done"
	case control.DrainExpired:
		return "expired"
	}
	return "ended"
}

// follow takes in what was found at the real. Before the first look over the flow table a drain that was
// done stays so, unless a flow is active.
func (d *drain) follow(real engine.RealStatus, swept time.Time) {
	d.flowCount = flowCount{real.Flows, real.Active}
	switch {
	case isQuiet(real, swept):
		d.State = control.DrainDone
	case d.active > 0, !swept.IsZero():
		d.State = control.DrainRunning
	}
}

// isQuiet tells whether nothing is seen of a real's flows any more. Nothing tells a connection that ended
// from one that pauses, so those that had no packet for ActiveTime do not count. Of the others each is in
// the flow table by then: since new flows go elsewhere, packets of its old ones are remembered. But those
// whose packets name the server need not be: such a real is not quiet before its deadline.
func isQuiet(real engine.RealStatus, swept time.Time) bool {
	return real.Drained(swept) || !real.Led && real.Active == 0 && !swept.Before(real.Absence.Since.Add(control.ActiveTime))
}

// end judges the drain at its deadline.
func (d *drain) end() {
	d.over, d.State = true, control.DrainDone
	if d.active > 0 {
		d.State = control.DrainExpired
	}
}

// remaining is the time until the deadline; 0 after it, and for none.
func (d *drain) remaining(now time.Time) time.Duration {
	if d == nil || d.over {
		return 0
	}
	return max(0, d.Until.Sub(now))
}

// recount counts the flows of the drained reals in the flow table, if that is worth its time for one of
// them: where the engine's count is from before the drain, or is to be the last. It tells whether it did. The
// caller holds mu.
func (d *drains) recount(reals map[lb.Target]engine.RealStatus, worth func(lb.Target) bool) bool {
	if !slices.ContainsFunc(slices.Collect(maps.Keys(d.set)), worth) {
		return false
	}
	counts, err := d.count()
	if err != nil {
		return false // the engine's count has to do
	}
	for t := range d.set {
		if real, ok := reals[t]; ok {
			real.Flows, real.Active = counts[t].flows, counts[t].active
			reals[t] = real
		}
	}
	return true
}

// countFlows counts the flows of all reals in the flow table.
func countFlows(f instanceFlags) (map[lb.Target]flowCount, error) {
	snap, err := dataplane.ReadSnapshot(f.bpffs, f.instance)
	if err != nil {
		return nil, err
	}
	counts := make(map[lb.Target]flowCount)
	for _, r := range snap.Reals {
		t := lb.Target{VIP: r.VIP, Backend: r.Backend.Addr}
		counts[t] = flowCount{counts[t].flows + r.Flows, counts[t].active + r.ActiveFlows}
	}
	return counts, nil
}

// engineTime is by when the engine has taken over an input.
const engineTime = 10 * time.Second

// list are the drains that are meant, by VIP and address, with how far they are.
func (d *drains) list(meant func(lb.Target) bool) []control.Drain {
	status := d.status()
	reals := status.ByTarget()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.recount(reals, func(t lb.Target) bool {
		return meant(t) && d.set[t].remaining(now) > 0 && status.Swept.Before(d.set[t].Since)
	})
	var list []control.Drain
	for _, t := range d.targets() {
		if !meant(t) {
			continue
		}
		one := d.set[t]
		progress := control.Drain{Target: t, State: one.State, Since: one.Since, Deadline: one.Until, Flows: one.flows, Active: one.active}
		if real, there := reals[t]; there && !one.over {
			progress.Slots, progress.Flows, progress.Active = real.PrevSlots, real.Flows, real.Active
		}
		list = append(list, progress)
	}
	return list
}
