// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// The objects of holds that are not about one backend.
const (
	// ObjectAnswer is for answers that are refused.
	ObjectAnswer = "answer"
	// ObjectService is for a freeze, beside the holds of the changes that it holds.
	ObjectService = "service"
)

// Hold is an answer that is refused or a change that is held.
type Hold struct {
	Source, Service string
	Rule            Rule
	// Object is the backend's address, or one of the Object constants.
	Object string
	Since  time.Time
	// Until is when the hold ends by itself; zero if no time ends it, or its clock stands because
	// the source is not heard.
	Until time.Time
	// Release says what would end the hold, and Sentence what is held and why. Both are for people.
	Release, Sentence string
}

func (h Hold) compare(o Hold) int {
	return cmp.Or(cmp.Compare(h.Service, o.Service), cmp.Compare(h.Source, o.Source), cmp.Compare(h.Object, o.Object))
}

// Event is a hold that began, changed its rule, or ended.
type Event struct {
	At      time.Time
	Outcome Outcome
	// Hold is, if it ended, as it was when it began.
	Hold Hold
}

// Counters count since the start. They are a copy.
type Counters struct {
	// Held counts answers that were refused and changes that were held, by rule.
	Held [RuleLen]uint64
	// Ended counts holds that ended, by outcome; Began is not used.
	Ended [OutcomeLen]uint64
}

// add counts events. Refused answers are counted one by one elsewhere.
func (c *Counters) add(events []Event) {
	for _, e := range events {
		switch {
		case e.Outcome != Began:
			c.Ended[e.Outcome]++
		case e.Hold.Rule > RuleUnheard:
			c.Held[e.Hold.Rule]++
		}
	}
}

// Held are all holds, sorted by service, source and object.
func (g *Governor) Held() []Hold {
	var list []Hold
	for _, s := range g.services {
		list = slices.AppendSeq(list, maps.Values(s.holds(g.terms(s))))
	}
	slices.SortFunc(list, Hold.compare)
	return list
}

// tell makes holds what was told last, and returns the events that tell the difference. Ended says
// how holds of these objects ended; the others are gone.
func (s *service) tell(now time.Time, holds map[string]Hold, ended map[netip.Addr]Outcome) []Event {
	var events []Event
	for object, h := range holds {
		if old, ok := s.told[object]; !ok || old.Rule != h.Rule {
			events = append(events, Event{now, Began, h})
			continue
		}
		holds[object] = s.told[object]
	}
	how := make(map[string]Outcome, len(ended))
	for addr, outcome := range ended {
		how[addr.String()] = outcome
	}
	for object, h := range s.told {
		if _, still := holds[object]; still {
			continue
		}
		outcome, ok := how[object]
		if !ok {
			outcome = Gone
		}
		events = append(events, Event{now, outcome, h})
	}
	s.told = holds
	return slices.DeleteFunc(events, func(e Event) bool { return e.Hold.Rule == RuleUnheard })
}

// holds are the service's holds by object.
func (s *service) holds(t terms) map[string]Hold {
	holds := make(map[string]Hold, len(s.held))
	add := func(h Hold) {
		h.Source, h.Service = s.key.Source, s.key.Service
		holds[h.Object] = h
	}
	if s.refusal.rule != RuleNone {
		add(Hold{Object: ObjectAnswer, Rule: s.refusal.rule, Since: s.refusal.since,
			Release: "a whole answer", Sentence: s.refusalText()})
	}
	if f := t.freeze; f != nil {
		add(Hold{Object: ObjectService, Rule: RuleFreeze, Since: f.Since, Until: f.Expiry,
			Release: "its expiry, or an unfreeze", Sentence: fmt.Sprintf("frozen by %q: %q", f.Author, f.Reason)})
	}
	for _, n := range s.invalid {
		add(Hold{Object: n.object, Rule: RuleInvalid, Since: s.invalidSince[n.object],
			Release: "an answer without it", Sentence: "entry left out: " + n.text})
	}
	for addr, h := range s.held {
		add(s.heldText(addr, h, t))
	}
	return holds
}

func (s *service) refusalText() string {
	stays := "no backends are known yet"
	if s.known {
		stays = fmt.Sprintf("the %d backends that are known stay", len(s.accepted))
	}
	switch {
	case s.refusal.rule == RuleUnheard:
		return fmt.Sprintf("%s has not answered since the start; %s", s.key.Source, stays)
	case s.refusal.detail == "":
		return fmt.Sprintf("answer of %s refused by rule %s; %s", s.key.Source, s.refusal.rule, stays)
	}
	return fmt.Sprintf("answer of %s refused by rule %s: %q; %s", s.key.Source, s.refusal.rule, s.refusal.detail, stays)
}

// heldText is the hold of a backend's change with its words.
func (s *service) heldText(addr netip.Addr, h held, t terms) Hold {
	hold := Hold{Object: addr.String(), Rule: h.rule, Since: h.since, Until: h.until}
	is, says := describe(s.accepted, addr), describe(s.offered, addr)
	switch h.rule {
	case RuleFreeze:
		hold.Sentence = fmt.Sprintf("stays %s, as the service is frozen; %s says %s", is, s.key.Source, says)
		hold.Release = "the end of the freeze"
		return hold
	case RuleDamping:
		hold.Sentence = fmt.Sprintf("stays %s, as it came and went too often; %s says %s", is, s.key.Source, says)
		hold.Release = "its time, or an accept"
		return hold
	case RuleEmpty:
		hold.Sentence = fmt.Sprintf("stays %s, as no backend would be left for new flows; %s says %s", is, s.key.Source, says)
	default:
		hold.Sentence = fmt.Sprintf("stays %s, as more than %d backends and %d %% of the weight would be lost within %v; %s says %s",
			is, t.cfg.MaxReals, t.cfg.MaxWeightPercent, t.cfg.Step, s.key.Source, says)
	}
	if t.local[addr] == LocalUp {
		hold.Sentence += "; the local checks find it up"
	}
	hold.Release = "its time, local checks that find it down, or an accept"
	if s.refusal.rule != RuleNone {
		left := max(0, h.until.Sub(later(h.since, s.refusal.since)))
		hold.Until = time.Time{}
		hold.Release = fmt.Sprintf("%v after answers are whole again, local checks that find it down, or an accept", left)
	}
	return hold
}

// describe is what a list has at an address.
func describe(list []Backend, addr netip.Addr) string {
	i, ok := find(list, addr)
	if !ok {
		return "absent"
	}
	return list[i].String()
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }
