// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Played against a clock of its own: all flows begin within the time given, never pause for longer
// than they may, begin with SYN, end with FIN, and then another one takes their place.
func TestClients(t *testing.T) {
	const n, within, pause = 500, time.Second, 3 * time.Second
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newClients(rand.New(rand.NewPCG(seed, 0)), n, within, pause)
	last := make(map[uint32]time.Duration)
	fresh := make(map[uint32]bool) // whose next packet is to be SYN
	began, ended := 0, 0
	for i := range uint32(n) {
		fresh[i] = true
	}
	for now := time.Duration(0); now < 30*time.Second; now += 3 * churnTick {
		for _, number := range c.due(now, n) {
			o := c.order(number)
			if o.source != [4]byte{10, 0, byte(number >> 8), byte(number)} {
				t.Fatalf("flow %d comes from %v", number, o.source)
			}
			if silent := now - last[number]; silent > pause+4*churnTick {
				t.Fatalf("flow %d was silent for %v", number, silent)
			}
			if syn := o.flags&tcpSYN != 0; syn != fresh[number] {
				t.Fatalf("flow %d: SYN is %v", number, syn)
			}
			last[number], fresh[number] = now, false
			if o.flags&tcpFIN != 0 {
				port := c.flows[number].port
				c.begin(number, now)
				if c.flows[number].port == port {
					t.Fatalf("flow %d: the next one has the same port", number)
				}
				fresh[number] = true
				ended++
				continue
			}
			if o.flags&tcpSYN != 0 {
				began++
			}
			c.goOn(number, now)
		}
		if now > within+3*churnTick && len(last) != n {
			t.Fatalf("only %d flows have begun after %v", len(last), now)
		}
	}
	for number, at := range last {
		if 30*time.Second-at > pause+4*churnTick {
			t.Errorf("flow %d was lost", number)
		}
	}
	if ended == 0 || began < n+ended/2 {
		t.Errorf("%d flows began, %d ended", began, ended)
	}
}

func TestClientsDueBounded(t *testing.T) {
	c := newClients(rand.New(rand.NewPCG(1, 1)), 100, time.Second, time.Second)
	seen := make(map[uint32]bool)
	for range 15 {
		numbers := c.due(2*time.Second, 7)
		if len(numbers) > 7 {
			t.Fatalf("%d at once", len(numbers))
		}
		for _, n := range numbers {
			if seen[n] {
				t.Fatalf("flow %d is due twice", n)
			}
			seen[n] = true
		}
	}
	if len(seen) != 100 {
		t.Errorf("%d flows were due, want all 100", len(seen))
	}
}

// The router spreads flows over all its ways.
func TestOrderPath(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var paths [churnPaths]int
	for i := range 256 * churnPaths {
		o := order{source: [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, port: uint16(1024 + rng.IntN(1<<15))}
		paths[o.path()]++
	}
	for i, n := range paths {
		if n < 128 || n > 512 {
			t.Errorf("path %d has %d flows, want about 256", i, n)
		}
	}
}
