// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Export is what another balancer of the same VIPs needs to treat this one's flows as this one does.
// It has a stable form in JSON.
type Export struct {
	Memory
	Flows []FlowMemory `json:"flows"`
}

// FlowMemory is a remembered flow, named as every balancer names it.
type FlowMemory struct {
	VIP     lb.VIP        `json:"vip"`
	Backend netip.Addr    `json:"backend"`
	Tag     uint64        `json:"tag"`
	Slot    uint32        `json:"slot"`
	Idle    time.Duration `json:"idle_ns"`
	Seen    bool          `json:"seen"`
}

// Imported is what became of an Export.
type Imported struct {
	// VIPs had their history completed, Flows are remembered now.
	VIPs, Flows int
	// Known flows were there already, or there was no place for them. Unknown ones are of no use here:
	// of VIPs or backends that are not here, or get no packets any more, or of rings of another size;
	// or they are silent for longer than the window.
	Known, Unknown int
}

// Export returns what the engine and its data plane remember. It waits for Run, which must be running
// or start.
func (e *Engine) Export(ctx context.Context) (x *Export, err error) {
	done := e.do(ctx, func() { x, err = e.export() })
	return x, errors.Join(done, err)
}

// Import adds what another balancer exported: sets that were in force within the window and flows
// that are not known here. What is known here stays. A ring that is younger here than the window takes
// over what it was there before: so Import comes before the packets do. It waits for Run, as Export
// does.
func (e *Engine) Import(ctx context.Context, x *Export) (got Imported, err error) {
	done := e.do(ctx, func() { got, err = e.importAll(ctx, x) })
	if err = errors.Join(done, err); err != nil {
		return got, err
	}
	return got, e.Applied(ctx) // the slots look at the flow table now
}

// Applied returns once Run has made a pass that began after the call. What became of it is in the
// status.
func (e *Engine) Applied(ctx context.Context) error {
	for range 2 { // Run makes a pass after all that it is asked
		if err := e.do(ctx, func() {}); err != nil {
			return err
		}
	}
	return nil
}

// do has f done by the goroutine of Run. The error is that of ctx; f has not been called then.
func (e *Engine) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case <-ctx.Done():
		return fmt.Errorf("ask engine: %w", context.Cause(ctx))
	case e.asked <- func() { defer close(done); f() }:
		<-done
		return nil
	}
}

// errHeld is for what cannot be done before the sources have reported.
func (e *Engine) errHeld() error {
	if e.adopted == nil {
		return nil
	}
	return errors.New("rings are held as a previous run left them until all sources have reported")
}

