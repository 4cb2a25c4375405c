// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/test/require"
)

// withEvents has a server serve these.
func withEvents(l *event.Log) setup { return func(c *Config, _ *bounds) { c.Events = l } }

func emit(l *event.Log, n int) {
	for i := range n {
		l.Emit(event.Event{Kind: event.KindRing, To: fmt.Sprint(i + 1)})
	}
}

// TestEventTranslation: every field reaches the caller, and what is not set is empty.
func TestEventTranslation(t *testing.T) {
	peer, nobody := netip.MustParseAddr("10.0.0.1"), netip.Addr{}
	got := eventsToAPI([]event.Event{
		{Number: 7, At: began, Kind: event.KindHealth, Level: slog.LevelWarn, Service: "web", VIP: vip4, Real: shared, Source: "consul",
			Peer: peer, Interface: "eth0", From: "up", To: "down", Cause: "refused"},
		{Number: 8, At: began, Kind: event.KindRing, Real: nobody, To: "stable"},
	})
	want := []*remorav1.Event{
		{Number: 7, At: timestamppb.New(began), Kind: "health", Warning: true, Service: "web", Vip: vip4.String(), Real: shared.String(),
			Source: "consul", Peer: "10.0.0.1", Interface: "eth0", From: "up", To: "down", Cause: "refused"},
		{Number: 8, At: timestamppb.New(began), Kind: "ring", To: "stable"},
	}
	for i := range want {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("event %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestListEvents(t *testing.T) {
	for _, tc := range []struct {
		name           string
		emitted        int
		after          uint64
		events         int
		first, wantLos uint64
	}{
		{"none", 0, 0, 0, 0, 0},
		{"all", 3, 0, 3, 1, 0},
		{"new ones", 3, 2, 1, 3, 0},
		{"lost", event.Kept + 5, 1, event.Kept, 6, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := event.NewLog(nil)
			emit(l, tc.emitted)
			got, err := serve(t, &fakeDaemon{}, withEvents(l)).client(t).ListEvents(t.Context(), tc.after)
			require.NoError(t, err)
			if len(got.Events) != tc.events || got.Lost != tc.wantLos || tc.events > 0 && got.Events[0].Number != tc.first {
				t.Errorf("%d events, %d lost, want %d and %d", len(got.Events), got.Lost, tc.events, tc.wantLos)
			}
		})
	}
	t.Run("a server without events", func(t *testing.T) {
		got, err := serve(t, &fakeDaemon{}).client(t).ListEvents(t.Context(), 0)
		require.NoError(t, err)
		if len(got.Events) != 0 {
			t.Errorf("it has %v", got.Events)
		}
	})
}

// TestWatchEvents: what is kept comes in parts, then what is new, each once and in order.
func TestWatchEvents(t *testing.T) {
	l, enough := event.NewLog(nil), errors.New("enough")
	emit(l, event.Kept+10)
	next, lost := uint64(11), uint64(0)
	err := serve(t, &fakeDaemon{}, withEvents(l)).client(t).WatchEvents(t.Context(), 0, func(m *remorav1.WatchEventsResponse) error {
		lost += m.Lost
		if len(m.Events) > eventsPerMessage {
			t.Errorf("%d events in a message", len(m.Events))
		}
		for _, e := range m.Events {
			if e.Number != next {
				t.Errorf("event %d, want %d", e.Number, next)
			}
			next++
		}
		switch next {
		case event.Kept + 11:
			emit(l, 1)
		case event.Kept + 12:
			return enough
		}
		return nil
	})
	if err != enough || lost != 10 {
		t.Errorf("it ends with %v, %d lost", err, lost)
	}
}

func TestWatchEventsEnds(t *testing.T) {
	running := func(t *testing.T) *served {
		l := event.NewLog(nil)
		emit(l, 1)
		return serve(t, &fakeDaemon{}, withEvents(l))
	}
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := running(t).client(t).WatchEvents(ctx, 0, func(*remorav1.WatchEventsResponse) error {
			cancel()
			return nil
		})
		require.ErrorSays(t, err, "canceled")
	})
	t.Run("daemon stops", func(t *testing.T) {
		s := running(t)
		err := s.client(t).WatchEvents(t.Context(), 0, func(*remorav1.WatchEventsResponse) error {
			go s.stop()
			return nil
		})
		require.ErrorSays(t, err, "the daemon stops; watch again when it runs")
		s.stop()
	})
}
