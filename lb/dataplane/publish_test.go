// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
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
