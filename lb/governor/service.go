// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"net/netip"
	"slices"
	"time"
)

// service is a service as one source has it. Lists of backends are sorted by address and do not
// change once they are made.
type service struct {
	key Key
	now time.Time // the latest that was passed in for it
	// known says that accepted is the last known good; it may be empty.
	known    bool
	accepted []Backend
	// offered are the backends of the last whole answer, heard is when it came; zero if never.
	offered []Backend
	heard   time.Time
	// refusal is why the latest answer does not count, if it does not.
	refusal refusal
	// invalid are the entries of the last whole answer that were left out, and since when each is
	// there.
	invalid      []note
	invalidSince map[string]time.Time
	// held are the differences between accepted and offered that are held, by address.
	held map[netip.Addr]held
	// losses are those within the last step that the blast radius allowed, oldest first.
	losses []loss
	flaps  map[netip.Addr]flap
	// told are the holds that events told, by object.
	told map[string]Hold
}

type refusal struct {
	rule   Rule
	detail string
	// since is when the first of a row of refused answers came.
	since time.Time
}

// note is an entry that was left out, and why.
type note struct{ object, text string }

// held is a change that a rule holds.
type held struct {
	rule         Rule
	since, until time.Time
	// clock is since, later by the time for which the clock of a held loss stood.
	clock time.Time
}

type loss struct {
	at     time.Time
	weight uint64
}

func newService(key Key) *service {
	return &service{key: key, held: make(map[netip.Addr]held), flaps: make(map[netip.Addr]flap)}
}

// pass moves the time on; it never goes back.
func (s *service) pass(at time.Time) { s.now = later(s.now, at) }

// refuse notes an answer that does not count.
func (s *service) refuse(rule Rule, detail string) {
	if s.refusal.rule == RuleNone {
		s.refusal.since = s.now
	}
	s.refusal.rule, s.refusal.detail = rule, detail
}

// take takes in a whole answer. While the source was not heard, the clocks of held losses stood: an
// answer that is not repeated must not empty a service.
func (s *service) take(list []Backend) {
	if s.refusal.rule != RuleNone {
		for addr, h := range s.held {
			if h.rule.holdsLosses() {
				stood := s.now.Sub(later(h.since, s.refusal.since))
				h.clock, h.until = h.clock.Add(stood), h.until.Add(stood)
				s.held[addr] = h
			}
		}
		s.refusal = refusal{}
	}
	s.heard = s.now
	s.offered, s.invalid = normal(list)
	since := make(map[string]time.Time, len(s.invalid))
	for _, n := range s.invalid {
		since[n.object] = s.now
		if old, ok := s.invalidSince[n.object]; ok {
			since[n.object] = old
		}
	}
	s.invalidSince = since
}

// next is when a hold ends by itself; zero if none does.
func (s *service) next() time.Time {
	var next time.Time
	for _, h := range s.held {
		if h.rule == RuleDamping || h.rule.holdsLosses() && s.refusal.rule == RuleNone {
			next = earlier(next, h.until)
		}
	}
	return next
}

// Service is a service with the backends that are accepted.
type Service struct {
	Key
	// Known is false until a whole answer was accepted: then nothing is to be done about the
	// service. A known service may have no backends.
	Known bool
	// Backends are the accepted ones by address. They are shared: read them only.
	Backends []Backend
	// Heard is when the last whole answer came; zero if never.
	Heard time.Time
	// Refused is the rule that refuses the latest answer, or RuleNone.
	Refused Rule
	// Held counts the changes that are held.
	Held int
}

// Services are all services, sorted by name, then source.
func (g *Governor) Services() []Service {
	list := make([]Service, 0, len(g.services))
	for _, s := range g.services {
		list = append(list, s.status())
	}
	slices.SortFunc(list, func(a, b Service) int { return a.Key.compare(b.Key) })
	return list
}

// Service is one service, and whether it is there.
func (g *Governor) Service(key Key) (Service, bool) {
	s, ok := g.services[key]
	if !ok {
		return Service{}, false
	}
	return s.status(), true
}

func (s *service) status() Service {
	return Service{
		Key: s.key, Known: s.known, Backends: s.accepted, Heard: s.heard,
		Refused: s.refusal.rule, Held: len(s.held),
	}
}

// find is the place of an address in a list.
func find(list []Backend, addr netip.Addr) (int, bool) {
	return slices.BinarySearchFunc(list, addr, func(b Backend, a netip.Addr) int { return b.Addr.Compare(a) })
}

// capacity is the weight by which the backends take new flows.
func capacity(list []Backend) uint64 {
	var sum uint64
	for _, b := range list {
		sum += uint64(b.takes())
	}
	return sum
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
