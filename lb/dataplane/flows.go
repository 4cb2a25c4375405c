// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"

	"github.com/remora-lb/remora/lb"
)

// SweepFlows implements engine.Dataplane. It reads the whole table: a millisecond for each million
// flows that it has room for, and some 20 more if they are there. visit must not call other verbs:
// growth would take the table away.
func (d *Dataplane) SweepFlows(visit func(lb.Flow) (keep bool)) error {
	if err := d.settler.wait(); err != nil {
		return err
	}
	clock, err := d.gen.flowClock()
	if err != nil {
		return err
	}
	flowTable(d.gen.flows.elems).each(func(e flowEntry) {
		if !visit(clock.flow(e)) {
			e.forget()
		}
	})
	return nil
}

// AddFlows implements engine.Dataplane. If a flow is not one, none is added.
func (d *Dataplane) AddFlows(flows []lb.Flow) (added int, err error) {
	for _, f := range flows {
		if err := checkFlow(f); err != nil {
			return 0, fmt.Errorf("add flow %x: %v", f.Tag, err)
		}
	}
	clock, err := d.gen.flowClock()
	if err != nil {
		return 0, err
	}
	table := flowTable(d.gen.flows.elems)
	for _, f := range flows {
		if !table.has(f.Tag) && table.add(clock.words(f)) {
			added++
		}
	}
	return added, nil
}

// checkFlow refuses what an entry has no room for.
func checkFlow(f lb.Flow) error {
	switch {
	case f.Tag == 0 || f.Tag>>flowTagBits != 0:
		return fmt.Errorf("tags go from 1 to %x", uint64(1)<<flowTagBits-1)
	case f.Real == 0 || f.Real > lb.MaxRealID:
		return fmt.Errorf("real %d: ids go from 1 to %d", f.Real, lb.MaxRealID)
	case f.Slot>>flowSlotBits != 0:
		return fmt.Errorf("slot %d: slots go from 0 to %d", f.Slot, 1<<flowSlotBits-1)
	}
	return nil
}

// flowClock asks the program for the present tick.
func (g *generation) flowClock() (flowClock, error) {
	jiffy, err := jiffy()
	if err != nil {
		return flowClock{}, err
	}
	now, _, err := g.clock.Test(make([]byte, 14)) // any frame
	if err != nil {
		return flowClock{}, fmt.Errorf("ask for the present tick: %v", err)
	}
	tick, _ := tickOf(jiffy)
	return flowClock{now: now, tick: tick}, nil
}

// copyFlows carries remembered flows over to a generation with a flow table of another size, and
// returns how many found no place.
func (g *generation) copyFlows(next *generation) (lost int) {
	if g.flowCapacity() == next.flowCapacity() {
		return 0 // shared
	}
	return flowTable(next.flows.elems).copyFrom(g.flows.elems)
}

// copyLateFlows does so again for what packets remembered until the last run of the old program
// ended. Only a flow that began in these milliseconds, and goes on within them, may be met unknown.
func (d *Dataplane) copyLateFlows(next *generation) {
	d.settler.needed = true
	if err := d.settler.wait(); err != nil {
		d.cfg.Log.Warn("flows remembered last may be missing in the new flow table", "error", err)
	}
	d.warnOfLost(d.gen.copyFlows(next))
}

func (d *Dataplane) warnOfLost(flows int) {
	if flows != 0 {
		d.cfg.Log.Warn("flows forgotten: the smaller flow table has no place for them", "flows", flows)
	}
}

// flowCapacity is how many flows the generation has room for.
func (g *generation) flowCapacity() int { return len(g.flows.elems) * flowPerBucket }
