// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Cause is why a real gets no new flows.
type Cause uint8

// The causes, the one that counts first if there are several.
const (
	// CauseNone is that of an active real.
	CauseNone Cause = iota
	// CauseDown is a check that fails, or a source that says so.
	CauseDown
	// CauseDrain is an operator's drain.
	CauseDrain
	// CauseWeight is a weight of 0.
	CauseWeight
	// CauseRemoved is that no source has the backend any more.
	CauseRemoved
)

var causeNames = [...]string{"none", "down", "drain", "weight 0", "removed"}

func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Cause) UnmarshalText(b []byte) error {
	i := slices.Index(causeNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("%q is no cause of an absence", b)
	}
	*c = Cause(i)
	return nil
}

// Absence is a real's time without new flows.
type Absence struct {
	Cause Cause
	// Since is when it began; Until, when the real's known flows are given to others.
	Since, Until time.Time
}

// use is what the real may get now.
func (a Absence) use(now time.Time) lb.RealUse {
	switch {
	case a.Cause == CauseNone:
		return lb.RealActive
	case now.Before(a.Until):
		return lb.RealDraining
	}
	return lb.RealRetired
}

// Drain is an operator's wish that a real gets no new flows. Its flows have time until Until.
type Drain struct {
	Since, Until time.Time
}

// absences are those of all reals that are absent, by real. An absence that changes its cause never
// becomes longer, unless an operator says so.
type absences struct {
	of map[realKey]Absence
	// changed tells that they are not as they were when it was made false.
	changed bool
}

// update judges a real that is wanted or was. leave is its VIP's.
func (a *absences) update(key realKey, cause Cause, drain Drain, leave lb.Leave, now time.Time) Absence {
	if cause == CauseNone {
		a.end(key)
		return Absence{}
	}
	old, was := a.of[key]
	next := Absence{Cause: cause, Since: now}
	switch cause {
	case CauseDown:
		next.Until = now.Add(leave.Grace)
	case CauseDrain:
		next.Since, next.Until = drain.Since, drain.Until
	default:
		next.Until = now.Add(leave.Drain)
	}
	if was && cause != CauseDrain {
		next.Since = old.Since
		if old.Until.Before(next.Until) {
			next.Until = old.Until
		}
	}
	if next != old {
		a.of[key], a.changed = next, true
	}
	return next
}

func (a *absences) end(key realKey) {
	if _, was := a.of[key]; was {
		delete(a.of, key)
		a.changed = true
	}
}
