// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
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

// meet looks over what earlier runs left in the flow table, once, before an id is given away. What names a
// real that is not there is forgotten, so that no later holder of the id has it. Should that fail, since a
// packet is at the entry, the id's rest protects from it for as long as other balancers may hold such
// flows, and the generation for ever, but for 1 in 256 holders.
func (e *Engine) meet() error {
	if e.met {
		return nil
	}
	now := time.Now()
	err := e.dp.SweepFlows(func(f lb.Flow) (keep bool) {
		real, ok := e.have.reals[f.Real]
		if !ok {
			e.ids.meet(f.Real, f.Generation, now)
		}
		return ok && real.Generation == f.Generation
	})
	if err != nil {
		return fmt.Errorf("look over the flow table: %v", err)
	}
	e.met = true
	return nil
}

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
	s := sweeper{e: e, now: time.Now(), sure: e.lastError == "",
		counts:    flowCounts{began: e.flows.began, of: make(map[lb.RealID]int), active: make(map[lb.RealID]int)},
		elsewhere: make(map[lb.VIP]map[uint32]bool), anywhere: make(map[lb.VIP]bool)}
	if s.sure {
		s.counts.began = s.now
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
		elsewhere, anywhere := s.elsewhere[vip], s.anywhere[vip]
		if p.history.Prove(p.mark, func(slot uint32) bool { return anywhere || elsewhere[slot] }) {
			p.due = true
		}
	}
}

// sweeper is one look over the flow table.
type sweeper struct {
	e         *Engine
	now       time.Time
	sure      bool // the last pass succeeded
	counts    flowCounts
	elsewhere map[lb.VIP]map[uint32]bool // slots with a flow that is not at the slot's real
	anywhere  map[lb.VIP]bool            // VIPs with a flow that may be of any slot
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
	if f.Idle > s.e.cfg.Window+idleError {
		return false
	}
	if s.e.pasts.of[vip.VIP].misplaced(f, s.now) {
		s.anywhere[vip.VIP] = true
		return true
	}
	if int(f.Slot) >= len(ring.slots) {
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
