// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// Reserve implements engine.Dataplane.
func (d *Dataplane) Reserve(c engine.Capacity) error {
	need := sizes{
		// A word for each ring, also for those that move.
		words:    c.RingSlots + 2*(c.VIPs4+c.VIPs6),
		reals:    c.Reals + 1,
		vips:     c.VIPs4 + c.VIPs6,
		bits4:    tableBits(c.VIPs4, vip4PerBucket),
		bits6:    tableBits(c.VIPs6, vip6PerBucket),
		prefixes: 2 * c.Prefixes, // with what tells that its addresses have a VIP
		targets:  c.Targets,
		routes:   c.SourceRoutes,
	}
	if c.Options {
		need.features |= featureOptions
	}
	if c.Prefixes != 0 {
		need.features |= featurePrefixes
	}
	return d.ensure(need)
}

// ensure grows what is smaller than need, with some room to spare so that it does not grow again
// at once, and switches features on.
func (d *Dataplane) ensure(need sizes) error {
	have := d.gen.sizes()
	want := have
	want.words = withSpare(have.words, need.words)
	want.reals = withSpare(have.reals, need.reals)
	want.vips = withSpare(have.vips, need.vips)
	want.prefixes = withSpare(have.prefixes, need.prefixes)
	want.targets = withSpare(have.targets, need.targets)
	want.routes = withSpare(have.routes, need.routes)
	want.features |= need.features
	want.bits4, want.bits6 = max(have.bits4, need.bits4), max(have.bits6, need.bits6)
	if want == have {
		return d.point()
	}
	return d.replace(want)
}

// withSpare is the size of a map that has too few entries, or the one that it has. It is never full then:
// kernels before 6.13 cannot overwrite in a trie that is.
func withSpare(have, need int) int {
	if need <= have {
		return have
	}
	return need + need/4 + 1
}

// replace makes a generation of the given sizes, copies everything into it, and puts it in the
// place of the present one, on the interface too if that is attached. If it fails, the present
// one stays in use. Rings are laid out anew, without gaps.
func (d *Dataplane) replace(s sizes) error {
	next, space, err := d.copyTo(s)
	if errors.Is(err, errTableFull) {
		// No seed was found for what tables of these sizes hold: double them.
		s.bits4, s.bits6 = s.bits4+1, s.bits6+1
		next, space, err = d.copyTo(s)
	}
	if err != nil {
		return err
	}
	if err := d.takeIntoUse(next); err != nil {
		next.close()
		return fmt.Errorf("replace generation: %w", err)
	}
	old := d.gen
	d.gen, d.space, d.retired = next, space, nil
	if old == nil {
		return nil
	}
	d.cfg.Log.Debug("maps and program replaced", "generation", next.number, "sizes", fmt.Sprintf("%+v", s))
	old.close()
	if d.link == nil || !d.link.current || d.unpointed {
		return nil // pins of an earlier run stay until the new program is attached
	}
	return d.removeOtherGenerations()
}

// copyTo makes a generation of the given sizes with the contents of the present one.
func (d *Dataplane) copyTo(s sizes) (*generation, *ringSpace, error) {
	d.lastNumber++
	next, err := newGeneration(d.lastNumber, s, d.cfg, d.gen)
	if err != nil {
		return nil, nil, err
	}
	space, err := d.fill(next)
	if err != nil {
		next.close()
		return nil, nil, fmt.Errorf("copy to a new generation: %w", err)
	}
	return next, space, nil
}

// fill copies reals, rings, VIPs, targets and source routes of the present generation, and returns where the rings are.
func (d *Dataplane) fill(next *generation) (*ringSpace, error) {
	space := newRingSpace(uint32(len(next.rings.elems)))
	if d.gen == nil {
		return space, nil
	}
	for _, r := range d.reals {
		if err := next.setReal(r); err != nil {
			return nil, err
		}
	}
	for id, from := range d.space.spans {
		to, ok := space.alloc(from.size)
		if !ok {
			return nil, fmt.Errorf("no room for ring %d", id)
		}
		space.set(id, to)
		next.rings.elems[to.first] = ringWord(id, lb.Options{}) // until its VIP is set
		copy(next.slots(to), d.gen.slots(from))
	}
	if err := d.gen.copyTargets(next); err != nil {
		return nil, err
	}
	if err := d.gen.copyRoutes(next); err != nil {
		return nil, err
	}
	if err := d.cfg.faults.at(stepFill); err != nil {
		return nil, err
	}
	return space, next.setVIPs(d.vips, nil, space.spans)
}

// takeIntoUse pins the generation, and makes an attached interface run its program. The update of
// the link is the moment of change; all that can be refused comes before it.
func (d *Dataplane) takeIntoUse(next *generation) error {
	if d.gen == nil {
		return nil
	}
	if err := copyInstance(d.gen, next); err != nil {
		return err
	}
	if d.link == nil || !d.link.current {
		d.warnOfLost(d.gen.copyFlows(next))
		return d.copyCounters(next)
	}
	err := next.pin(d.dir(next))
	if err == nil {
		// Where reals grow, what is counted between here and the update is not carried over.
		err = d.copyCounters(next)
	}
	if err == nil {
		d.gen.copyFlows(next) // what finds no place is counted below
		err = d.updateLink(next.prog)
	}
	if err != nil {
		_ = d.pins.removeGeneration(next.number) // the first error says more
		return err
	}
	if d.gen.flowCapacity() != next.flowCapacity() {
		d.copyLateFlows(next)
	}
	err = d.pins.use(next.number)
	if d.unpointed = err != nil; d.unpointed {
		// The program runs with its own pinned maps, and the next start finds them by its id.
		d.cfg.Log.Warn("pins do not point to the generation in use", "error", err)
	}
	return nil
}

// point has maps and progs point to the generation in use, where that failed. Until then they point to
// the one before, which stays pinned for that.
func (d *Dataplane) point() error {
	if !d.unpointed {
		return nil
	}
	if err := d.pins.use(d.gen.number); err != nil {
		return err
	}
	d.unpointed = false
	return d.removeOtherGenerations()
}

func (d *Dataplane) copyCounters(next *generation) error {
	if err := d.cfg.faults.at(stepCount); err != nil {
		return err
	}
	return copyCounters(d.gen, next)
}

var _ engine.Dataplane = (*Dataplane)(nil)
