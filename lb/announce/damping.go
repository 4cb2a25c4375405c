// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"math"
	"time"
)

// damper counts the penalties of one VIP.
type damper struct {
	penalty float64
	// last is when penalty was valid.
	last       time.Time
	suppressed bool
}

// now is the penalty that is left.
func (d *damper) now(cfg Damping, now time.Time) float64 {
	if d.penalty == 0 {
		return 0
	}
	return d.penalty * math.Exp2(-now.Sub(d.last).Seconds()/cfg.HalfLife.Seconds())
}

// add notes a withdrawal. The sum is bounded so that it falls below Reuse within MaxSuppressed.
func (d *damper) add(cfg Damping, now time.Time) {
	if cfg.Off {
		return
	}
	most := cfg.Reuse * math.Exp2(cfg.MaxSuppressed.Seconds()/cfg.HalfLife.Seconds())
	d.penalty = min(d.now(cfg, now)+cfg.Penalty, most)
	d.last = now
	d.suppressed = d.suppressed || d.penalty >= cfg.Suppress
}

// heldUntil is when the VIP is free again; the zero time if it is free now.
func (d *damper) heldUntil(cfg Damping, now time.Time) time.Time {
	if !d.suppressed {
		return time.Time{}
	}
	wait := cfg.HalfLife.Seconds() * math.Log2(d.penalty/cfg.Reuse)
	// A whole step up, so that the penalty is below Reuse at that time in spite of rounding.
	until := d.last.Add(time.Duration(wait*float64(time.Second)).Truncate(time.Millisecond) + time.Millisecond)
	if !until.After(now) {
		d.suppressed = false
		return time.Time{}
	}
	return until
}
