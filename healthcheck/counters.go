// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"slices"
	"time"
)

// Counters count the probes of a scheduler that had a result.
type Counters struct {
	// Results are by the name of the reason; every reason is there.
	Results map[string]uint64
	// Bounds are upper bounds of durations, rising; Counts are how many conclusive probes took at most
	// that, each with those before.
	Bounds []time.Duration
	Counts []uint64
	// Conclusive is the number of conclusive probes, Total the time that they took together.
	Conclusive uint64
	Total      time.Duration
}

// durationBounds go from a server on the link to the longest timeout.
var durationBounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// counting is the counters of a scheduler at work.
type counting struct {
	results    [reasonLen]uint64
	buckets    [len(durationBounds)]uint64
	conclusive uint64
	total      time.Duration
}

// add counts a result.
func (c *counting) add(r Result) {
	c.results[r.Reason]++
	if !r.Conclusive() {
		return
	}
	c.conclusive++
	c.total += r.Duration
	if i, _ := slices.BinarySearch(durationBounds[:], r.Duration); i < len(c.buckets) {
		c.buckets[i]++
	}
}

// Counters are the counters since the scheduler was made. The caller owns what they point to.
func (s *Scheduler[ID]) Counters() Counters {
	s.mu.Lock()
	counted := s.counted
	s.mu.Unlock()
	c := Counters{
		Results: make(map[string]uint64, reasonLen), Bounds: slices.Clone(durationBounds[:]),
		Conclusive: counted.conclusive, Total: counted.total,
	}
	for r, n := range counted.results {
		c.Results[Reason(r).String()] = n
	}
	sum := uint64(0)
	for _, n := range counted.buckets {
		sum += n
		c.Counts = append(c.Counts, sum)
	}
	return c
}
