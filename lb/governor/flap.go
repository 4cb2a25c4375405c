// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"math"
	"time"
)

// flap is how much a backend came and went.
type flap struct {
	penalty float64 // as of at
	at      time.Time
	// until is when the backend's gains are let through again; zero or past if they are now.
	until time.Time
}

// lost is the flap after one more loss.
func (f flap) lost(now time.Time, d Damping) flap {
	// From the ceiling the penalty falls to Reuse within MaxSuppress.
	ceiling := d.Reuse * math.Exp2(float64(d.MaxSuppress)/float64(d.HalfLife))
	n := flap{penalty: min(f.now(now, d)+1, ceiling), at: now, until: f.until}
	if n.penalty >= d.Suppress || now.Before(f.until) {
		n.until = now.Add(d.fallTime(n.penalty))
	}
	return n
}

// now is the penalty at a time.
func (f flap) now(now time.Time, d Damping) float64 {
	return f.penalty * math.Exp2(-float64(max(0, now.Sub(f.at)))/float64(d.HalfLife))
}

// forgotten tells that the flap no longer matters.
func (f flap) forgotten(now time.Time, d Damping) bool {
	return d.Suppress == 0 || !now.Before(f.until) && f.now(now, d) < d.Reuse/2
}

// fallTime is how long a penalty takes to fall to Reuse.
func (d Damping) fallTime(penalty float64) time.Duration {
	ns := float64(d.HalfLife) * math.Log2(penalty/d.Reuse)
	return time.Duration(min(ns, math.MaxInt64/2))
}
