// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/store"
)

// drains are the operator's: they last until they are ended or their backend is gone, over restarts
// too. Methods may be called from any goroutine.
type drains struct {
	instanceFlags
	engine *engine.Engine
	store  *store.Store
	log    *slog.Logger
	added  chan struct{} // room for one: says that a deadline may be near

	mu  sync.Mutex // guards set, and keeps what is handed over and saved in order
	set map[lb.Target]*drain
}

// drain is one of them, and how it ended.
type drain struct {
	engine.Drain
	State control.DrainState
	// Flows were left when it was last looked at before its end.
	Flows int
}

// savedDrain is a drain on disk.
type savedDrain struct {
	VIP     lb.VIP             `json:"vip"`
	Backend string             `json:"backend"`
	Since   time.Time          `json:"since"`
	Until   time.Time          `json:"until"`
	State   control.DrainState `json:"state"`
	Flows   int                `json:"flows"`
}

// newDrains takes over those of an earlier run, and hands them to the engine.
func newDrains(f instanceFlags, e *engine.Engine, s *store.Store, log *slog.Logger) *drains {
	d := &drains{instanceFlags: f, engine: e, store: s, log: log,
		added: make(chan struct{}, 1), set: make(map[lb.Target]*drain)}
	var saved []savedDrain
	load(s, drainsName, drainsVersion, &saved, log)
	for _, one := range saved {
		addr, err := lb.ParseBackendAddr(one.Backend)
		if err != nil {
			continue // nothing was saved so
		}
		d.set[lb.Target{VIP: one.VIP, Backend: addr}] = &drain{engine.Drain{Since: one.Since, Until: one.Until}, one.State, one.Flows}
	}
	d.handOver()
	return d
}

// add begins drains, or changes their deadlines. It returns once they are saved.
func (d *drains) add(until map[lb.Target]time.Time, now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t, deadline := range until {
		since := now
		if old, ok := d.set[t]; ok {
			since = old.Since
		}
		d.set[t] = &drain{Drain: engine.Drain{Since: since, Until: deadline}}
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
		if _, ok := d.set[t]; ok {
			delete(d.set, t)
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
	d.engine.SetDrains(set)
}

func (d *drains) save() error {
	saved := make([]savedDrain, 0, len(d.set))
	for _, t := range d.targets() {
		one := d.set[t]
		saved = append(saved, savedDrain{t.VIP, t.Backend.String(), one.Since, one.Until, one.State, one.Flows})
	}
	return d.store.Save(drainsName, drainsVersion, saved)
}

// targets are those of all drains, by VIP and address.
func (d *drains) targets() []lb.Target {
	return slices.SortedFunc(maps.Keys(d.set), compareTargets)
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
		if last := one.Until.Add(-drainLastLook).Sub(now); one.State == control.DrainRunning && last > 0 {
			pause = min(pause, last)
		}
	}
	return pause
}

// look ends what is done or expired, and drops drains of backends that are gone.
func (d *drains) look(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.set) == 0 {
		return
	}
	status := d.engine.Status()
	reals := realsByTarget(status)
	d.recount(reals, func(t lb.Target) bool {
		left := d.set[t].remaining(now)
		return left > 0 && left <= 2*drainInterval
	})
	changed := false
	for t, one := range d.set {
		real, there := reals[t]
		switch {
		case !there:
			if status.Settled && now.Sub(one.Since) > engineTime {
				d.log.Info("drain ended: the backend is gone", "vip", t.VIP, "real", t.Backend)
				delete(d.set, t)
				changed = true
			}
		case one.State != control.DrainRunning:
		case !now.Before(one.Until):
			one.State = control.DrainDone
			if one.Flows > 0 {
				one.State = control.DrainExpired
			}
			d.log.Info("drain ended: its time has passed", "vip", t.VIP, "real", t.Backend, "flows_left", one.Flows)
			changed = true
		case real.Drained(status.Swept):
			one.State, one.Flows = control.DrainDone, 0
			d.log.Info("drained", "vip", t.VIP, "real", t.Backend)
			changed = true
		case real.Absence.Cause != engine.CauseNone:
			one.Flows = real.Flows
		}
	}
	if changed {
		if err := d.changed(); err != nil {
			d.log.Error("drains not saved", "error", err)
		}
	}
}

// remaining is the time that a running drain has left; 0 for others, and for none.
func (d *drain) remaining(now time.Time) time.Duration {
	if d == nil || d.State != control.DrainRunning {
		return 0
	}
	return max(0, d.Until.Sub(now))
}

// recount counts the flows of the drained reals in the flow table, if that is worth its time for one of
// them: where the engine's count is from before the drain, or is to be the last. The caller holds mu.
func (d *drains) recount(reals map[lb.Target]engine.RealStatus, worth func(lb.Target) bool) {
	if !slices.ContainsFunc(slices.Collect(maps.Keys(d.set)), worth) {
		return
	}
	snap, err := dataplane.ReadSnapshot(d.bpffs, d.instance)
	if err != nil {
		return // the engine's count has to do
	}
	counts := make(map[lb.RealID]dataplane.RealState)
	for _, r := range snap.Reals {
		counts[r.ID] = r
	}
	for t := range d.set {
		if real, ok := reals[t]; ok {
			real.Flows, real.Active = counts[real.ID].Flows, counts[real.ID].ActiveFlows
			reals[t] = real
		}
	}
}

// engineTime is by when the engine has taken over an input.
const engineTime = 10 * time.Second

// list are the drains of these targets with how far they are.
func (d *drains) list(targets []lb.Target) []control.Drain {
	status := d.engine.Status()
	reals := realsByTarget(status)
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.recount(reals, func(t lb.Target) bool {
		return slices.Contains(targets, t) && d.set[t].remaining(now) > 0 && status.Swept.Before(d.set[t].Since)
	})
	var list []control.Drain
	for _, t := range targets {
		one, ok := d.set[t]
		if !ok {
			continue
		}
		progress := control.Drain{Target: t, State: one.State, Since: one.Since, Deadline: one.Until, Flows: one.Flows}
		if real := reals[t]; one.State == control.DrainRunning {
			progress.Slots, progress.Flows, progress.Active = real.PrevSlots, real.Flows, real.Active
		}
		list = append(list, progress)
	}
	return list
}

// realsByTarget are the reals of a status; of several of one target, the one that has most slots.
func realsByTarget(s engine.Status) map[lb.Target]engine.RealStatus {
	reals := make(map[lb.Target]engine.RealStatus)
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			for _, r := range v.Reals {
				t := lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}
				if old, ok := reals[t]; !ok || r.Absence.Cause < old.Absence.Cause {
					reals[t] = r
				}
			}
		}
	}
	return reals
}

func compareTargets(a, b lb.Target) int {
	if c := a.VIP.Compare(b.VIP); c != 0 {
		return c
	}
	return a.Backend.Compare(b.Backend)
}
