// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/governor"
)

// holdEvent is what became of a hold.
func holdEvent(e governor.Event) event.Event {
	h := e.Hold
	held := "held"
	if h.Rule <= governor.RuleUnheard {
		held = "refused"
	}
	out := event.Event{Kind: event.KindHold, Service: h.Service, Source: h.Source, From: held, To: e.Outcome.String(),
		Cause: fmt.Sprintf("no longer held back by rule %s", h.Rule)}
	// The object is a backend, or a word for all of the service.
	if addr, err := netip.ParseAddr(h.Object); err == nil {
		out.Real = addr
	}
	if e.Outcome == governor.Began {
		out.Level, out.From, out.To = slog.LevelWarn, "passed", held
		out.Cause = fmt.Sprintf("rule %s: %s; %s", h.Rule, h.Sentence, h.Release)
	}
	return out
}
