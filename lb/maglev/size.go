// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"fmt"

	"github.com/remora-lb/remora/lb"
)

// minRingSize is the least prime: a skip needs a size above 1 to be chosen from.
const minRingSize = 2

// CheckSize tells whether a ring can have n slots: a prime from 2 to lb.MaxRingSize. The error
// names the nearest sizes that can be had.
func CheckSize(n uint32) error {
	switch {
	case n < minRingSize:
		return fmt.Errorf("ring size %d is too small: the least is %d", n, minRingSize)
	case n > lb.MaxRingSize:
		return fmt.Errorf("ring size %d is too large: the greatest is %d", n, lb.MaxRingSize)
	case isPrime(n):
		return nil
	}
	// Both are in range, because both ends of it are primes.
	below, above := n-1, n+1
	for !isPrime(below) {
		below--
	}
	for !isPrime(above) {
		above++
	}
	return fmt.Errorf("ring size %d is not a prime: the nearest are %d and %d", n, below, above)
}

// isPrime divides by all odd numbers up to the root, which is below 1024 for sizes in range.
func isPrime(n uint32) bool {
	if n%2 == 0 {
		return n == 2
	}
	for d := uint32(3); d*d <= n; d += 2 {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}
