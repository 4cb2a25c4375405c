// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"log/slog"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/event"
)

// healthEvent is a changed verdict about a backend of a service.
func healthEvent(service string, c healthcheck.Change[checkID]) event.Event {
	e := event.Event{Kind: event.KindHealth, Service: service, VIP: c.ID.VIP, Real: c.ID.Backend,
		From: c.Old.State.String(), To: c.New.State.String(), Cause: c.Result.String()}
	if c.New.State == healthcheck.Down {
		e.Level = slog.LevelWarn
	}
	if c.New.Suppressed {
		e.Cause += "; it went up and down too often"
	}
	return e
}

// beliefEvent tells whether the checks of a VIP's backends are believed.
func beliefEvent(service string, vip lb.VIP, d healthcheck.GroupDecision) event.Event {
	e := event.Event{Kind: event.KindHealthGroup, Service: service, VIP: vip, From: "fail open", To: "believed",
		Cause: fmt.Sprintf("health checks are believed again: %d of %d backends are healthy", d.Healthy, len(d.Members))}
	if d.FailOpen {
		e.Level, e.From, e.To, e.Cause = slog.LevelWarn, "believed", "fail open", "health checks are not believed: "+d.Detail
	}
	return e
}
