// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

func TestPool(t *testing.T) {
	now := time.Unix(1000, 0)
	later := now.Add(time.Minute)
	tests := []struct {
		name string
		do   func(p *pool[lb.RealID, string])
		want []lb.RealID // 0: none is free
	}{
		{name: "from the first", do: func(*pool[lb.RealID, string]) {}, want: []lb.RealID{1, 2, 3, 4, 5, 0}},
		{name: "claimed ids are not given", do: func(p *pool[lb.RealID, string]) { p.claim(2, "") }, want: []lb.RealID{1, 3, 4, 5, 0}},
		{
			name: "a resting id is passed over",
			do: func(p *pool[lb.RealID, string]) {
				p.take("")
				p.take("")
				p.release(1, later)
				p.expire(later.Add(-1))
			},
			want: []lb.RealID{3, 4, 5, 0},
		},
		{
			name: "a rested id is the lowest again",
			do: func(p *pool[lb.RealID, string]) {
				p.take("")
				p.take("")
				p.release(1, later)
				p.take("")
				p.expire(later)
			},
			want: []lb.RealID{1, 4, 5, 0},
		},
		{
			name: "gaps below adopted ids rest",
			do:   func(p *pool[lb.RealID, string]) { p.claim(4, ""); p.restBelow(4, later); p.expire(later.Add(-1)) },
			want: []lb.RealID{5, 0},
		},
		{
			name: "gaps that have rested are free",
			do:   func(p *pool[lb.RealID, string]) { p.claim(2, ""); p.restBelow(2, later); p.expire(later) },
			want: []lb.RealID{1, 3, 4, 5, 0},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPool[lb.RealID, string](1, 5)
			tt.do(p)
			for i, want := range tt.want {
				if id, ok := p.take(""); id != want || ok != (want != 0) {
					t.Fatalf("take %d: got %d, %v, want %d", i, id, ok, want)
				}
			}
		})
	}
}

// TestMeet: an id that a remembered flow names rests, and its next holder is of another generation.
func TestMeet(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newIDs(time.Minute)
	a.meet(2, 255, now)
	a.meet(0, 1, now)
	for _, want := range []lb.RealID{1, 3} {
		if id, _ := a.real(realKey{vip: lb.VIP{Port: uint16(want)}}); id != want {
			t.Errorf("id %d, want %d", id, want)
		}
	}
	a.expire(now.Add(time.Minute))
	if id, _ := a.real(realKey{}); id != 2 || a.generation(id) != 0 {
		t.Errorf("after its rest id %d in generation %d, want 2 in 0", id, a.generation(id))
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: 100 * time.Millisecond, max: time.Second}
	for round := range 2 {
		for i, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			most *= time.Millisecond
			if d := b.next(); d < most/2 || d > most {
				t.Errorf("round %d, failure %d: wait %v, want %v to %v", round, i, d, most/2, most)
			}
		}
		b.reset()
	}
}
