// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	notYet := errors.New("not yet")
	for _, tc := range []struct {
		name    string
		answers func(call int) error
		calls   int
		want    error
		text    string
	}{
		{"at once", func(int) error { return nil }, 1, nil, ""},
		{"third time", func(call int) error {
			if call < 3 {
				return notYet
			}
			return nil
		}, 3, nil, ""},
		{"never", func(int) error { return notYet }, 51, context.DeadlineExceeded, "wait for it: context deadline exceeded: not yet"},
		{"process ended", func(call int) error {
			if call < 2 {
				return notYet
			}
			return fmt.Errorf("%w: x", ErrExited)
		}, 2, ErrExited, "wait for it: process ended: x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Half an interval more, so that the end does not fall on a tick.
				ctx, cancel := context.WithTimeout(t.Context(), time.Second+pollInterval/2)
				defer cancel()
				calls := 0
				err := WaitFor(ctx, "it", func() error { calls++; return tc.answers(calls) })
				if !errors.Is(err, tc.want) {
					t.Errorf("error %v, want %v", err, tc.want)
				}
				if err != nil && !strings.Contains(err.Error(), tc.text) {
					t.Errorf("error %q, want %q", err, tc.text)
				}
				if calls != tc.calls {
					t.Errorf("%d calls, want %d", calls, tc.calls)
				}
			})
		})
	}
}
