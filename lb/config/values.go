// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
)

// choice is one word that a field may have, and what it stands for.
type choice[T any] struct {
	word  string
	value T
}

// choose reads one of several words; def if the field is absent or wrong.
func choose[T any](r *report, f field[string], def T, choices ...choice[T]) T {
	if !f.ok {
		return def
	}
	var words []string
	for _, c := range choices {
		if c.word == f.value {
			return c.value
		}
		words = append(words, c.word)
	}
	r.add(f.place, "%s is not known: expected %s", quote(f.text), enumerate(words, "or"))
	return def
}

func chooseEncap(r *report, f field[string], def lb.Encap) lb.Encap {
	return choose(r, f, def, choice[lb.Encap]{"ipip", lb.IPIP}, choice[lb.Encap]{"gue", lb.GUE})
}

// within reads a number of a range; def if the field is absent or wrong.
func within(r *report, f field[int64], low, high, def int64) int64 {
	if !f.ok {
		return def
	}
	if f.value < low || f.value > high {
		r.add(f.place, "%s is out of range: expected a whole number from %d to %d", quote(f.text), low, high)
		return def
	}
	return f.value
}

// duration reads a time such as 90s or 1h30m of a range; def if the field is absent or wrong.
func duration(r *report, f field[string], low, high, def time.Duration) time.Duration {
	if !f.ok {
		return def
	}
	d, err := time.ParseDuration(f.value)
	if err != nil {
		r.add(f.place, "%s is not a duration: expected a number with a unit, such as 30s, 15m or 1h30m", quote(f.text))
		return def
	}
	if d < low || d > high {
		r.add(f.place, "%s is out of range: expected a duration from %s to %s", quote(f.text), showDuration(low), showDuration(high))
		return def
	}
	return d
}

// showDuration is the shortest form: 1h, not 1h0m0s.
func showDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// checkRing reads a ring; what it does not say is as in def.
func checkRing(s ringSection, def lb.Ring, r *report) lb.Ring {
	ring := lb.Ring{
		Size: uint32(within(r, s.size, 2, lb.MaxRingSize, int64(def.Size))),
		Hash: choose(r, s.hash, def.Hash,
			choice[lb.RingHash]{"maglev-v1", lb.MaglevV1}, choice[lb.RingHash]{"maglev-v2", lb.MaglevV2}),
	}
	if isPrime(ring.Size) {
		return ring
	}
	below, above := ring.Size, ring.Size
	for !isPrime(below) {
		below--
	}
	for !isPrime(above) {
		above++
	}
	r.add(s.size.place, "%d is not a prime: expected a prime number of slots, such as %d or %d", ring.Size, below, above)
	return def
}

// isPrime tells it by trial division: no ring is so large that more would be worth it.
func isPrime(n uint32) bool {
	if n < 2 {
		return false
	}
	for d := uint32(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
