// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestSettlerWaitsWhenNeeded(t *testing.T) {
	require.Root(t)
	s, err := newSettler()
	require.NoError(t, err)
	s.needed = true
	require.NoError(t, s.wait())
	if s.needed {
		t.Error("still needed after a wait")
	}
	// Without its maps it can only return at once.
	s.close()
	require.NoError(t, s.wait())
	s.needed = true
	require.ErrorSays(t, s.wait(), "wait for running packet programs")
	if !s.needed {
		t.Error("a wait that failed counts as one")
	}
}

// A grace period takes thousands of times as long as the update of a map that waits for none.
func TestSettlerWaits(t *testing.T) {
	require.Root(t)
	s, err := newSettler()
	require.NoError(t, err)
	defer s.close()
	quickest := func(update func() error) time.Duration {
		least := time.Hour
		for range 10 {
			start := time.Now()
			require.NoError(t, update())
			least = min(least, time.Since(start))
		}
		return least
	}
	plain := quickest(func() error { return s.inner.Put(uint32(0), uint32(1)) })
	wait := quickest(func() error { s.needed = true; return s.wait() })
	if wait < 3*plain {
		t.Errorf("a wait takes %v, an update without one %v", wait, plain)
	}
}

// Which verbs take something out of use, and which wait before they use it again.
func TestVerbsSettle(t *testing.T) {
	d := testOpen(t)
	s := web()
	s.size = 7
	fill(t, d, s)
	ring := func(size uint32) func() error {
		return func() error {
			s.size = size
			_, err := d.SetRing(0, s.slots(t))
			return err
		}
	}
	other := []lb.VIPEntry{s.entry(t)}
	for _, tt := range []struct {
		name   string
		verb   func() error
		before bool // whether a wait is due before the verb
		after  bool
	}{
		{"nothing to delete", func() error { return d.DeleteReals(nil) }, true, true},
		{"delete a real", func() error { return d.DeleteReals([]lb.RealID{3}) }, true, false},
		{"set a ring unchanged", ring(7), false, false},
		{"set a ring of another length", ring(11), true, false}, // the old one is in use until SetVIPs
		{"set a ring in place", func() error { _, err := d.SetRing(0, make([]lb.Slot, 11)); return err }, false, true},
		{"delete a ring", func() error { return d.DeleteRing(4) }, false, true},
		{"sweep flows", func() error { return d.SweepFlows(func(lb.Flow) bool { return true }) }, true, false},
		{"add flows", func() error { _, err := d.AddFlows([]lb.Flow{{Tag: 1, Real: 1}}); return err }, true, true},
		{"set VIPs", func() error { return d.SetVIPs(other) }, true, true},
	} {
		d.settler.needed = tt.before
		require.NoError(t, tt.verb())
		if d.settler.needed != tt.after {
			t.Errorf("%s: a wait is needed: %v, want %v", tt.name, d.settler.needed, tt.after)
		}
	}
}
