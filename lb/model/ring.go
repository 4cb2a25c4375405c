// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// findSlot is section 4: from the flow's hash to its slot.
func (t *Tables) findSlot(p *packet) lb.Reason {
	ring := p.vip.Ring
	if len(ring) == 0 {
		t.note("ring", "no slots")
		return undecided
	}
	hash := maglev.FlowHash(p.hash.src, p.hash.srcPort, p.hash.dstPort)
	p.slotIndex = maglev.SlotIndex(hash, uint32(len(ring)))
	p.slot = ring[p.slotIndex]
	t.note("ring", "hash %#08x, slot %d, %s", hash, p.slotIndex, describe(p.slot))
	return undecided
}

// chooseReal takes the real of the slot, or asks section 5 for the one of the flow. A packet that is
// led has its real, which the flow table may have to learn.
func (t *Tables) chooseReal(p *packet) lb.Reason {
	meetsFlows := !p.slot.Stable() || p.vip.Flows == lb.FlowAlways
	switch {
	case p.led != notLed && meetsFlows:
		t.teachFlow(p)
	case p.led != notLed:
	case meetsFlows:
		p.realID = t.followFlow(p)
	default:
		p.realID = p.slot.Cur()
	}
	if p.realID == 0 {
		return lb.ReasonRingEmpty
	}
	return undecided
}

// describe is a slot for people.
func describe(s lb.Slot) string {
	switch {
	case s.Stable():
		return fmt.Sprintf("real %d", s.Cur())
	case s.State() == lb.SlotMoving:
		return fmt.Sprintf("%s to real %d from %d", s.State(), s.Cur(), s.Prev())
	}
	return fmt.Sprintf("%s at real %d", s.State(), s.Cur())
}
