// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/transition"
)

// past is how one VIP's ring came to be as it is, as far as the window reaches back.
type past struct {
	spec    lb.Ring
	history *transition.History
	// sets are what the choices of the window were made of, the oldest first.
	sets []memberSet
	// unwritten is since when changes were made that are not known to be written; zero if all are.
	unwritten time.Time
	// guessed is when the history was told from slots alone, so that the sets do not tell it; zero if
	// they do, or that is more than a window ago.
	guessed time.Time
	// renumbered is when flows got other slots, since the ring got another size, other parts of a packet
	// choose them, or what was remembered before is not known: those that were not met since then name
	// slots that are not theirs. Zero if that is more than a window ago.
	renumbered time.Time
	// Of the last derivation: the history's mark, and the uses of the VIP's reals.
	mark transition.Mark
	uses map[lb.RealID]lb.RealUse
	due  bool // the slots are to be derived again
}

// memberSet is a set of members and since when it was in force.
type memberSet struct {
	since   time.Time
	members []maglev.Member
}

// keptApart is how many changes within the window are kept apart. Of more, those that fall in the same
// part of the window become one, as many parts as that.
const keptApart = 64

// pasts are those of all VIPs whose flows are remembered while rings change.
type pasts struct {
	window time.Duration
	of     map[lb.VIP]*past
	// left is what a previous run left, of VIPs that have not been placed since; replays is for it.
	left    map[lb.VIP]leftRing
	replays budget
	// changed tells that the sets are not as they were when it was made false.
	changed bool
}

func newPasts(window time.Duration) *pasts {
	return &pasts{
		window: window, of: make(map[lb.VIP]*past), left: make(map[lb.VIP]leftRing),
		replays: budget{mostReplayed}, changed: true,
	}
}

// names tells whether a choice of the window, but the present one, has the real.
func (ps *pasts) names(vip lb.VIP, id lb.RealID) bool {
	past := ps.of[vip]
	return past != nil && past.history.Names(id)
}

// end forgets a VIP's past.
func (ps *pasts) end(vip lb.VIP) {
	if ps.of[vip] != nil {
		delete(ps.of, vip)
		ps.changed = true
	}
}

// written tells that all rings are written now as they were last derived.
func (ps *pasts) written(now time.Time) {
	for _, p := range ps.of {
		p.redate(now)
		p.unwritten = time.Time{}
	}
}

// ring is the VIP's ring: the one of the last plan if it has the same content.
func (ps *pasts) ring(ctx context.Context, p *planner, v desiredVIP, id lb.RingID, members []maglev.Member) (*ring, error) {
	last := p.last.rings[id]
	same := last.chosenBy(v.vip, v.ring, members)
	var choice []lb.Slot
	if same {
		choice = last.choice
	} else {
		var err error
		if choice, err = maglev.Build(v.ring, members); err != nil {
			return nil, err
		}
	}
	slots := choice
	if v.flows.HasTransitions() {
		past := ps.change(ctx, p, v, members, choice, same)
		if !ps.isDue(past, p) && same {
			return last, nil
		}
		slots = past.slots(choice, p.uses)
	} else {
		ps.end(v.vip)
	}
	if same && slices.Equal(last.slots, slots) {
		return last, nil
	}
	return newRing(v.vip, v.ring, members, choice, slots), nil
}

// change makes members and their choice the present ones of the VIP's past.
func (ps *pasts) change(ctx context.Context, p *planner, v desiredVIP, members []maglev.Member, choice []lb.Slot, same bool) *past {
	was := ps.of[v.vip]
	if was == nil || was.spec != v.ring || p.rehashes(v) {
		was = ps.begin(ctx, p, v, members, choice)
		ps.of[v.vip], ps.changed = was, true
	} else if same {
		return was
	}
	ps.changed = true
	if !was.history.Change(p.now, choice) {
		was.sets[len(was.sets)-1].members = members // their choice is the same
		return was
	}
	was.sets = append(was.sets, memberSet{p.now, members})
	was.due = true
	if was.unwritten.IsZero() {
		was.unwritten = p.now
	}
	was.coalesce(ps.window)
	return was
}

// begin makes the past of a VIP that has none: a new one, one that a previous run left, or one whose
// ring became another. Of the last nothing can be told, since flows have other slots now. Those that
// are remembered are found by their tag in any slot that looks at the flow table: so all of them do.
func (ps *pasts) begin(ctx context.Context, p *planner, v desiredVIP, members []maglev.Member, choice []lb.Slot) *past {
	var begun *past
	if left, ok := ps.left[v.vip]; ok && left.spec == v.ring {
		begun = left.restore(ctx, &ps.replays, p.now, ps.window, choice)
	}
	delete(ps.left, v.vip)
	if begun == nil {
		begun = &past{spec: v.ring, history: transition.New(choice), sets: []memberSet{{p.now, members}}, due: true}
	}
	if last, ok := p.last.vips[v.vip]; ok && (last.Flows != v.flows || last.Ring != v.ring || p.rehashes(v)) {
		begun.history.Linger(func(uint32) bool { return true })
		begun.renumbered, begun.unwritten = p.now, p.now
	}
	return begun
}

