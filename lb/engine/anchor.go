// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import "time"

// Times that were read from a file or came from elsewhere are by a wall clock, which may be set at any
// time. What is below ties them to the clock of this run, once: how long ago they were does not change
// any more, whatever becomes of the wall clock.

// anchored is a time of the past that was read: none of the future's, and at most so long ago.
func anchored(now, t time.Time, most time.Duration) time.Time {
	age := now.Round(0).Sub(t.Round(0)) // Round takes the monotonic reading away: wall against wall
	return now.Add(-min(max(age, 0), most))
}

// anchoredSpan is a span that was read: it began at now or before, and what is left of it is no longer
// than it was.
func anchoredSpan(now, since, until time.Time) (time.Time, time.Time) {
	age := max(now.Round(0).Sub(since.Round(0)), 0)
	left := min(until.Round(0).Sub(now.Round(0)), max(until.Round(0).Sub(since.Round(0)), 0))
	return now.Add(-age), now.Add(left)
}

// onWall is a time of this run by the wall clock as it is now.
func onWall(now, t time.Time) time.Time { return now.Round(0).Add(t.Sub(now)) }

// Anchored is the drain with times that were read from a file tied to the clock of this run: its
// deadline does not move when the wall clock is set, and it is never longer than it was.
func (d Drain) Anchored(now time.Time) Drain {
	since, until := anchoredSpan(now, d.Since, d.Until)
	return Drain{Since: since, Until: until}
}
