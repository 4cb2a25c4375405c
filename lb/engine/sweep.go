// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"time"

	"github.com/remora-lb/remora/lb"
)

// flowCounts are what the last look over the flow table found.
type flowCounts struct {
	// began is when the last look began that found all as it was to be written; zero if there was none.
	began time.Time
	// of counts the remembered flows of each real, active those that had a packet in the last minute.
	of, active map[lb.RealID]int
}

const activeFlow = time.Minute

// idleError is by how much a flow's idle time may be more than it was silent.
const idleError = 2 * time.Second

// sweepIsDue tells whether anything depends on what the flow table holds.
func (e *Engine) sweepIsDue() bool {
	if e.unswept || len(e.absences.of) > 0 {
		return true
	}
	for _, v := range e.have.vips {
		if v.Flows == lb.FlowAlways {
			return true
		}
	}
	for id := range e.have.rings {
		if r := e.have.rings[id]; r.slots != nil && r.states[lb.SlotStable] < len(r.slots) {
			return true
		}
	}
	return false
}

// sweep looks over the flow table: it forgets flows that nothing depends on any more, counts the
// others, and finds slots that have none elsewhere. While not all is as it was to be written it only
// counts, since packets may meet other slots than those that are known here.
func (e *Engine) sweep() {
	s := sweeper{e: e, sure: e.lastError == "",
		counts:    flowCounts{began: e.flows.began, of: make(map[lb.RealID]int), active: make(map[lb.RealID]int)},
		elsewhere: make(map[lb.VIP]map[uint32]bool)}
	if s.sure {
		s.counts.began = time.Now()
	}
	if err := e.dp.SweepFlows(s.visit); err != nil {
		e.log.Error("flow table not looked over", "error", err)
		return
	}
	e.flows = s.counts
	if !s.sure {
		return
	}
	e.unswept = false
	for vip, p := range e.pasts.of {
		elsewhere := s.elsewhere[vip]
		if p.history.Prove(p.mark, func(slot uint32) bool { return elsewhere[slot] }) {
			p.due = true
		}
	}
}

// sweeper is one look over the flow table.
type sweeper struct {
	e         *Engine
	sure      bool // the last pass succeeded
	counts    flowCounts
	elsewhere map[lb.VIP]map[uint32]bool // slots with a flow that is not at the slot's real
}

// visit counts a flow, and tells whether it is still needed.
func (s *sweeper) visit(f lb.Flow) (keep bool) {
	real, ok := s.e.have.reals[f.Real]
	if !ok || real.Generation != f.Generation || !real.Use.Receives() {
		return false
	}
	vip, ok := s.e.have.vips[real.VIP]
	if s.sure && (!ok || !s.keeps(vip, f)) {
		return false
	}
	s.counts.of[f.Real]++
	if f.Idle < activeFlow {
		s.counts.active[f.Real]++
	}
	return true
}

func (s *sweeper) keeps(vip lb.VIPEntry, f lb.Flow) bool {
	if !vip.Flows.HasTransitions() {
		// The table is everybody's: who never forgets fills it.
		return vip.Flows == lb.FlowAlways && f.Idle <= s.e.cfg.Window+idleError
	}
	ring := s.e.have.rings[vip.RingID]
	if ring == nil || ring.slots == nil {
		return true // held as a previous run left it
	}
	if f.Idle > s.e.cfg.Window+idleError || int(f.Slot) >= len(ring.slots) {
		return false
	}
	slot := ring.slots[f.Slot]
	if slot.Stable() {
		return false
	}
	if slot.Cur() == f.Real {
		return slot.State() == lb.SlotMoving || slot.State() == lb.SlotSettling
	}
	s.mark(vip.VIP, f.Slot)
	return true
}

func (s *sweeper) mark(vip lb.VIP, slot uint32) {
	if s.elsewhere[vip] == nil {
		s.elsewhere[vip] = make(map[uint32]bool)
	}
	s.elsewhere[vip][slot] = true
}
