// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-lb/remora/test/require"
)

type testSlot struct {
	lost     chan struct{}
	released bool
}

func (s *testSlot) Lost() <-chan struct{} { return s.lost }

func (s *testSlot) Release() error { s.released = true; return nil }

// TestDrainLimit: a drain without its right is refused, one that has it keeps it, and a balancer that is
// drained asks for it again.
func TestDrainLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slots []*testSlot
		full := false
		l := &drainLimit{log: slog.New(slog.DiscardHandler), acquire: func(ctx context.Context) (drainSlot, error) {
			if full {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			slots = append(slots, &testSlot{lost: make(chan struct{})})
			return slots[len(slots)-1], nil
		}}
		full = true
		require.ErrorSays(t, l.take(t.Context()), "as many balancers as may drain")
		full = false
		require.NoError(t, l.take(t.Context()))
		require.NoError(t, l.take(t.Context()))
		l.give()
		l.give()
		if len(slots) != 1 || !slots[0].released {
			t.Errorf("%d rights, the first %+v", len(slots), slots[0])
		}
		var drained atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.run(ctx, drained.Load) }()
		synctest.Wait()
		if len(slots) != 1 {
			t.Error("it took a right without being drained")
		}
		drained.Store(true)
		time.Sleep(drainRetry)
		synctest.Wait()
		if len(slots) != 2 {
			t.Fatalf("%d rights; a drained balancer has none", len(slots))
		}
		close(slots[1].lost)
		time.Sleep(drainRetry)
		synctest.Wait()
		if len(slots) != 3 {
			t.Errorf("%d rights; the lost one was not asked for again", len(slots))
		}
		cancel()
		require.NoError(t, <-done)
	})
	var none *drainLimit
	require.NoError(t, none.take(t.Context()))
	none.give()
	failing := &drainLimit{acquire: func(context.Context) (drainSlot, error) { return nil, errors.New("no leader") }}
	require.ErrorSays(t, failing.take(t.Context()), "no leader")
}
