// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// mouth is a speaker that breaks when it is told to.
type mouth struct {
	broken, ended chan error
	routes        int
	restarting    bool
}

func (m *mouth) Run(ctx context.Context) error {
	defer close(m.ended)
	select {
	case <-ctx.Done():
		return nil
	case err := <-m.broken:
		return err
	}
}

func (m *mouth) Announce(_ context.Context, routes []Route) error {
	select {
	case <-m.ended:
		return ErrStopped
	default:
		m.routes = len(routes)
		return nil
	}
}

func (m *mouth) Sessions() []Session {
	return []Session{{Peer: netip.MustParseAddr("10.0.0.1"), State: Idle}}
}

func (m *mouth) Stop(context.Context, time.Duration) error { return nil }

// TestVoiceOutlivesItsSpeaker: a speaker that breaks is followed by another, later and later, and the
// status says why nothing is announced; it does not end the daemon.
func TestVoiceOutlivesItsSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mouths []*mouth
		var at []time.Duration
		began := time.Now()
		var refuse atomic.Bool
		woken := 0
		v, err := newVoice(func(restarting bool) (speaking, error) {
			at = append(at, time.Since(began))
			if refuse.Load() {
				return nil, errors.New("the password file is gone")
			}
			mouths = append(mouths, &mouth{broken: make(chan error, 1), ended: make(chan error), restarting: restarting})
			return mouths[len(mouths)-1], nil
		}, true, func() { woken++ }, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); v.Run(ctx) }()
		checkTrouble := func(want string) {
			t.Helper()
			synctest.Wait()
			sessions, trouble := v.State()
			if got := sessions[0].LastError; got != trouble || !strings.Contains(got, want) || (want == "") != (got == "") {
				t.Errorf("the trouble is %q and the session's last error %q, want %q", trouble, got, want)
			}
		}
		checkTrouble("")
		mouths[0].broken <- errors.New("port taken")
		checkTrouble("port taken")
		require.NoError(t, v.Announce(ctx, make([]Route, 1))) // it is known, and no further error
		time.Sleep(speakRetry)
		synctest.Wait()
		mouths[1].broken <- errors.New("port still taken")
		checkTrouble("port still taken")
		refuse.Store(true)
		time.Sleep(2 * speakRetry)
		checkTrouble("password file")
		refuse.Store(false)
		time.Sleep(4 * speakRetry)
		synctest.Wait()
		require.NoError(t, v.Announce(ctx, make([]Route, 2)))
		checkTrouble("")
		if len(mouths) != 3 || woken != 2 || mouths[2].routes != 2 {
			t.Errorf("%d speakers, woken %d times, the last has %+v", len(mouths), woken, mouths[2])
		}
		if !mouths[2].restarting {
			t.Error("routers that wait for the routes of a restarted daemon are not told so")
		}
		mouths[2].broken <- errors.New("another fault")
		time.Sleep(speakRetryMax)
		synctest.Wait()
		if len(mouths) != 4 || mouths[3].restarting {
			t.Errorf("%d speakers; the last still says that it restarts", len(mouths))
		}
		if want := []time.Duration{0, speakRetry, 3 * speakRetry, 7 * speakRetry}; len(at) != 5 || at[1] != want[1] || at[2] != want[2] || at[3] != want[3] {
			t.Errorf("speakers were made at %v, want %v", at, want)
		}
		cancel()
		<-done
	})
}
