// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"net/http"
	"testing"
	"time"
)

func TestCursor(t *testing.T) {
	for _, tc := range []struct {
		name               string
		asked              cursor
		index              uint64
		next               cursor
		changed, backwards bool
	}{
		{"first answer", 0, 17, 17, true, false},
		{"change", 17, 18, 18, true, false},
		{"time is over", 17, 17, 17, false, false},
		{"backwards", 135, 18, 0, false, true},
		{"first answer at 0", 0, 0, 1, true, false},
		{"time is over at 0", 1, 0, 1, false, false},
		{"backwards to 0", 17, 0, 0, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			next, changed, backwards := tc.asked.advance(tc.index)
			if next != tc.next || changed != tc.changed || backwards != tc.backwards {
				t.Errorf("next %d, changed %v, backwards %v", next, changed, backwards)
			}
		})
	}
}

func TestRetryDelay(t *testing.T) {
	r := Retry{Min: 100 * time.Millisecond, Max: time.Second}
	for failures, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 4: 800, 5: 1000, 1000: 1000} {
		want *= time.Millisecond
		if got := r.delay(failures, 0); got != want {
			t.Errorf("after %d failures %v, want %v", failures, got, want)
		}
		if got := r.delay(failures, 0.5); got != want*3/4 {
			t.Errorf("after %d failures %v at half chance, want %v", failures, got, want*3/4)
		}
	}
}

// TestPace: a burst is free, and what follows keeps the interval.
func TestPace(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	for i := range paceBurst {
		if wait := p.next(now); wait > 0 {
			t.Fatalf("query %d of the burst waits %v", i, wait)
		}
	}
	for i := 1; i <= 3; i++ {
		if wait := p.next(now); wait != time.Duration(i)*paceInterval {
			t.Errorf("query %d after the burst waits %v", i, wait)
		}
	}
	now = now.Add(time.Hour)
	for i := range paceBurst {
		if wait := p.next(now); wait > 0 {
			t.Fatalf("query %d of a later burst waits %v", i, wait)
		}
	}
	if p.next(now) == 0 {
		t.Error("an hour's rest allows more than a burst")
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0,
		now.Add(9 * time.Second).Format(http.TimeFormat):  9 * time.Second,
		now.Add(-9 * time.Second).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
