// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package governor stands between what dynamic sources say of services and what is done about it.
// It keeps the last known good backends of every service, accepts an answer only if it is whole,
// bounds how much one answer may take away, damps what flaps, and says of every change that it
// holds or refuses by which rule, since when, and what would let it through.
//
// It is pure: the time and the verdicts of local health checks are passed in, and services do not
// influence each other. So the order of calls about different services does not matter.
package governor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Governor holds the services of all dynamic sources. It belongs to one goroutine.
type Governor struct {
	cfg      Config
	now      time.Time // the latest that was passed in
	services map[Key]*service
	freezes  map[string]Freeze
	// local is what the local health checks find, by service.
	local    map[string]map[netip.Addr]Verdict
	counters Counters
}

// Key names a service as one source has it.
type Key struct{ Source, Service string }

// String is SOURCE/SERVICE.
func (k Key) String() string { return k.Source + "/" + k.Service }

func (k Key) compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Service, l.Service), cmp.Compare(k.Source, l.Source))
}

// Freeze keeps a service as it is.
type Freeze struct {
	// Author and Reason are for people, and must not be empty.
	Author, Reason string
	// Since is set by the governor; a freeze that replaces another has that one's.
	Since time.Time
	// Expiry is when the freeze ends by itself.
	Expiry time.Time
}

// Result is what a call did. The state must be saved (Record) after a call that did anything, and
// after Freeze and Unfreeze.
type Result struct {
	// Changed are the services whose accepted backends are others than before, sorted.
	Changed []Key
	// Events are the changes of what is held, sorted by service, source and object: each is told
	// once.
	Events []Event
}

// New makes a governor that knows no service.
func New(cfg Config) (*Governor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure governor: %v", err)
	}
	return &Governor{
		cfg:      cfg,
		services: make(map[Key]*service),
		freezes:  make(map[string]Freeze),
		local:    make(map[string]map[netip.Addr]Verdict),
	}, nil
}

// Offer judges an answer of a source about one service. The backends stay the caller's.
func (g *Governor) Offer(o Offer) Result {
	g.pass(o.At)
	s := g.services[Key{o.Source, o.Service}]
	if s == nil {
		s = newService(Key{o.Source, o.Service})
		g.services[s.key] = s
	}
	s.pass(o.At)
	if rule := o.fault(); rule != RuleNone {
		s.refuse(rule, o.Detail)
		g.counters.Held[rule]++
	} else {
		s.take(o.Backends)
	}
	return g.judge(o.At, false, s)
}

// SetLocal replaces what the local health checks find of a service's backends. Backends that are
// not in the map are LocalUnknown. The map stays the caller's.
func (g *Governor) SetLocal(name string, verdicts map[netip.Addr]Verdict, at time.Time) Result {
	g.pass(at)
	if len(verdicts) == 0 {
		delete(g.local, name)
	} else {
		g.local[name] = maps.Clone(verdicts)
	}
	idle := func(s *service) bool { return len(s.held) == 0 }
	return g.judge(at, false, slices.DeleteFunc(g.named(name), idle)...)
}

// Tick does what is due by the time. A call before Next does nothing.
func (g *Governor) Tick(at time.Time) Result {
	now := g.pass(at)
	var due []*service
	for name, f := range g.freezes {
		if !now.Before(f.Expiry) {
			delete(g.freezes, name)
			due = append(due, g.named(name)...)
		}
	}
	for _, s := range g.services {
		if next := s.next(); !next.IsZero() && !now.Before(next) && !slices.Contains(due, s) {
			due = append(due, s)
		}
	}
	return g.judge(at, false, due...)
}

// Next is when to call Tick; zero if there is nothing to wait for.
func (g *Governor) Next() time.Time {
	var next time.Time
	for _, s := range g.services {
		next = earlier(next, s.next())
	}
	for _, f := range g.freezes {
		next = earlier(next, f.Expiry)
	}
	return next
}

