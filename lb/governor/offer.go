// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Backend is a server of a service with what is to become of it. Within a service its address
// names it.
type Backend struct {
	lb.Backend
	State State
}

// takes is the weight by which the backend takes new flows.
func (b Backend) takes() uint32 {
	if b.State != Active {
		return 0
	}
	return b.Weight
}

// String is as in "active with weight 10".
func (b Backend) String() string {
	if b.State != Active {
		return b.State.String()
	}
	return fmt.Sprintf("active with weight %d", b.Weight)
}

// State is what a source says of a backend.
type State uint8

const (
	// Active backends take flows by their weight.
	Active State = iota
	// Drain backends keep the flows they have.
	Drain
	// Down backends are known and get nothing.
	Down
)

var stateNames = [...]string{Active: "active", Drain: "drain", Down: "down"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler.
func (s State) MarshalText() ([]byte, error) { return marshalName(s, len(stateNames)) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(b []byte) error {
	i, err := indexOf("state", stateNames[:], b)
	*s = State(i)
	return err
}

// Verdict is what the local health checks find of a backend.
type Verdict uint8

const (
	// LocalUnknown is for backends that are not checked, or not yet.
	LocalUnknown Verdict = iota
	// LocalUp is for backends that answer.
	LocalUp
	// LocalDown is for backends that do not answer. It confirms their loss.
	LocalDown
)

// Offer is one answer of a source about one service.
type Offer struct {
	Source, Service string
	// Backends are all that the source has. In an answer that is not complete they do not count.
	Backends []Backend
	// Complete says that the answer is whole: the source answered with success, knows its leader,
	// left nothing out, and its index is sane.
	Complete bool
	// Fault is the rule that an answer which is not complete breaks, from RuleIncomplete to
	// RuleDecode, and Detail tells more, for people.
	Fault  Rule
	Detail string
	// At is when the answer came.
	At time.Time
}

// fault is the rule that refuses the answer, or RuleNone.
func (o Offer) fault() Rule {
	switch {
	case o.Complete && o.Fault == RuleNone:
		return RuleNone
	case o.Fault < RuleIncomplete || o.Fault > RuleDecode:
		return RuleIncomplete
	}
	return o.Fault
}

// normal is a list by address, each once, and a note on each entry that was left out. Of entries
// with one address, the one that takes most counts: then nobody is lost by a duplicate.
func normal(list []Backend) (good []Backend, refused []note) {
	good = slices.Clone(list)
	slices.SortFunc(good, func(a, b Backend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(b.takes(), a.takes()),
			cmp.Compare(a.State, b.State), cmp.Compare(b.Weight, a.Weight))
	})
	kept := good[:0]
	var last netip.Addr
	for _, b := range good {
		_, err := lb.ParseBackendAddr(b.Addr.String())
		switch {
		case err != nil:
			refused = append(refused, note{b.Addr.String(), err.Error()})
		case int(b.State) >= len(stateNames):
			refused = append(refused, note{b.Addr.String(), fmt.Sprintf("state %d is not known", b.State)})
		case b.Addr == last:
			refused = append(refused, note{b.Addr.String() + " (again)", "the address is there more than once: the entry that takes most counts"})
		default:
			last = b.Addr
			kept = append(kept, b)
		}
	}
	return kept, slices.CompactFunc(refused, func(a, b note) bool { return a.object == b.object })
}
