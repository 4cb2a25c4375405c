// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"math/rand/v2"
	"time"
)

// backoff is the delay before the next attempt, growing with each failure in a row.
type backoff struct {
	min, max time.Duration
	failures int
}

// next counts a failure and returns how long to wait: between half and all of min doubled for each
// failure before this one, and not more than max.
func (b *backoff) next() time.Duration {
	d := b.min
	for i := 0; i < b.failures && d < b.max; i++ {
		d = min(2*d, b.max)
	}
	b.failures++
	return d - rand.N(d/2+1)
}

// reset forgets the failures.
func (b *backoff) reset() { b.failures = 0 }
