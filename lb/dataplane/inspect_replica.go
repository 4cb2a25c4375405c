// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// Replica is a packet program of its own with copies of the inspected tables, attached to nothing and
// pinned nowhere: what it is made to process changes nothing elsewhere. It takes as much memory as the
// maps of the instance. Close it after use.
type Replica struct {
	// Same tells that the instance runs the program that the replica was made of, and not another
	// version's.
	Same bool
	d    *Dataplane
}

// Replicate makes a replica.
func (i *Inspection) Replicate() (_ *Replica, err error) {
	cfg := Config{Flows: i.gen.flowCapacity(), UDPIdle: max(i.UDPIdle, time.Second), Decap: i.Decap, QUICLB: i.QUICLB}
	d, err := Open(cfg)
	if err != nil {
		return nil, fmt.Errorf("copy the program: %v", err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := i.fill(d); err != nil {
		return nil, fmt.Errorf("copy the tables: %v", err)
	}
	same, err := i.sameProgram(d)
	return &Replica{Same: same, d: d}, err
}

// Close releases the program and its maps.
func (r *Replica) Close() error { return r.d.Close() }

// Run gives the program a frame, and returns what becomes of it, why, and the frame that comes out. The
// kernel takes frames of 14 to about 3500 bytes.
func (r *Replica) Run(frame []byte) (lb.Verdict, lb.Reason, []byte, error) {
	before, err := r.d.Snapshot()
	if err != nil {
		return 0, 0, nil, err
	}
	verdict, out, err := r.d.gen.prog.Test(frame)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("run the program: %v", err)
	}
	after, err := r.d.Snapshot()
	if err != nil {
		return 0, 0, nil, err
	}
	for reason := range lb.ReasonLen {
		if after.Reasons[reason] != before.Reasons[reason] {
			return lb.Verdict(verdict), reason, out, nil
		}
	}
	return lb.Verdict(verdict), lb.ReasonForwarded, out, nil // to a real that has no description
}

// fill copies the tables by the same verbs by which they were made, and the flow table place
// by place.
func (i *Inspection) fill(d *Dataplane) error {
	if err := d.Reserve(i.capacity()); err != nil {
		return err
	}
	if err := d.SetReals(i.Reals); err != nil {
		return err
	}
	var vips []lb.VIPEntry
	for _, v := range i.VIPs {
		slots := i.Slots(v.RingID)
		if slots == nil {
			return fmt.Errorf("the ring of %s is not where its description says", v.VIP)
		}
		if _, err := d.SetRing(v.RingID, slots); err != nil {
			return err
		}
		vips = append(vips, v)
	}
	if err := i.fillTargets(d); err != nil {
		return err
	}
	if err := d.SetVIPs(vips); err != nil {
		return err
	}
	copyPlaces(d.gen.flows.elems, i.gen.flows.elems)
	return nil
}

// copyPlaces copies the flows of a table to the same places of one of the same size. Those that a CPU
// writes at the moment are left out.
func copyPlaces(to, from []nativeFlowBucket) {
	for n := range from {
		for place := range flowPerBucket {
			if e, ok := readEntry(&from[n], place); ok {
				to[n].Tag[place], to[n].Value[place] = e.tag, e.value
			}
		}
	}
}

// fillTargets copies targets and source routes.
func (i *Inspection) fillTargets(d *Dataplane) error {
	targets, err := i.targets()
	if err != nil {
		return err
	}
	if err := putAll(d.gen.maps["targets"], targets); err != nil {
		return fmt.Errorf("copy targets: %v", err)
	}
	if m := i.gen.maps["source_routes"]; m != nil {
		return eachRoute(m, d.gen.writeRoutes)
	}
	return nil
}

// capacity is room for all that is there.
func (i *Inspection) capacity() engine.Capacity {
	c := engine.Capacity{Targets: i.gen.capacity("targets"), SourceRoutes: i.gen.capacity("source_routes")}
	for _, v := range i.VIPs {
		if v.VIP.Addr.Is4() {
			c.VIPs4++
		} else {
			c.VIPs6++
		}
		if v.VIP.IsPrefix() {
			c.Prefixes++
		}
		c.RingSlots += int(v.Ring.Size)
		c.Options = c.Options || hasOptions(v.Options)
	}
	for _, r := range i.Reals {
		c.Reals = max(c.Reals, int(r.ID))
	}
	return c
}

// sameProgram compares the two programs by the kernel's hash of their instructions, in which maps do not
// count.
func (i *Inspection) sameProgram(d *Dataplane) (bool, error) {
	live, err := i.gen.prog.Info()
	if err != nil {
		return false, fmt.Errorf("ask for the loaded program: %v", err)
	}
	own, err := d.gen.prog.Info()
	if err != nil {
		return false, fmt.Errorf("ask for the copy of the program: %v", err)
	}
	return live.Tag == own.Tag, nil
}
