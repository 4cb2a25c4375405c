// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestRingMeasures(t *testing.T) {
	require.Root(t)
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
	require.Root(t)
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
