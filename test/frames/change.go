// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// Change is what becomes of tables and flows between two packets. The VIPs and reals that it names
// are those of the tables; rings keep their length.
type Change struct {
	// VIPs and Reals take the place of what the tables have.
	VIPs  map[lb.VIP]model.VIP
	Reals map[lb.RealID]lb.Real
	// Gone are VIPs that are removed. They may come back by a later change's VIPs.
	Gone []lb.VIP
	// SourceRoutes, if not nil, takes the place of all that the tables have.
	SourceRoutes map[netip.Prefix]netip.Addr
	// Pause is how long no packet comes.
	Pause time.Duration
}

// Apply changes the maps of the tables, and the flows. It writes into no ring, so tables whose maps
// were copied before keep what they have.
func (c Change) Apply(t *model.Tables, flows *model.Flows) {
	maps.Copy(t.VIPs, c.VIPs)
	maps.Copy(t.Reals, c.Reals)
	for _, name := range c.Gone {
		delete(t.VIPs, name)
	}
	if c.SourceRoutes != nil {
		t.SourceRoutes = c.SourceRoutes
	}
	flows.Pause(c.Pause)
}

// changedSlots is how many slots of a ring are made at random, one behind the other again and again.
// It is prime to the sizes of rings, and more than an error in a slot's index is likely to be.
const changedSlots = 251

// Change makes a change to the tables, mostly to what most frames meet.
func (g *Generator) Change(t *model.Tables) Change {
	g.usual = g.rng.IntN(5) > 0
	name := g.vip()
	vip, there := t.VIPs[name]
	reals := realsOf(t, name)
	if !there {
		return g.comeBack(t, name)
	}
	if g.world != nil && g.rng.IntN(3) == 0 {
		return g.changeOptions(t, name)
	}
	var others map[lb.RealID]lb.Real
	switch {
	case len(reals) > 0 && g.rng.IntN(10) == 0:
		vip.Flows = pick(g, flowModes)
	case g.rng.IntN(2) == 0:
		return Change{Reals: g.changeReals(reals)}
	case g.rng.IntN(2) == 0: // and flows that lose their reals afterwards
		vip.Ring, others = lingering(vip.Ring), g.changeReals(reals)
	default:
		vip.Ring = g.ring(len(vip.Ring), reals)
	}
	return Change{VIPs: map[lb.VIP]model.VIP{name: vip}, Reals: others}
}

// ring is a ring of any slots that name the reals, and now and then none or an unknown one.
func (g *Generator) ring(size int, reals []lb.Real) model.Ring {
	ids := []lb.RealID{0, unknownID}
	for _, r := range reals {
		ids = append(ids, r.ID, r.ID, r.ID, r.ID)
	}
	pattern := make(model.Ring, changedSlots)
	for i := range pattern {
		pattern[i] = anySlot(g.rng, ids)
	}
	ring := make(model.Ring, size)
	for at := 0; at < len(ring); {
		at += copy(ring[at:], pattern)
	}
	return ring
}

// lingering is the ring when all changes in it are over.
func lingering(ring model.Ring) model.Ring {
	after := make(model.Ring, len(ring))
	for i, slot := range ring {
		after[i] = slot
		if !slot.Stable() {
			after[i] = lb.LingeringSlot(slot.Cur())
		}
	}
	return after
}

// changeReals changes one or some of the reals.
func (g *Generator) changeReals(reals []lb.Real) map[lb.RealID]lb.Real {
	changed := make(map[lb.RealID]lb.Real)
	for _, r := range reals {
		if g.rng.IntN(2) == 0 {
			continue
		}
		r.Use = anyUse(g.rng)
		if g.rng.IntN(3) == 0 {
			r.Generation++
		}
		changed[r.ID] = r
	}
	return changed
}

// realsOf is the records of a VIP's reals in the order of their ids.
func realsOf(t *model.Tables, vip lb.VIP) []lb.Real {
	var reals []lb.Real
	for _, r := range t.Reals {
		if r.VIP == vip {
			reals = append(reals, r)
		}
	}
	slices.SortFunc(reals, func(a, b lb.Real) int { return cmp.Compare(a.ID, b.ID) })
	return reals
}
