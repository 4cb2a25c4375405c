// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import "time"

// backoff is a delay that doubles with each use from min to max. After a while without use it
// starts over.
type backoff struct {
	min, max time.Duration

	wait time.Duration
	last time.Time
}

func (b *backoff) next(now time.Time) time.Duration {
	if b.wait == 0 || now.Sub(b.last) > 2*b.max {
		b.wait = b.min
	} else {
		b.wait = min(2*b.wait, b.max)
	}
	b.last = now
	return b.wait
}
