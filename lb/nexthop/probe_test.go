// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// newTestProber has retries of 1 to 8 s and a stale interval of 5 s.
func newTestProber() *prober {
	return &prober{retryMin: time.Second, retryMax: 8 * time.Second, staleInterval: 5 * time.Second}
}

// probeTimes lets d pass and returns when, in seconds, addr was probed.
func probeTimes(p *prober, start time.Time, d time.Duration) []int {
	var at []int
	for {
		next := p.next()
		if next.IsZero() || next.Sub(start) > d {
			return at
		}
		for range p.due(next) {
			at = append(at, int(next.Sub(start)/time.Second))
		}
	}
}

func TestProberTimes(t *testing.T) {
	start := time.Unix(1000, 0)
	addr := netip.MustParseAddr("10.0.0.1")
	tests := []struct {
		name      string
		condition condition
		want      []int
	}{
		{"missing", missing, []int{0, 1, 3, 7, 15, 23}},
		{"stale", stale, []int{0, 5, 10, 15, 20, 25}},
		{"fresh", fresh, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newTestProber()
			p.observe(start, map[netip.Addr]condition{addr: tt.condition})
			if got := probeTimes(p, start, 25*time.Second); !slices.Equal(got, tt.want) {
				t.Errorf("probed at %v, want %v", got, tt.want)
			}
		})
	}
}

func TestProberForgets(t *testing.T) {
	start := time.Unix(1000, 0)
	addr := netip.MustParseAddr("10.0.0.1")
	tests := []struct {
		name string
		then map[netip.Addr]condition
		want []probe
	}{
		{"still missing", map[netip.Addr]condition{addr: missing}, nil},
		{"found", map[netip.Addr]condition{addr: fresh}, nil},
		{"not needed", nil, nil},
		{"found, but stale", map[netip.Addr]condition{addr: stale}, []probe{{addr, stale, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newTestProber()
			p.observe(start, map[netip.Addr]condition{addr: missing})
			if got, want := p.due(start), []probe{{addr, missing, 1}}; !slices.Equal(got, want) {
				t.Fatalf("first probe %v, want %v", got, want)
			}
			p.observe(start, tt.then)
			if got := p.due(start); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if pending := !p.next().IsZero(); pending != (tt.name != "found" && tt.name != "not needed") {
				t.Errorf("further attempts planned: %v", pending)
			}
		})
	}
}

// TestProberBurst: many neighbours are not probed all at once, and none is left out.
func TestProberBurst(t *testing.T) {
	start := time.Unix(1000, 0)
	conditions := make(map[netip.Addr]condition)
	for i := range 2*probeBurst + 10 {
		conditions[netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})] = missing
	}
	p := newTestProber()
	p.observe(start, conditions)
	seen := make(map[netip.Addr]bool)
	for round, want := range []int{probeBurst, probeBurst, 10} {
		now := start.Add(time.Duration(round) * probePause)
		if next := p.next(); next.After(now) || round > 0 && next.Before(now) {
			t.Fatalf("round %d is due at %v, want %v", round, next, now)
		}
		got := p.due(now)
		if len(got) != want {
			t.Fatalf("round %d has %d probes, want %d", round, len(got), want)
		}
		for _, g := range got {
			seen[g.addr] = true
		}
		if again := p.due(now); len(again) > 0 {
			t.Fatalf("round %d goes on with %d probes", round, len(again))
		}
	}
	if len(seen) != len(conditions) {
		t.Errorf("%d neighbours probed, want %d", len(seen), len(conditions))
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: time.Second, max: 5 * time.Second}
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{1, 2, 4, 5, 5} {
		if got := b.next(now); got != want*time.Second {
			t.Errorf("use %d: %v, want %v", i, got, want*time.Second)
		}
		now = now.Add(b.wait)
	}
	now = now.Add(11 * time.Second)
	if got := b.next(now); got != time.Second {
		t.Errorf("after a rest: %v, want %v", got, time.Second)
	}
}
