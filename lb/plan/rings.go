// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// compareRings counts the slots that move.
func (c *computation) compareRings(p *VIP, before lb.VIPEntry, v lb.ServiceVIP, members []member) error {
	var taking []maglev.Member
	for _, m := range members {
		if m.share > 0 {
			taking = append(taking, maglev.Member{ID: m.id, Addr: m.addr, Weight: m.share})
		}
	}
	after, err := maglev.Build(v.Ring, taking)
	if err != nil {
		return err
	}
	p.Slots.Total = len(after)
	var now []lb.Slot
	if p.Change != Added {
		now = c.have.Slots(before.RingID)
	}
	switch {
	case p.Change == Added:
	case len(now) != len(after):
		p.Slots.Moved, p.Slots.Estimated = movedByHash(now, after), true
	default:
		var moved []bool
		moved, p.Slots.Moved = movedSlots(now, after)
		p.Slots.Unavoidable = unavoidable(now, after)
		c.moved[v.VIP] = moved
	}
	return nil
}

// movedSlots are those whose new connections get to another real.
func movedSlots(now, after []lb.Slot) (moved []bool, n int) {
	moved = make([]bool, len(now))
	for i := range now {
		if now[i].Cur() != after[i].Cur() {
			moved[i] = true
			n++
		}
	}
	return moved, n
}

// unavoidable is how many slots reals have more than before, together.
func unavoidable(now, after []lb.Slot) (n int) {
	more := make(map[lb.RealID]int)
	for i := range now {
		more[now[i].Cur()]--
		more[after[i].Cur()]++
	}
	for _, d := range more {
		n += max(d, 0)
	}
	return n
}

// samples is how many hashes are looked up in rings of two sizes.
const samples = 1 << 16

// movedByHash estimates, for the size after, how many slots' worth of connections get to another real.
func movedByHash(now, after []lb.Slot) int {
	moved := 0
	for i := range uint32(samples) {
		hash := i * 0x9e3779b1 // spread over all hashes
		var from lb.RealID
		if len(now) > 0 {
			from = now[maglev.SlotIndex(hash, uint32(len(now)))].Cur()
		}
		if after[maglev.SlotIndex(hash, uint32(len(after)))].Cur() != from {
			moved++
		}
	}
	return moved * len(after) / samples
}
