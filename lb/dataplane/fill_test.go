// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// fillsOf are those of a snapshot, by map. None is fuller than it can be.
func fillsOf(t *testing.T, d *Dataplane) map[string]MapFill {
	t.Helper()
	s, err := d.Snapshot()
	require.NoError(t, err)
	fills := make(map[string]MapFill)
	for _, f := range s.Maps {
		if f.Used > f.Capacity || f.Used < 0 || fills[f.Name] != (MapFill{}) {
			t.Errorf("%+v is fuller than it can be, or there twice", f)
		}
		fills[f.Name] = f
	}
	return fills
}

// TestFills: what is configured counts, and growth makes room for what was asked.
func TestFills(t *testing.T) {
	d := testOpen(t)
	for name, f := range fillsOf(t, d) {
		if f.Used != 0 {
			t.Errorf("of an empty data plane %s has %d entries", name, f.Used)
		}
	}
	services := workedServices(lb.GUE)
	fill(t, d, services...)
	s, err := d.Snapshot()
	require.NoError(t, err)
	fills, slots := fillsOf(t, d), 0
	for _, v := range s.VIPs {
		slots += 1 + int(v.Ring.Size) // with the word in front of it
	}
	for name, want := range map[string]int{"reals": len(s.Reals), "vip_infos": len(s.VIPs), "rings": slots} {
		if got := fills[name].Used; got != want || want == 0 {
			t.Errorf("%s has %d entries, want %d", name, got, want)
		}
	}
	if got := fills["vips4"].Used + fills["vips6"].Used; got != len(s.VIPs) {
		t.Errorf("both VIP tables have %d entries, want %d", got, len(s.VIPs))
	}
	require.NoError(t, d.Reserve(capacityOf(100, 200, 1000, 2_000_000)))
	for name, least := range map[string]int{"vips4": 100, "vips6": 200, "reals": 1000, "rings": 2_000_000, "vip_infos": 300} {
		if got := fillsOf(t, d)[name].Capacity; got < least {
			t.Errorf("%s has room for %d, want at least %d", name, got, least)
		}
	}
}