func (e *Engine) export() (*Export, error) {
	if err := e.errHeld(); err != nil {
		return nil, fmt.Errorf("export flows: %v", err)
	}
	x := &Export{}
	vips := make(map[lb.VIP]bool)
	now := time.Now()
	err := e.dp.SweepFlows(func(f lb.Flow) bool {
		real, ok := e.have.reals[f.Real]
		// Of a flow that was not met since the ring got another size, the slot is not known.
		if ok && real.Generation == f.Generation && real.Use.Receives() && e.have.has(real.VIP) &&
			!e.pasts.of[real.VIP].misplaced(f, now) {
			x.Flows = append(x.Flows, FlowMemory{real.VIP, real.Backend.Addr, f.Tag, f.Slot, f.Idle, f.Seen})
			vips[real.VIP] = true
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("export flows: %v", err)
	}
	x.Memory = *e.memory(vips)
	return x, nil
}

func (e *Engine) importAll(ctx context.Context, x *Export) (Imported, error) {
	var got Imported
	if err := e.errHeld(); err != nil {
		return got, fmt.Errorf("import flows: %v", err)
	}
	vips := make(map[lb.VIP]bool) // with the same slots there as here
	for _, m := range x.VIPs {
		if _, twice := vips[m.VIP]; !twice {
			vips[m.VIP] = m.Size == e.have.vips[m.VIP].Ring.Size
		}
	}
	pasts := e.importPasts(ctx, x.VIPs)
	if ctx.Err() != nil {
		return got, fmt.Errorf("import flows: %w", context.Cause(ctx)) // nothing is changed yet
	}
	for vip, p := range pasts {
		e.pasts.of[vip], e.pasts.changed = p, true
	}
	got.VIPs = len(pasts)
	flows := e.flowsHere(x.Flows, vips)
	got.Unknown = len(x.Flows) - len(flows)
	var err error
	got.Flows, err = e.dp.AddFlows(flows)
	got.Known = len(flows) - got.Flows
	if err != nil {
		return got, fmt.Errorf("import flows: %v", err)
	}
	return got, nil
}

// mostTag is the greatest tag of a flow: 55 bits.
const mostTag = 1<<55 - 1

// flowsHere are those flows that can be remembered here. It makes their slots look at the flow table.
func (e *Engine) flowsHere(all []FlowMemory, vips map[lb.VIP]bool) (flows []lb.Flow) {
	reals := e.realsOfTargets()
	slots := make(map[lb.VIP]map[uint32]bool)
	for _, f := range all {
		r, ok := reals[lb.Target{VIP: f.VIP, Backend: f.Backend}]
		if !ok || !vips[f.VIP] || f.Tag == 0 || f.Tag > mostTag || !e.needs(f) {
			continue
		}
		flows = append(flows, lb.Flow{Tag: f.Tag, Real: r.ID, Generation: r.Generation, Slot: f.Slot, Idle: max(0, f.Idle), Seen: f.Seen})
		if slots[f.VIP] == nil {
			slots[f.VIP] = make(map[uint32]bool)
		}
		slots[f.VIP][f.Slot] = true
	}
	for vip, of := range slots {
		if p := e.pasts.of[vip]; p != nil {
			p.history.Linger(func(slot uint32) bool { return of[slot] })
			p.due = true
		}
	}
	clear(e.unnamed) // any real may have flows now
	e.passed = 0
	return flows
}

// realsOfTargets are the reals that known flows may go to; of several of one target, that which gets
// new ones.
func (e *Engine) realsOfTargets() map[lb.Target]lb.Real {
	reals := make(map[lb.Target]lb.Real)
	for _, r := range e.have.reals {
		target := lb.Target{VIP: r.VIP, Backend: r.Backend.Addr}
		old, twice := reals[target]
		if r.Use.Receives() && (!twice || cmp.Or(cmp.Compare(r.Use, old.Use), cmp.Compare(r.ID, old.ID)) < 0) {
			reals[target] = r
		}
	}
	return reals
}

// needs tells whether a flow may depend on what the flow table holds.
func (e *Engine) needs(f FlowMemory) bool {
	v, ok := e.have.vips[f.VIP]
	switch {
	case !ok, v.Flows == lb.FlowNever, f.Slot >= v.Ring.Size:
		return false
	}
	return f.Idle <= e.cfg.Window+idleError
}

// importPasts are the pasts of VIPs, of each the first in the list, completed by what others remember. It
// stops when ctx ends.
func (e *Engine) importPasts(ctx context.Context, list []VIPMemory) map[lb.VIP]*past {
	now, b := time.Now(), budget{mostReplayed}
	reals := e.planned.realsByVIP()
	seen := make(map[lb.VIP]bool)
	pasts := make(map[lb.VIP]*past)
	for _, m := range list {
		if seen[m.VIP] || ctx.Err() != nil {
			continue
		}
		seen[m.VIP] = true
		if p := e.importPast(ctx, &b, m, reals[m.VIP], now); p != nil {
			pasts[m.VIP] = p
		}
	}
	return pasts
}

// importPast puts the sets of two pasts in one order. The last one stays the one that is in force
// here, and if this past reaches back over the window, so does the first. It is nil if they do not fit.
func (e *Engine) importPast(ctx context.Context, b *budget, m VIPMemory, reals []lb.Real, now time.Time) *past {
	p := e.pasts.of[m.VIP]
	if p == nil || !p.guessed.IsZero() || m.Size != p.spec.Size || m.Hash != p.spec.Hash.String() {
		return nil
	}
	sets, ok := setsWithin(now, e.cfg.Window, m.Sets)
	if !ok || len(sets) == 0 {
		return nil
	}
	ids := newRingIDs(reals)
	var theirs []memberSet
	until := now.Add(-e.cfg.Window)
	for _, set := range sets {
		if p.sets[0].since.After(until) || set.Since.After(until) {
			theirs = append(theirs, memberSet{set.Since, ids.members(set)})
		}
	}
	merged, err := b.replay(ctx, p.spec, inOneOrder(p.sets, theirs))
	if err != nil {
		return nil
	}
	ring := e.planned.rings[e.planned.vips[m.VIP].RingID]
	merged.history.Linger(func(slot uint32) bool { return !ring.slots[slot].Stable() })
	merged.unwritten, merged.renumbered = p.unwritten, p.renumbered
	merged.coalesce(e.cfg.Window)
	return merged
}

// inOneOrder is all these sets by time, own before others of the same; own's last one is the last.
func inOneOrder(own, theirs []memberSet) []memberSet {
	sets := slices.Concat(own, theirs)
	slices.SortStableFunc(sets, func(a, b memberSet) int { return a.since.Compare(b.since) })
	last := own[len(own)-1]
	if end := sets[len(sets)-1].since; end.After(last.since) {
		last.since = end
	}
	return append(sets, last)
}
