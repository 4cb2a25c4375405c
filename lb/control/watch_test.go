// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

// script is what a daemon says of drains, one look after the other; the last one for good.
func script(looks ...[]Drain) *fakeDaemon {
	var mu sync.Mutex
	return &fakeDaemon{drains: func(context.Context, Selection) ([]Drain, error) {
		mu.Lock()
		defer mu.Unlock()
		now := looks[0]
		if len(looks) > 1 {
			looks = looks[1:]
		}
		return now, nil
	}}
}

func drainOf(v lb.VIP, state DrainState, flows int) Drain {
	return Drain{Target: lb.Target{VIP: v, Backend: shared}, State: state, Flows: flows}
}

func TestWatchDrain(t *testing.T) {
	a := func(s DrainState, flows int) Drain { return drainOf(vip4, s, flows) }
	b := func(s DrainState, flows int) Drain { return drainOf(vip6, s, flows) }
	for _, tc := range []struct {
		name  string
		looks [][]Drain
		want  string // state and flows of each drain; messages are apart by a slash
	}{
		{"done before", [][]Drain{{a(DrainDone, 0)}}, "DONE 0"},
		{"to the end", [][]Drain{{a(DrainRunning, 2)}, {a(DrainRunning, 2)}, {a(DrainRunning, 1)}, {a(DrainDone, 0)}},
			"RUNNING 2 / RUNNING 1 / DONE 0"},
		{"expired", [][]Drain{{a(DrainRunning, 2)}, {a(DrainExpired, 2)}}, "RUNNING 2 / EXPIRED 2"},
		{"undrained", [][]Drain{{a(DrainRunning, 2)}, {}}, "RUNNING 2 / ENDED 2"},
		{"two", [][]Drain{{a(DrainRunning, 2), b(DrainRunning, 1)}, {a(DrainDone, 0), b(DrainRunning, 1)}, {a(DrainDone, 0), b(DrainExpired, 1)}},
			"RUNNING 2, RUNNING 1 / DONE 0, RUNNING 1 / DONE 0, EXPIRED 1"},
		{"one goes when it is done", [][]Drain{{a(DrainDone, 0), b(DrainRunning, 1)}, {b(DrainDone, 0)}}, "DONE 0, RUNNING 1 / DONE 0, DONE 0"},
		{"one comes", [][]Drain{{a(DrainRunning, 1)}, {a(DrainDone, 0), b(DrainRunning, 9)}}, "RUNNING 1 / DONE 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t, script(tc.looks...))
			var messages []string
			err := s.client(t).WatchDrain(t.Context(), &remorav1.WatchDrainRequest{Backend: shared.String()}, func(m *remorav1.WatchDrainResponse) error {
				var drains []string
				for _, d := range m.Drains {
					drains = append(drains, fmt.Sprintf("%s %d", strings.TrimPrefix(d.State.String(), "DRAIN_STATE_"), d.FlowsLeft))
				}
				messages = append(messages, strings.Join(drains, ", "))
				return nil
			})
			require.NoError(t, err)
			if got := strings.Join(messages, " / "); got != tc.want {
				t.Errorf("it tells %s, want %s", got, tc.want)
			}
		})
	}
}

func TestWatchErrors(t *testing.T) {
	req := &remorav1.WatchDrainRequest{Backend: shared.String()}
	t.Run("no drain", func(t *testing.T) {
		err := serve(t, script(nil)).client(t).WatchDrain(t.Context(), req, nil)
		require.ErrorSays(t, err, "10.20.0.11 is not drained; `remora drain`")
		if e := err.(*Error); e.Code != CodeRefused {
			t.Errorf("%+v", e)
		}
	})
	t.Run("backend removed", func(t *testing.T) {
		first := true
		s := serve(t, &fakeDaemon{drains: func(context.Context, Selection) ([]Drain, error) {
			if !first {
				return nil, &Error{Code: CodeNotFound, Problem: "gone"}
			}
			first = false
			return []Drain{drainOf(vip4, DrainRunning, 1)}, nil
		}})
		var last remorav1.DrainState
		require.NoError(t, s.client(t).WatchDrain(t.Context(), req, func(m *remorav1.WatchDrainResponse) error {
			last = m.Drains[0].State
			return nil
		}))
		if last != remorav1.DrainState_DRAIN_STATE_ENDED {
			t.Errorf("the last state is %v", last)
		}
	})
	running := func(t *testing.T) *served {
		return serve(t, script([]Drain{drainOf(vip4, DrainRunning, 1)}))
	}
	t.Run("caller's error", func(t *testing.T) {
		enough := errors.New("enough")
		if err := running(t).client(t).WatchDrain(t.Context(), req, func(*remorav1.WatchDrainResponse) error { return enough }); err != enough {
			t.Errorf("it returns %v", err)
		}
	})
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := running(t).client(t).WatchDrain(ctx, req, func(*remorav1.WatchDrainResponse) error {
			cancel()
			return nil
		})
		require.ErrorSays(t, err, "canceled")
	})
	t.Run("daemon stops", func(t *testing.T) {
		s := running(t)
		err := s.client(t).WatchDrain(t.Context(), req, func(*remorav1.WatchDrainResponse) error {
			go s.stop()
			return nil
		})
		require.ErrorSays(t, err, "the daemon stops; watch again when it runs")
		s.stop()
	})
}
