// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import "time"

// delay is how long to wait after so many failures in a row, 1 or more. Chance is from [0, 1).
func (r Retry) delay(failures int, chance float64) time.Duration {
	d := r.Min
	for i := 1; i < failures && d < r.Max; i++ {
		d *= 2
	}
	d = min(d, r.Max)
	return d - time.Duration(chance*float64(d)/2)
}

// cursor is the place of one reader in the history of what it watches: the index that the next
// query waits to be passed. 0 means that the next query does not wait.
type cursor uint64

// advance takes the index of a whole answer and returns the next cursor; asked is the one that the
// answer was asked with. Changed tells that the answer may hold something new. Backwards tells that
// the history began anew, or that another server answered that is behind: the answer must not be
// used, and the query is made again without waiting.
func (asked cursor) advance(index uint64) (next cursor, changed, backwards bool) {
	// An index of 0 would never wait; 1 is before everything that Consul ever stored.
	index = max(index, 1)
	if cursor(index) < asked {
		return 0, false, true
	}
	return cursor(index), cursor(index) != asked, false
}

// pace keeps a reader from asking in a tight loop when every query returns at once. It allows a
// burst, then one query each interval.
type pace struct {
	// ready is when the next query would be allowed if there were no burst.
	ready time.Time
}

const (
	paceInterval = 100 * time.Millisecond
	paceBurst    = 10
)

// next notes a query and returns how long it has to wait first.
func (p *pace) next(now time.Time) time.Duration {
	if earliest := now.Add(-paceBurst * paceInterval); p.ready.Before(earliest) {
		p.ready = earliest
	}
	p.ready = p.ready.Add(paceInterval)
	return max(0, p.ready.Sub(now))
}
