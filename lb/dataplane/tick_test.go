// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"
	"time"
)

func TestTickOf(t *testing.T) {
	for _, tt := range []struct {
		hertz int64
		shift uint32
	}{
		{100, 7}, {250, 8}, {300, 8}, {1000, 10},
	} {
		jiffy := time.Second / time.Duration(tt.hertz)
		length, shift := tickOf(jiffy)
		if shift != tt.shift || length != jiffy<<tt.shift || length < 2*time.Second/3 || length > 4*time.Second/3 {
			t.Errorf("%d Hz: a tick of %v, 1<<%d jiffies; want 1<<%d", tt.hertz, length, shift, tt.shift)
		}
	}
}

// The program's tick is as long as its length says.
func TestTickIsThatOfTheProgram(t *testing.T) {
	d := testOpen(t)
	first := flowClockOf(t, d)
	if now, err := jiffy(); err != nil || now < time.Millisecond/2 || now > 20*time.Millisecond {
		t.Errorf("a jiffy of %v, %v", now, err)
	}
	ticker := time.NewTicker(first.tick / 16)
	defer ticker.Stop()
	var begun []time.Time // of ticks
	for last, deadline := first.now, time.Now().Add(time.Minute); len(begun) < 2; {
		now := <-ticker.C
		clock := flowClockOf(t, d)
		if clock.now != last {
			begun, last = append(begun, now), clock.now
		}
		if now.After(deadline) {
			t.Fatal("no tick began within a minute")
		}
	}
	// Generous: the machine may have been busy when one of the two began.
	if took := begun[1].Sub(begun[0]); took < first.tick/3 || took > 3*first.tick {
		t.Errorf("a tick took %v, want %v", took, first.tick)
	}
}