// Freeze keeps the accepted backends of a service, of all sources, as they are until the expiry;
// it replaces a freeze that is there. The service need not be known yet.
func (g *Governor) Freeze(name string, f Freeze, at time.Time) (Result, error) {
	now := g.pass(at)
	switch {
	case f.Author == "" || f.Reason == "":
		return Result{}, fmt.Errorf("freeze service %q: an author and a reason are needed", name)
	case !f.Expiry.After(now):
		return Result{}, fmt.Errorf("freeze service %q: the expiry %s is not in the future", name, timeText(f.Expiry))
	}
	f.Since = now
	if old, ok := g.freezes[name]; ok {
		f.Since = old.Since
	}
	g.freezes[name] = f
	return g.judge(at, false, g.named(name)...), nil
}

// Unfreeze ends a freeze. What the freeze held is then judged as if it had just been offered.
func (g *Governor) Unfreeze(name string, at time.Time) (Result, error) {
	g.pass(at)
	if _, frozen := g.freezes[name]; !frozen {
		return Result{}, fmt.Errorf("unfreeze service %q: it is not frozen", name)
	}
	delete(g.freezes, name)
	return g.judge(at, false, g.named(name)...), nil
}

// Accept lets through all changes of a service that are held now. It does not make up for an
// answer that is not whole: what is held comes from the last one that was.
func (g *Governor) Accept(name string, at time.Time) (Result, error) {
	now := g.pass(at)
	if f := g.frozen(name, now); f != nil {
		return Result{}, fmt.Errorf("accept changes of service %q: it is frozen by %q until %s: %q",
			name, f.Author, timeText(f.Expiry), f.Reason)
	}
	services := g.named(name)
	if !slices.ContainsFunc(services, func(s *service) bool { return len(s.held) > 0 }) {
		return Result{}, fmt.Errorf("accept changes of service %q: none is held", name)
	}
	return g.judge(at, true, services...), nil
}

// Retain forgets all services of a source but these: for services that the operator's file names
// no longer. A service that the source itself no longer names is to be offered without backends, so
// that its end is governed too.
func (g *Governor) Retain(source string, names []string, at time.Time) Result {
	now := g.pass(at)
	var r Result
	for key, s := range g.services {
		if key.Source != source || slices.Contains(names, key.Service) {
			continue
		}
		delete(g.services, key)
		r.Changed = append(r.Changed, key)
		r.Events = append(r.Events, s.tell(now, nil, nil)...)
	}
	g.counters.add(r.Events)
	r.sort()
	return r
}

// Frozen are the freezes by service name.
func (g *Governor) Frozen() map[string]Freeze { return maps.Clone(g.freezes) }

// Counters are the counters since the start.
func (g *Governor) Counters() Counters { return g.counters }

// pass moves the time on; it never goes back.
func (g *Governor) pass(at time.Time) time.Time {
	if at.After(g.now) {
		g.now = at
	}
	return g.now
}

// named are the services of this name, of all sources.
func (g *Governor) named(name string) []*service {
	var list []*service
	for key, s := range g.services {
		if key.Service == name {
			list = append(list, s)
		}
	}
	return list
}

// judge judges services anew. Each has its own time, so that the order of services does not matter.
func (g *Governor) judge(at time.Time, accept bool, services ...*service) Result {
	var r Result
	for _, s := range services {
		s.pass(at)
		t := g.terms(s)
		t.accept = accept
		changed, events := s.judge(t)
		if changed {
			r.Changed = append(r.Changed, s.key)
		}
		r.Events = append(r.Events, events...)
	}
	g.counters.add(r.Events)
	r.sort()
	return r
}

// terms are what a service is judged by now.
func (g *Governor) terms(s *service) terms {
	name := s.key.Service
	return terms{now: s.now, cfg: &g.cfg, freeze: g.frozen(name, s.now), local: g.local[name]}
}

// frozen is the freeze that is in force for a service, or nil.
func (g *Governor) frozen(name string, now time.Time) *Freeze {
	if f, ok := g.freezes[name]; ok && now.Before(f.Expiry) {
		return &f
	}
	return nil
}

func (r *Result) sort() {
	slices.SortFunc(r.Changed, Key.compare)
	slices.SortFunc(r.Events, func(a, b Event) int { return a.Hold.compare(b.Hold) })
}

// earlier is the earlier of two times of which zero ones do not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
