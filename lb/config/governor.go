// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"time"
)

// Governor is how much of what a source says is done at once. See docs/consul.md.
type Governor struct {
	// Hold and EmptyHold are how long losses are held that exceed the radius, or would leave no backend.
	// 0 to 720 h, EmptyHold at least Hold; default 5 min each.
	Hold, EmptyHold time.Duration
	// Reals backends, or Percent of a service's weight, may be lost within a Step, whichever is more.
	// 0 to 1000000, 0 to 100, 1 ms to 24 h; default 1, 25 and 1 min.
	Reals, Percent int
	Step           time.Duration
	// Suppress is the number of losses within about HalfLife from which on the gains of a backend are
	// held, until their number has fallen to Reuse by halving in each HalfLife, but for MaxSuppress at
	// most. 2 to 1000, or 0 for never; 1 to Suppress-1; 1 s to 24 h; to 720 h. Default 3, 1, 5 min, 15
	// min.
	Suppress, Reuse       int
	HalfLife, MaxSuppress time.Duration
}

// DefaultGovernor is the one with all defaults.
func DefaultGovernor() Governor {
	return Governor{
		Hold: 5 * time.Minute, EmptyHold: 5 * time.Minute,
		Reals: 1, Percent: 25, Step: time.Minute,
		Suppress: 3, Reuse: 1, HalfLife: 5 * time.Minute, MaxSuppress: 15 * time.Minute,
	}
}

// maxHold is the longest that a change is held.
const maxHold = 30 * 24 * time.Hour

func checkGovernor(s governorSection, r *report) Governor {
	def := DefaultGovernor()
	g := Governor{
		Hold:        duration(r, s.hold, 0, maxHold, def.Hold),
		Reals:       int(within(r, s.radius.reals, 0, 1_000_000, int64(def.Reals))),
		Percent:     int(within(r, s.radius.percent, 0, 100, int64(def.Percent))),
		Step:        duration(r, s.radius.step, time.Millisecond, 24*time.Hour, def.Step),
		Suppress:    int(within(r, s.damping.suppress, 0, 1000, int64(def.Suppress))),
		Reuse:       int(within(r, s.damping.reuse, 1, 999, int64(def.Reuse))),
		HalfLife:    duration(r, s.damping.halfLife, time.Second, 24*time.Hour, def.HalfLife),
		MaxSuppress: duration(r, s.damping.maxSuppress, 0, maxHold, def.MaxSuppress),
	}
	// What is longer than the default by itself must not need a second field.
	g.EmptyHold = duration(r, s.emptyHold, 0, maxHold, max(def.EmptyHold, g.Hold))
	if g.EmptyHold < g.Hold {
		r.add(s.emptyHold.place, "%s is less than the hold of %s: expected at least that", quote(s.emptyHold.text), showDuration(g.Hold))
	}
	g.checkDamping(s.damping, r)
	return g
}

func (g Governor) checkDamping(s dampingSection, r *report) {
	if g.Suppress == 0 {
		return
	}
	if g.Suppress < 2 || g.Reuse >= g.Suppress {
		r.add(s.place, "suppress is %d and reuse is %d: expected suppress 0, or at least 2 and more than reuse", g.Suppress, g.Reuse)
		return
	}
	if least := g.fallTime(); g.MaxSuppress < least {
		r.add(s.place, "max_suppress is %s, but to fall from suppress to reuse takes %s: expected at least that",
			showDuration(g.MaxSuppress), showDuration(least.Truncate(time.Second)+time.Second))
	}
}

// fallTime is how long a number of losses takes to fall from Suppress to Reuse.
func (g Governor) fallTime() time.Duration {
	return time.Duration(float64(g.HalfLife) * math.Log2(float64(g.Suppress)/float64(g.Reuse)))
}
