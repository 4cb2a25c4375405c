// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"net/netip"
	"slices"
	"time"
)

// terms are what a service is judged by, beside its own state.
type terms struct {
	now    time.Time
	cfg    *Config
	freeze *Freeze // nil if not frozen
	local  map[netip.Addr]Verdict
	// accept lets everything through.
	accept bool
}

// change is a difference between accepted and offered, and what is decided about it.
type change struct {
	addr netip.Addr
	// from is what is accepted, to what is offered. One that is absent is the zero Backend, which
	// takes nothing.
	from, to  Backend
	toIsThere bool

	// hold is the decision; with RuleNone the change is let through, and outcome says how.
	hold    held
	outcome Outcome
	// inRadius tells that the change is let through as the blast radius allows it.
	inRadius bool
}

func (c change) isGain() bool { return c.to.takes() > c.from.takes() }

// isLoss tells whether new flows lose a part of the backend, or known flows all of it.
func (c change) isLoss() bool {
	endsDrain := c.from.State == Drain && (!c.toIsThere || c.to.State == Down)
	return c.to.takes() < c.from.takes() || endsDrain
}

// lost is the weight that a loss takes away; 0 if it ends a drain.
func (c change) lost() uint64 { return uint64(c.from.takes()) - uint64(c.to.takes()) }

// let lets the change through.
func (c *change) let(how Outcome) { c.hold, c.outcome = held{}, how }

// judge decides what becomes of every difference between what is accepted and what is offered.
func (s *service) judge(t terms) (changed bool, events []Event) {
	s.forget(t)
	list := s.changes()
	if t.freeze != nil {
		s.freezeAll(t, list)
	} else {
		s.decide(t, list)
	}
	ended := s.settle(t, list)
	changed = s.apply(list)
	if !s.known && !s.heard.IsZero() && t.freeze == nil {
		s.known, changed = true, true
	}
	return changed, s.tell(t.now, s.holds(t), ended)
}

// forget drops what no longer counts: losses of earlier steps and penalties that have decayed.
func (s *service) forget(t terms) {
	s.losses = slices.DeleteFunc(s.losses, func(l loss) bool { return t.now.Sub(l.at) >= t.cfg.Step })
	for addr, f := range s.flaps {
		if f.forgotten(t.now, t.cfg.Damping) {
			delete(s.flaps, addr)
		}
	}
}

// changes are the differences by address.
func (s *service) changes() []change {
	if s.heard.IsZero() {
		return nil
	}
	var list []change
	for _, b := range s.accepted {
		i, there := find(s.offered, b.Addr)
		c := change{addr: b.Addr, from: b, toIsThere: there, outcome: Gone}
		if there {
			c.to = s.offered[i]
		}
		if c.to != b {
			list = append(list, c)
		}
	}
	for _, b := range s.offered {
		if _, there := find(s.accepted, b.Addr); !there {
			list = append(list, change{addr: b.Addr, to: b, toIsThere: true, outcome: Gone})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return a.addr.Compare(b.addr) })
	return list
}

// freezeAll holds all changes.
func (s *service) freezeAll(t terms, list []change) {
	for i, c := range list {
		list[i].hold = held{rule: RuleFreeze, since: t.now, until: t.freeze.Expiry}
		if h := s.held[c.addr]; h.rule == RuleFreeze {
			list[i].hold.since = h.since
		}
	}
}

// decide judges the changes of a service that is not frozen. What takes neither more nor less than
// before is always let through.
func (s *service) decide(t terms, list []change) {
	s.decideLosses(t, list)
	for i := range list {
		if c := &list[i]; c.isGain() {
			s.decideGain(t, c)
		}
	}
	s.keepSome(list)
}

// decideLosses decides first what the source says something about, such as a drain, and then what
// vanished, so that the latter does not use up what the blast radius allows.
func (s *service) decideLosses(t terms, list []change) {
	r := newRadius(t.cfg, capacity(s.accepted), s.losses)
	empty := capacity(s.offered) == 0
	for _, there := range []bool{true, false} {
		for i := range list {
			if c := &list[i]; c.isLoss() && c.toIsThere == there {
				s.decideLoss(t, c, r, empty)
			}
		}
	}
}

