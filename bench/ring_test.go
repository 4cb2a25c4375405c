// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func TestPublish(t *testing.T) {
	for _, tc := range []struct {
		name  string
		dst   []uint64
		slots []lb.Slot
		want  int
	}{
		{"all differ", []uint64{0, 0, 0}, []lb.Slot{1, 2, 3}, 3},
		{"one differs", []uint64{1, 9, 3}, []lb.Slot{1, 2, 3}, 1},
		{"upper half differs", []uint64{1, 2 | 1<<62, 3}, []lb.Slot{1, 2, 3}, 1},
		{"none differs", []uint64{1, 2, 3}, []lb.Slot{1, 2, 3}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := publish(tc.dst, tc.slots); got != tc.want {
				t.Errorf("%d slots written, want %d", got, tc.want)
			}
			for i, s := range tc.slots {
				if tc.dst[i] != uint64(s) {
					t.Errorf("slot %d is %#x, want %#x", i, tc.dst[i], uint64(s))
				}
			}
		})
	}
}

func TestSlotArrayReachesKernel(t *testing.T) {
	requireRoot(t)
	const n = 4093
	a, err := openSlotArray(n)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	slots := make([]lb.Slot, n)
	for i := range slots {
		slots[i] = lb.Slot(i+1) | 1<<40
	}
	if got := publish(a.slots, slots); got != n {
		t.Errorf("%d slots written, want %d", got, n)
	}
	for _, i := range []uint32{0, 1, n / 2, n - 1} {
		var got uint64
		if err := a.m.Lookup(i, &got); err != nil {
			t.Fatal(err)
		}
		if got != uint64(slots[i]) {
			t.Errorf("slot %d is %#x in the kernel, want %#x", i, got, uint64(slots[i]))
		}
	}
}

func TestRingMeasures(t *testing.T) {
	requireRoot(t)
	r, err := Ring(t.Context(), RingOptions{Sizes: []uint32{SmallRing}, Members: []int{2, 10}, Rounds: 3, CPU: -1})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 4 {
		t.Fatalf("%d rows, want two numbers of reals, equal and weighted", len(r.Rows))
	}
	for _, row := range r.Rows {
		// The last real's share moves, and not much else.
		if row.Changed == 0 || row.Changed >= SmallRing {
			t.Errorf("%d reals: one less changes %d slots", row.Members, row.Changed)
		}
		if row.Build.Median <= 0 || row.Full.Median <= 0 {
			t.Errorf("no figures: %+v", row)
		}
	}
}

func TestRingEnds(t *testing.T) {
	requireRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ring(ctx, DefaultRingOptions()); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancellation it gives %v", err)
	}
}

func TestRingOptionsRefused(t *testing.T) {
	err := RingOptions{Sizes: []uint32{lb.MaxRingSize + 1}, Members: []int{1}, CPU: -1}.Validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"rounds: 0", "size: 1048574", "members: 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}
