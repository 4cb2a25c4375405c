// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"fmt"
	"slices"
)

// Rule is why an answer is refused or a change is held.
type Rule uint8

// The rules. Those up to RuleUnheard refuse whole answers: the last known good backends stay.
const (
	// RuleNone is no rule: the answer is whole.
	RuleNone Rule = iota
	// RuleIncomplete refuses an answer that is not whole for a reason that has no rule of its own.
	RuleIncomplete
	// RuleUnreachable refuses what is no answer: no connection, or none within the time.
	RuleUnreachable
	// RuleStatus refuses an answer with an HTTP status that is not success.
	RuleStatus
	// RuleNoLeader refuses an answer of servers that know no leader.
	RuleNoLeader
	// RuleFiltered refuses an answer that access rules shortened.
	RuleFiltered
	// RuleIndex refuses an answer whose index is not sane.
	RuleIndex
	// RuleDecode refuses an answer that cannot be read.
	RuleDecode
	// RuleUnheard is for services that were restored and not answered for since.
	RuleUnheard
	// RuleInvalid leaves out an entry of an answer that cannot be used.
	RuleInvalid
	// RuleEmpty holds losses that would leave no backend that takes new flows.
	RuleEmpty
	// RuleRadius holds losses beyond the blast radius.
	RuleRadius
	// RuleDamping holds gains of backends that come and go.
	RuleDamping
	// RuleFreeze holds all changes of a frozen service.
	RuleFreeze

	// RuleLen is the number of rules, not one of them.
	RuleLen
)

var ruleNames = [RuleLen]string{
	"none",
	"incomplete", "unreachable", "status", "no_leader", "filtered", "index", "decode", "unheard",
	"invalid", "empty", "radius", "damping", "freeze",
}

// String is the rule's name, as metrics have it.
func (r Rule) String() string {
	if r < RuleLen {
		return ruleNames[r]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (r Rule) MarshalText() ([]byte, error) { return marshalName(r, int(RuleLen)) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rule) UnmarshalText(b []byte) error {
	i, err := indexOf("rule", ruleNames[:], b)
	*r = Rule(i)
	return err
}

// holdsLosses tells whether the rule's holds last for a time in which the source is heard.
func (r Rule) holdsLosses() bool { return r == RuleEmpty || r == RuleRadius }

// Outcome is what became of a hold.
type Outcome uint8

// The outcomes.
const (
	// Began: the rule holds the change from now on; another rule may have held it before.
	Began Outcome = iota
	// Expired: its time is over, and the change was let through.
	Expired
	// Confirmed: the local checks agree, and the change was let through.
	Confirmed
	// Accepted: an operator let the change through.
	Accepted
	// Gone: its cause is gone. The source no longer asks for it, answers are whole again, the freeze
	// ended, or the change now fits the blast radius.
	Gone

	// OutcomeLen is the number of outcomes, not one of them.
	OutcomeLen
)

var outcomeNames = [OutcomeLen]string{"began", "expired", "confirmed", "accepted", "gone"}

// String is the outcome's name, as metrics have it.
func (o Outcome) String() string {
	if o < OutcomeLen {
		return outcomeNames[o]
	}
	return "unknown"
}

// marshalName refuses values that have no name, which could not be read back.
func marshalName[T interface {
	~uint8
	fmt.Stringer
}](v T, names int) ([]byte, error) {
	if int(v) >= names {
		return nil, fmt.Errorf("%d has no name", uint8(v))
	}
	return []byte(v.String()), nil
}

func indexOf(kind string, names []string, b []byte) (int, error) {
	if i := slices.Index(names, string(b)); i >= 0 {
		return i, nil
	}
	return 0, fmt.Errorf("%s %q is not known", kind, b)
}