func (s *service) decideLoss(t terms, c *change, r *radius, empty bool) {
	old := s.held[c.addr]
	if !old.rule.holdsLosses() {
		old = held{since: t.now, clock: t.now} // what a freeze held is judged as if it were new
	}
	rule, duration := RuleRadius, t.cfg.Hold
	if empty {
		rule, duration = RuleEmpty, t.cfg.EmptyHold
	}
	// A hold that was longer by another rule stays as long.
	h := held{rule: rule, since: old.since, clock: old.clock, until: later(old.until, old.clock.Add(duration))}
	switch {
	case t.accept:
		c.let(Accepted)
	case t.local[c.addr] == LocalDown:
		c.let(Confirmed)
	case s.refusal.rule == RuleNone && !t.now.Before(h.until):
		c.let(Expired)
	case !empty && old.rule != RuleRadius && r.allows(c.lost()):
		c.let(Gone)
		c.inRadius = true
	default:
		c.hold = h
	}
}

func (s *service) decideGain(t terms, c *change) {
	f := s.flaps[c.addr]
	if !t.now.Before(f.until) || t.accept {
		c.let(gainOutcome(s.held[c.addr].rule, t.accept))
		return
	}
	c.hold = held{rule: RuleDamping, since: t.now, until: f.until}
	if old := s.held[c.addr]; old.rule == RuleDamping {
		c.hold.since = old.since
	}
}

func gainOutcome(rule Rule, accept bool) Outcome {
	switch {
	case accept:
		return Accepted
	case rule == RuleDamping:
		return Expired
	}
	return Gone
}

// keepSome lets damped gains through if nothing else takes new flows: a backend that comes and goes
// is better than none.
func (s *service) keepSome(list []change) {
	left := capacity(s.accepted)
	for _, c := range list {
		if c.hold.rule == RuleNone {
			left = left - uint64(c.from.takes()) + uint64(c.to.takes())
		}
	}
	if left > 0 {
		return
	}
	for i := range list {
		if c := &list[i]; c.hold.rule == RuleDamping {
			c.let(Gone)
		}
	}
}

// settle makes the decisions the service's state, except what is accepted. It returns how holds
// ended.
func (s *service) settle(t terms, list []change) map[netip.Addr]Outcome {
	before := s.held
	s.held = make(map[netip.Addr]held)
	ended := make(map[netip.Addr]Outcome)
	for _, c := range list {
		if c.hold.rule != RuleNone {
			s.held[c.addr] = c.hold
			continue
		}
		if _, was := before[c.addr]; was {
			ended[c.addr] = c.outcome
		}
		if !c.isLoss() || c.lost() == 0 {
			continue
		}
		if c.inRadius {
			s.losses = append(s.losses, loss{t.now, c.lost()})
		}
		if !t.accept && t.cfg.Damping.Suppress > 0 {
			s.flaps[c.addr] = s.flaps[c.addr].lost(t.now, t.cfg.Damping)
		}
	}
	return ended
}

// apply makes the changes that are let through, and tells whether there were any.
func (s *service) apply(list []change) bool {
	through := make(map[netip.Addr]bool, len(list))
	next := make([]Backend, 0, len(s.accepted)+len(list))
	for _, c := range list {
		if c.hold.rule != RuleNone {
			continue
		}
		through[c.addr] = true
		if c.toIsThere {
			next = append(next, c.to)
		}
	}
	if len(through) == 0 {
		return false
	}
	for _, b := range s.accepted {
		if !through[b.Addr] {
			next = append(next, b)
		}
	}
	slices.SortFunc(next, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	s.accepted = next
	return true
}

// radius is what may still be lost in a step.
type radius struct {
	cfg *Config
	// base is the capacity at the beginning of the step, reals and weight are what it lost since.
	base   uint64
	reals  int
	weight uint64
}

func newRadius(cfg *Config, capacity uint64, losses []loss) *radius {
	r := &radius{cfg: cfg, base: capacity, reals: len(losses)}
	for _, l := range losses {
		r.weight += l.weight
	}
	r.base += r.weight
	return r
}

// allows tells whether a loss fits, and takes note of it if so. The end of a drain always fits.
func (r *radius) allows(weight uint64) bool {
	if weight == 0 {
		return true
	}
	if r.reals+1 > r.cfg.MaxReals && (r.weight+weight)*100 > r.base*uint64(r.cfg.MaxWeightPercent) {
		return false
	}
	r.reals++
	r.weight += weight
	return true
}
