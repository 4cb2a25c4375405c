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
	return d.ensure(sizes{
		slots: c.RingSlots,
		reals: c.Reals + 1,
		vips:  c.VIPs4 + c.VIPs6,
		bits4: tableBits(c.VIPs4, vip4PerBucket),
		bits6: tableBits(c.VIPs6, vip6PerBucket),
	})
}

// ensure grows what is smaller than need, with some room to spare so that it does not grow again
// at once.
func (d *Dataplane) ensure(need sizes) error {
	have := d.gen.sizes()
	want := have
	spare := func(want *int, have, need int) {
		if need > have {
			*want = need + need/4
		}
	}
	spare(&want.slots, have.slots, need.slots)
	spare(&want.reals, have.reals, need.reals)
	spare(&want.vips, have.vips, need.vips)
	want.bits4, want.bits6 = max(have.bits4, need.bits4), max(have.bits6, need.bits6)
	if want == have {
		return nil
	}
	return d.replace(want)
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
	d.cfg.Log.Debug("maps replaced by larger ones", "generation", next.number, "sizes", fmt.Sprintf("%+v", s))
	old.close()
	if d.link == nil || !d.link.current {
		return nil // pins of an earlier run stay until the new program is attached
	}
	return d.pins.removeGeneration(old.number)
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

// fill copies reals, rings and VIPs of the present generation, and returns where the rings are.
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
		copy(next.rings.elems[to.first:to.end()], d.gen.rings.elems[from.first:from.end()])
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
		return copyCounters(d.gen, next)
	}
	err := next.pin(d.dir(next))
	if err == nil {
		// Where reals grow, what is counted between here and the update is not carried over.
		err = copyCounters(d.gen, next)
	}
	if err == nil {
		d.gen.copyFlows(next) // what finds no place is counted below
		err = d.link.update(next.prog)
	}
	if err != nil {
		_ = d.pins.removeGeneration(next.number) // the first error says more
		return err
	}
	if d.gen.flowCapacity() != next.flowCapacity() {
		d.copyLateFlows(next)
	}
	if err := d.pins.use(next.number); err != nil {
		// The program runs with its own pinned maps, and the next start finds them by its id.
		d.cfg.Log.Warn("pins do not point to the generation in use", "error", err)
	}
	return nil
}

var _ engine.Dataplane = (*Dataplane)(nil)

// familySplit counts keys by family.
func familySplit(vips []lb.VIPEntry) (v4, v6 []lb.VIPEntry) {
	for _, v := range vips {
		if v.VIP.Addr.Is4() {
			v4 = append(v4, v)
		} else {
			v6 = append(v6, v)
		}
	}
	return v4, v6
}
