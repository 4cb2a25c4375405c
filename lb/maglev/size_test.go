// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"math"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestCheckSize(t *testing.T) {
	for n, want := range map[uint32]string{
		0:              "ring size 0 is too small: the least is 2",
		1:              "ring size 1 is too small: the least is 2",
		2:              "",
		3:              "",
		4:              "ring size 4 is not a prime: the nearest are 3 and 5",
		7:              "",
		9:              "ring size 9 is not a prime: the nearest are 7 and 11",
		65521:          "",
		65536:          "ring size 65536 is not a prime: the nearest are 65521 and 65537",
		65537:          "",
		65539:          "",
		1018081:        "ring size 1018081 is not a prime: the nearest are 1018057 and 1018091", // 1009 * 1009
		1048572:        "ring size 1048572 is not a prime: the nearest are 1048571 and 1048573",
		lb.MaxRingSize: "",
		1048574:        "ring size 1048574 is too large: the greatest is 1048573",
		math.MaxUint32: "ring size 4294967295 is too large: the greatest is 1048573",
	} {
		got := ""
		if err := CheckSize(n); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("CheckSize(%d) = %q, want %q", n, got, want)
		}
	}
}

// The sieve of Eratosthenes finds the same primes.
func TestCheckSizeFindsAllPrimes(t *testing.T) {
	composite := make([]bool, lb.MaxRingSize+1)
	for n := uint32(2); n <= lb.MaxRingSize; n++ {
		if isPrime(n) == composite[n] {
			t.Fatalf("isPrime(%d) = %t", n, isPrime(n))
		}
		for k := 2 * n; k <= lb.MaxRingSize && !composite[n]; k += n {
			composite[k] = true
		}
	}
}
