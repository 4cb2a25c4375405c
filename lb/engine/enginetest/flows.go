// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// flow is an entry of the flow table.
type flow struct {
	lb.Flow
	used time.Time
}

// entry is the flow with its idle time.
func (f flow) entry() lb.Flow {
	f.Idle = time.Since(f.used)
	return f.Flow
}

// SweepFlows implements engine.Dataplane.
func (d *Dataplane) SweepFlows(visit func(lb.Flow) bool) error {
	err := d.begin("SweepFlows", "")
	defer d.end()
	if err != nil {
		return err
	}
	for tag, f := range d.flows {
		if !visit(f.entry()) {
			delete(d.flows, tag)
		}
	}
	return nil
}

// AddFlows implements engine.Dataplane.
func (d *Dataplane) AddFlows(flows []lb.Flow) (added int, err error) {
	err = d.begin("AddFlows", fmt.Sprintf(" %d", len(flows)))
	defer d.end()
	for _, f := range flows[:d.part(len(flows), err)] {
		if f.Tag == 0 || f.Tag>>55 != 0 || f.Real == 0 || f.Slot > lb.MaxRingSize || f.Idle < 0 {
			d.tb.Errorf("flow %+v is added", f)
		}
		if _, ok := d.flows[f.Tag]; !ok {
			d.flows[f.Tag] = flow{f, time.Now().Add(-f.Idle)}
			added++
		}
	}
	return added, err
}

// Flows are the remembered flows, by tag.
func (d *Dataplane) Flows() map[uint64]lb.Flow {
	d.mu.Lock()
	defer d.mu.Unlock()
	flows := make(map[uint64]lb.Flow, len(d.flows))
	for tag, f := range d.flows {
		flows[tag] = f.entry()
	}
	return flows
}

// Slots are a VIP's, as packets meet them; nil if there is no such VIP.
func (d *Dataplane) Slots(v lb.VIP) []lb.Slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	if vip, ok := d.vips[v]; ok {
		return slices.Clone(vip.place.slots)
	}
	return nil
}

// Packet is a TCP packet, as far as the flow table is concerned.
type Packet struct {
	VIP lb.VIP
	Tag uint64
	// Hash decides on the slot.
	Hash uint32
	// Begins tells that SYN is set; Resets, RST without SYN.
	Begins, Resets bool
	// ServerID is that of option 0xb7, of which packets with SYN have none; 0 for none.
	ServerID uint32
}

// Send returns the record of the real that gets the packet, false if none does: docs/packet-path.md,
// sections 3.2, without source routes, and 5. The flow table has room for all flows.
func (d *Dataplane) Send(p Packet) (lb.Real, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.vips[p.VIP]
	if !ok {
		return lb.Real{}, false
	}
	index := uint32(uint64(p.Hash) * uint64(len(v.place.slots)) >> 32)
	slot := v.place.slots[index]
	if id := d.targets[target{ring: v.RingID, serverID: p.ServerID}]; p.ServerID != 0 && v.Options.TCPIDs && d.receives(id) {
		if !slot.Stable() || v.Flows == lb.FlowAlways {
			d.repair(p, index, slot, id)
		}
		return d.reals[id], true
	}
	id := slot.Cur()
	if !slot.Stable() || v.Flows == lb.FlowAlways {
		id = d.follow(p, index, slot)
	}
	r, ok := d.reals[id]
	return r, ok
}

// follow is for packets that look at the flow table.
func (d *Dataplane) follow(p Packet, index uint32, slot lb.Slot) lb.RealID {
	state, prev := slot.State(), slot.Cur()
	if state == lb.SlotMoving && d.receives(slot.Prev()) {
		prev = slot.Prev()
	}
	f, found := d.flows[p.Tag]
	if found && !p.Begins && d.receives(f.Real) && d.reals[f.Real].Generation == f.Generation {
		f.used, f.Seen, f.Slot = time.Now(), true, index
		d.flows[p.Tag] = f
		return f.Real
	}
	choice := prev
	if p.Begins {
		choice = slot.Cur()
	}
	switch {
	case p.Resets, choice == 0:
	case state == lb.SlotLingering:
		delete(d.flows, p.Tag)
	default:
		entry := lb.Flow{Tag: p.Tag, Real: choice, Generation: d.reals[choice].Generation, Slot: index, Seen: !p.Begins}
		d.flows[p.Tag] = flow{entry, time.Now()}
	}
	return choice
}

// repair is for packets that look at the flow table and were led to a real.
func (d *Dataplane) repair(p Packet, index uint32, slot lb.Slot, id lb.RealID) {
	_, found := d.flows[p.Tag]
	if found || !p.Resets && slot.State() != lb.SlotLingering {
		entry := lb.Flow{Tag: p.Tag, Real: id, Generation: d.reals[id].Generation, Slot: index, Seen: found}
		d.flows[p.Tag] = flow{entry, time.Now()}
	}
}

func (d *Dataplane) receives(id lb.RealID) bool {
	r, ok := d.reals[id]
	return ok && r.Use.Receives()
}
