// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// step is one call of a Dataplane verb. String is its text form for logs and tests.
type step interface {
	fmt.Stringer
	// repeats tells that nothing new is written: the step is there to repair.
	repeats() bool
	// apply calls the verb and records in e.have what it did.
	apply(e *Engine) error
}

type (
	reserve struct {
		capacity Capacity
		repeat   bool
	}
	setReals struct {
		reals  []lb.Real
		repeat bool
	}
	setRing struct {
		id     lb.RingID
		ring   *ring
		repeat bool
	}
	setVIPs struct {
		vips   []lb.VIPEntry
		repeat bool
	}
	deleteRing struct{ id lb.RingID }

	deleteReals struct{ ids []lb.RealID }
)

// diff is the steps from what is realised to what is wanted, in the order in which no packet meets
// an id that is not there: room, reals, rings, targets, VIPs on the way in; rings, reals on the way out,
// for which targets and VIPs are the steps before. With all it also repeats what needs no change.
func diff(have *realised, want state, all bool) []step {
	var steps []step
	if c := have.reserved.max(capacity(have.state, want)); c != have.reserved || all {
		steps = append(steps, reserve{capacity: c, repeat: c == have.reserved})
	}
	if s := diffReals(have, want, all); len(s.reals) > 0 {
		steps = append(steps, s)
	}
	rings, moved := diffRings(have, want, all)
	steps = append(steps, rings...)
	steps = append(steps, diffTargets(have, want, all)...)
	if changed := moved || have.doubtVIPs || !maps.Equal(have.vips, want.vips); changed || all {
		steps = append(steps, setVIPs{vips: sortedVIPs(want.vips), repeat: !changed})
	}
	for _, id := range slices.Sorted(maps.Keys(have.rings)) {
		if want.rings[id] == nil {
			steps = append(steps, deleteRing{id})
		}
	}
	if gone := goneReals(have, want); len(gone) > 0 {
		steps = append(steps, deleteReals{gone})
	}
	return steps
}

// diffReals is the reals to write: new, changed, in doubt, or all. Those that go and may receive still
// are retired first, so that known flows leave them now, however long it takes to write the rings, or
// should that fail. None of their packets is dropped meanwhile: a flow of a moving or settling slot goes
// where the slot says, and a slot that has the retired real itself sends packets there until it is
// written. If the whole VIP goes, there is nobody to give its flows to.
func diffReals(have *realised, want state, all bool) setReals {
	s := setReals{repeat: true}
	for _, id := range goneReals(have, want) {
		if r := have.reals[id]; r.Use.Receives() && want.has(r.VIP) {
			r.Use = lb.RealRetired
			s.reals, s.repeat = append(s.reals, r), false
		}
	}
	for _, r := range want.reals {
		changed := have.reals[r.ID] != r || have.doubtReals[r.ID]
		if changed || all {
			s.reals = append(s.reals, r)
			s.repeat = s.repeat && !changed
		}
	}
	slices.SortFunc(s.reals, func(a, b lb.Real) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// diffRings is the rings to write, and whether one gets a new place, which packets use only once
// the VIPs are set again.
func diffRings(have *realised, want state, all bool) (steps []step, moved bool) {
	for _, id := range slices.Sorted(maps.Keys(want.rings)) {
		w, h := want.rings[id], have.rings[id]
		if w.slots == nil {
			continue // held as a previous run left it
		}
		changed := have.doubtRings[id] || h != w
		if changed || all {
			steps = append(steps, setRing{id: id, ring: w, repeat: !changed})
			moved = moved || have.moves(id, w)
		}
	}
	return steps, moved
}

// moves tells whether setting the ring may give it a new place.
func (h *realised) moves(id lb.RingID, w *ring) bool {
	old := h.rings[id]
	return old == nil || h.doubtRings[id] || old.spec.Size != w.spec.Size
}

func goneReals(have *realised, want state) []lb.RealID {
	var gone []lb.RealID
	for _, id := range slices.Sorted(maps.Keys(have.reals)) {
		if _, ok := want.reals[id]; !ok {
			gone = append(gone, id)
		}
	}
	return gone
}

// capacity is the room that a pass from have to want needs at most. A ring that goes, or changes its
// length, keeps its old place until the VIPs are set.
func capacity(have, want state) Capacity {
	c := Capacity{Targets: want.targets.len()}
	if want.routes != nil {
		c.SourceRoutes = len(want.routes.routes)
	}
	for vip, v := range want.vips {
		if vip.IsPrefix() {
			c.Prefixes++
		}
		c.Options = c.Options || v.Options.OnPath()
		if vip.Addr.Is4() {
			c.VIPs4++
		} else {
			c.VIPs6++
		}
	}
	for _, s := range []state{have, want} {
		for id := range s.reals {
			c.Reals = max(c.Reals, int(id))
		}
	}
	type place struct {
		id   lb.RingID
		size uint32
	}
	places := make(map[place]bool)
	for _, s := range []state{have, want} {
		for id, r := range s.rings {
			places[place{id, r.spec.Size}] = true
		}
		for _, v := range s.vips {
			places[place{v.RingID, v.Ring.Size}] = true
		}
	}
	for p := range places {
		c.RingSlots += int(p.size)
	}
	return c
}

func (c Capacity) max(d Capacity) Capacity {
	return Capacity{
		VIPs4:     max(c.VIPs4, d.VIPs4),
		VIPs6:     max(c.VIPs6, d.VIPs6),
		Reals:     max(c.Reals, d.Reals),
		RingSlots: max(c.RingSlots, d.RingSlots),

		Prefixes:     max(c.Prefixes, d.Prefixes),
		Targets:      max(c.Targets, d.Targets),
		SourceRoutes: max(c.SourceRoutes, d.SourceRoutes),
		Options:      c.Options || d.Options,
	}
}

// changes counts the steps that are not mere repetitions.
func changes(steps []step) int {
	n := 0
	for _, s := range steps {
		if !s.repeats() {
			n++
		}
	}
	return n
}

func (s reserve) repeats() bool     { return s.repeat }
func (s setReals) repeats() bool    { return s.repeat }
func (s setRing) repeats() bool     { return s.repeat }
func (s setVIPs) repeats() bool     { return s.repeat }
func (s deleteRing) repeats() bool  { return false }
func (s deleteReals) repeats() bool { return false }

func (s reserve) String() string {
	return "reserve " + s.capacity.String()
}

func (s setReals) String() string {
	var b strings.Builder
	b.WriteString("set reals")
	for _, r := range s.reals {
		fmt.Fprintf(&b, " %d", r.ID)
	}
	return b.String()
}

func (s setRing) String() string {
	return fmt.Sprintf("set ring %d size=%d members=%d", s.id, s.ring.spec.Size, len(s.ring.members))
}

func (s setVIPs) String() string {
	var b strings.Builder
	b.WriteString("set vips")
	for _, v := range s.vips {
		fmt.Fprintf(&b, " %s=%d", v.VIP, v.RingID)
	}
	return b.String()
}

func (s deleteRing) String() string { return fmt.Sprintf("delete ring %d", s.id) }

func (s deleteReals) String() string {
	return "delete reals " + strings.Trim(fmt.Sprint(s.ids), "[]")
}