// rehashes tells whether other parts of a packet choose the slot than by the last plan.
func (p *planner) rehashes(v desiredVIP) bool {
	last, ok := p.last.vips[v.vip]
	byClient := func(o lb.Options) bool { return o.Fragments == lb.FragmentsByClient }
	return ok && (last.Options.Hash != v.options.Hash || byClient(last.Options) != byClient(v.options))
}

// isDue forgets what is older than the window, and tells whether the slots are to be derived again.
// Changes that are not written yet do not grow old.
func (ps *pasts) isDue(past *past, p *planner) bool {
	past.redate(p.now)
	until := p.now.Add(-ps.window)
	if past.history.Forget(until) {
		past.due = true
	}
	for len(past.sets) > 1 && !past.sets[1].since.After(until) {
		past.sets = past.sets[1:]
		ps.changed = true
	}
	if !past.guessed.IsZero() && !past.guessed.After(until) {
		past.guessed = time.Time{}
		ps.changed = true
	}
	// What was not met since is forgotten by then.
	if !past.renumbered.IsZero() && p.now.Sub(past.renumbered) > ps.window+2*idleError {
		past.renumbered = time.Time{}
		ps.changed = true
	}
	if _, changes := past.history.Expires(0); changes && !past.due {
		past.due = !maps.Equal(past.uses, p.uses)
	}
	return past.due
}

// redate dates the changes that were not written before now.
func (p *past) redate(now time.Time) {
	if p.unwritten.IsZero() {
		return
	}
	p.history.Redate(p.unwritten, now)
	for i := range p.sets[1:] {
		if set := &p.sets[i+1]; !set.since.Before(p.unwritten) {
			set.since = now
		}
	}
	if !p.guessed.Before(p.unwritten) {
		p.guessed = now
	}
	if !p.renumbered.Before(p.unwritten) {
		p.renumbered = now
	}
	p.unwritten = now
}

// coalesce bounds what is kept of many changes: by their number, and by the slots and members that they
// are about. What lies in the same part of the window becomes one, in parts that are the longer the more
// there is; as one change all of them have no more slots than the ring.
func (p *past) coalesce(window time.Duration) {
	grain := window / keptApart
	if len(p.sets) <= keptApart && !p.isLarge() {
		return
	}
	p.coalesceBy(grain)
	for p.isLarge() && grain < window {
		grain *= 2
		p.coalesceBy(grain)
	}
}

func (p *past) coalesceBy(grain time.Duration) {
	p.history.Coalesce(grain)
	p.sets = coalesceSets(p.sets, grain)
}

// The changes may be about so many slots for each of the ring's, and the sets have so many members; but
// small rings need not be so sparing: 65536 slots are half a megabyte.
const (
	keptPerSlot = 4
	keptAnyway  = 1 << 16
)

func (p *past) isLarge() bool {
	members := 0
	for _, set := range p.sets {
		members += len(set.members)
	}
	return max(members, p.history.Kept()) > max(keptAnyway, keptPerSlot*int(p.spec.Size))
}

// coalesceSets makes one set of those that fall in the same grain, the last. Where that leaves
// neighbours with the same members, the first stays: between them nothing is to be told any more.
func coalesceSets(all []memberSet, grain time.Duration) []memberSet {
	sets := all[:1:1]
	for _, set := range all[1:] {
		if n := len(sets) - 1; n > 0 && transition.SameGrain(sets[n].since, set.since, grain) {
			sets[n] = set
		} else {
			sets = append(sets, set)
		}
	}
	return slices.CompactFunc(sets, func(a, b memberSet) bool { return slices.Equal(a.members, b.members) })
}

// misplaced tells whether a flow, as of now, may name a slot that is not its own any more.
func (p *past) misplaced(f lb.Flow, now time.Time) bool {
	return p != nil && !p.renumbered.IsZero() && f.Idle+idleError >= now.Sub(p.renumbered)
}

// slots derives them for reals of these uses. Those of most rings are the choice at most times, and
// then share its memory.
func (p *past) slots(choice []lb.Slot, uses map[lb.RealID]lb.RealUse) []lb.Slot {
	p.due, p.mark, p.uses = false, p.history.Mark(), uses
	if p.history.Quiet() {
		return choice
	}
	return p.history.Slots(receivers(uses))
}

// receivers tells of which reals known flows may get packets.
func receivers(uses map[lb.RealID]lb.RealUse) func(lb.RealID) bool {
	return func(id lb.RealID) bool {
		use, ok := uses[id]
		return ok && use.Receives()
	}
}
