// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/governor"
)

func TestHoldEvent(t *testing.T) {
	hold := func(rule governor.Rule, object string, o governor.Outcome) governor.Event {
		h := governor.Hold{Rule: rule, Object: object, Sentence: "two of three would go", Release: "it ends at noon"}
		h.Source, h.Service = "consul", "web"
		return governor.Event{Hold: h, Outcome: o}
	}
	real := netip.MustParseAddr("10.0.0.2")
	const why = "two of three would go; it ends at noon"
	for _, tc := range []struct {
		name      string
		got, want event.Event
	}{
		{"held", holdEvent(hold(governor.RuleRadius, "10.0.0.2", governor.Began)),
			event.Event{Real: real, From: "passed", To: "held", Cause: "rule radius: " + why, Level: slog.LevelWarn}},
		{"refused", holdEvent(hold(governor.RuleNoLeader, "answer", governor.Began)),
			event.Event{From: "passed", To: "refused", Cause: "rule no_leader: " + why, Level: slog.LevelWarn}},
		{"accepted", holdEvent(hold(governor.RuleRadius, "10.0.0.2", governor.Accepted)),
			event.Event{Real: real, From: "held", To: "accepted", Cause: "no longer held back by rule radius"}},
	} {
		tc.want.Kind, tc.want.Service, tc.want.Source = event.KindHold, "web", "consul"
		if tc.got != tc.want {
			t.Errorf("%s: %+v\nwant %+v", tc.name, tc.got, tc.want)
		}
	}
}
