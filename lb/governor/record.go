// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// RecordVersion is the version of Record's layout.
const RecordVersion = 1

// Record is all that a governor must remember over a restart. Its fields are exported for JSON;
// nobody else needs to look into it.
type Record struct {
	// At is the latest time that the governor was told.
	At       time.Time
	Services []ServiceRecord   `json:",omitempty"`
	Freezes  map[string]Freeze `json:",omitempty"`
}

// ServiceRecord is one service in a Record.
type ServiceRecord struct {
	Source, Service string
	Known           bool
	Accepted        []Backend
	Offered         []Backend
	Heard           time.Time
	// Refused is when the row of refused answers began; zero if the latest was whole.
	Refused time.Time
	Held    map[netip.Addr]HeldRecord `json:",omitempty"`
	Losses  []LossRecord              `json:",omitempty"`
	Flaps   map[netip.Addr]FlapRecord `json:",omitempty"`
}

// HeldRecord is a change that is held.
type HeldRecord struct {
	Rule                Rule
	Since, Clock, Until time.Time
}

// LossRecord is a loss that the blast radius allowed.
type LossRecord struct {
	At     time.Time
	Weight uint64
}

// FlapRecord is how much a backend came and went.
type FlapRecord struct {
	Penalty   float64
	At, Until time.Time
}

// Record is the governor's state. Lists of backends in it are shared: read them only.
func (g *Governor) Record() Record {
	r := Record{At: g.now, Freezes: maps.Clone(g.freezes)}
	for _, s := range g.services {
		r.Services = append(r.Services, s.record())
	}
	slices.SortFunc(r.Services, func(a, b ServiceRecord) int { return a.key().compare(b.key()) })
	return r
}

func (r ServiceRecord) key() Key { return Key{r.Source, r.Service} }

func (s *service) record() ServiceRecord {
	r := ServiceRecord{
		Source: s.key.Source, Service: s.key.Service, Known: s.known, Heard: s.heard, Refused: s.refusal.since,
		Accepted: s.accepted, Offered: s.offered,
		Held: make(map[netip.Addr]HeldRecord), Flaps: make(map[netip.Addr]FlapRecord),
	}
	for addr, h := range s.held {
		r.Held[addr] = HeldRecord{h.rule, h.since, h.clock, h.until}
	}
	for _, l := range s.losses {
		r.Losses = append(r.Losses, LossRecord{l.at, l.weight})
	}
	for addr, f := range s.flaps {
		r.Flaps[addr] = FlapRecord{f.penalty, f.at, f.until}
	}
	return r
}

// Restore makes a governor that goes on from a record: all services have the backends that were
// accepted. The clocks of held losses stand from the record's time until the source is heard again.
// A record that cannot be one of a governor's is refused.
func Restore(cfg Config, r Record, now time.Time) (*Governor, error) {
	g, err := New(cfg)
	if err != nil {
		return nil, err
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("restore governor: %v", err)
	}
	g.now = now
	// If the clock was set back meanwhile, durations count and not times.
	back := max(0, r.At.Sub(now))
	maps.Copy(g.freezes, r.Freezes)
	for _, sr := range r.Services {
		s := sr.restore(r.At, back)
		s.pass(now)
		s.told = s.holds(g.terms(s))
		g.services[s.key] = s
	}
	return g, nil
}

// restore is the service as it was at a time, with times earlier by back.
func (r ServiceRecord) restore(at time.Time, back time.Duration) *service {
	s := newService(r.key())
	s.known, s.accepted, s.offered, s.heard = r.Known, r.Accepted, r.Offered, r.Heard
	s.refusal = refusal{rule: RuleUnheard, since: at.Add(-back)}
	if !r.Refused.IsZero() {
		s.refusal.since = r.Refused.Add(-back)
	}
	for addr, h := range r.Held {
		s.held[addr] = held{rule: h.Rule, since: h.Since.Add(-back), clock: h.Clock.Add(-back), until: h.Until.Add(-back)}
	}
	for _, l := range r.Losses {
		s.losses = append(s.losses, loss{l.At.Add(-back), l.Weight})
	}
	for addr, f := range r.Flaps {
		restored := flap{penalty: f.Penalty, at: f.At.Add(-back)}
		if !f.Until.IsZero() {
			restored.until = f.Until.Add(-back)
		}
		s.flaps[addr] = restored
	}
	return s
}

func (r Record) validate() error {
	var errs []error
	seen := make(map[Key]bool)
	for i, s := range r.Services {
		if seen[s.key()] {
			errs = append(errs, fmt.Errorf("Services[%d]: %q is there twice", i, s.key()))
		}
		seen[s.key()] = true
		if !isNormal(s.Accepted) || !isNormal(s.Offered) {
			errs = append(errs, fmt.Errorf("Services[%d]: the backends of %q are not valid and sorted by address", i, s.key()))
		}
		for addr, h := range s.Held {
			if h.Rule < RuleEmpty {
				errs = append(errs, fmt.Errorf("Services[%d]: a change of %s is held by rule %s", i, addr, h.Rule))
			}
		}
	}
	return errors.Join(errs...)
}

// isNormal tells whether a list is as normal makes it.
func isNormal(list []Backend) bool {
	good, refused := normal(list)
	return len(refused) == 0 && slices.Equal(good, list)
}
