// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// bigChoice is of reals 1 to n, without one of them.
func bigChoice(b *testing.B, n, without int) []lb.Slot {
	b.Helper()
	var members []maglev.Member
	for i := 1; i <= n; i++ {
		if i != without {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			members = append(members, maglev.Member{ID: lb.RealID(i), Addr: addr, Weight: 1})
		}
	}
	choice, err := maglev.Build(lb.Ring{Size: lb.DefaultRingSize}, members)
	if err != nil {
		b.Fatal(err)
	}
	return choice
}

func uses(n int) func(lb.RealID) bool {
	use := make(map[lb.RealID]lb.RealUse)
	for i := range n {
		use[lb.RealID(i+1)] = lb.RealActive
	}
	return func(id lb.RealID) bool {
		u, ok := use[id]
		return ok && u.Receives()
	}
}

func BenchmarkSlots(b *testing.B) {
	const reals = 100
	with, without := bigChoice(b, reals, 0), bigChoice(b, reals, 7)
	none := make([]lb.Slot, len(with))
	for _, c := range []struct {
		name    string
		history func() *History
	}{
		{"stable", func() *History { return New(with) }},
		{"one real of 100 went", func() *History {
			h := New(with)
			h.Change(at(1), without)
			return h
		}},
		{"one real of 100 flaps 100 times", func() *History {
			h := New(with)
			for i := range 100 {
				h.Change(at(2*i), without)
				h.Change(at(2*i+1), with)
			}
			return h
		}},
		{"all slots move", func() *History {
			h := New(with)
			h.Change(at(1), none)
			return h
		}},
		{"all slots linger", func() *History {
			h := New(with)
			h.Change(at(1), none)
			h.Forget(at(1))
			return h
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h, receives := c.history(), uses(reals)
			b.ReportAllocs()
			for b.Loop() {
				h.Slots(receives)
			}
		})
	}
}

// A change of one real of 100, and what follows from it.
func BenchmarkChangeForgetProve(b *testing.B) {
	with, without := bigChoice(b, 100, 0), bigChoice(b, 100, 7)
	h := New(with)
	b.ReportAllocs()
	for b.Loop() {
		h.Change(at(1), without)
		h.Forget(at(1))
		h.Prove(h.Mark(), noSlot)
		with, without = without, with
	}
}
