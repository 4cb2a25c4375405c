// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

func TestEvents(t *testing.T) {
	vip, real := mustVIP(t, "192.0.2.10:80/tcp"), netip.MustParseAddr("10.0.0.2")
	verdict := func(old, now healthcheck.State, suppressed bool) healthcheck.Change[checkID] {
		return healthcheck.Change[checkID]{ID: checkID{Target: lb.Target{VIP: vip, Backend: real}}, Old: healthcheck.Verdict{State: old},
			New: healthcheck.Verdict{State: now, Suppressed: suppressed}, Result: healthcheck.Result{Reason: healthcheck.Refused}}
	}
	for _, tc := range []struct {
		name      string
		got, want event.Event
	}{
		{"down", healthEvent("web", verdict(healthcheck.Up, healthcheck.Down, true)), event.Event{Kind: event.KindHealth, Real: real,
			From: "up", To: "down", Cause: "refused; it went up and down too often", Level: slog.LevelWarn}},
		{"up", healthEvent("web", verdict(healthcheck.Unknown, healthcheck.Up, false)), event.Event{Kind: event.KindHealth, Real: real,
			From: "unknown", To: "up", Cause: "refused"}},
		{"not believed", beliefEvent("web", vip, healthcheck.GroupDecision{FailOpen: true, Detail: "none is healthy"}), event.Event{Kind: event.KindHealthGroup,
			From: "believed", To: "fail open", Cause: "health checks are not believed: none is healthy", Level: slog.LevelWarn}},
	} {
		tc.want.Service, tc.want.VIP = "web", vip
		if tc.got != tc.want {
			t.Errorf("%s: %+v\nwant %+v", tc.name, tc.got, tc.want)
		}
	}
}
