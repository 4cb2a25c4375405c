// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"testing"
	"time"
)

func TestCounters(t *testing.T) {
	s, err := New(Config[string]{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Result{
		{Reason: OK, Duration: 250 * time.Microsecond}, // on a bound: at most that
		{Reason: OK, Duration: 251 * time.Microsecond},
		{Reason: Refused, Duration: time.Millisecond},
		{Reason: Timeout, Duration: time.Minute}, // beyond all bounds
		{Reason: Cancelled, Duration: time.Second},
		{Reason: Local, Duration: time.Second},
	} {
		s.counted.add(r)
	}
	c := s.Counters()
	for name, want := range map[string]uint64{"ok": 2, "refused": 1, "timeout": 1, "cancelled": 1, "local": 1, "reset": 0} {
		if n, there := c.Results[name]; !there || n != want {
			t.Errorf("%d results %s, want %d", n, name, want)
		}
	}
	if len(c.Results) != int(reasonLen) {
		t.Errorf("%d results, want one for each of %d reasons", len(c.Results), reasonLen)
	}
	want := []uint64{1, 2, 3}
	for i, n := range c.Counts {
		if n != want[min(i, 2)] {
			t.Errorf("%d probes took at most %v, want %d", n, c.Bounds[i], want[min(i, 2)])
		}
	}
	if total := time.Minute + time.Millisecond + 501*time.Microsecond; c.Conclusive != 4 || c.Total != total {
		t.Errorf("%d probes took %v, want 4 and %v", c.Conclusive, c.Total, total)
	}
}
