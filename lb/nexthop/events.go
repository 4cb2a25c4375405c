// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	events "github.com/remora-lb/remora/lb/event"
)

// maxEvents bounds the events of one change: one lost gateway may change thousands of hops.
const maxEvents = 10

// emit tells which next hops changed, those of the first addresses one by one.
func (s *session) emit(before, after map[netip.Addr]lb.NextHop) {
	told, untold := 0, 0
	for _, dst := range slices.SortedFunc(maps.Keys(after), netip.Addr.Compare) {
		if before[dst] == after[dst] {
			continue
		}
		if told == maxEvents {
			untold++
			continue
		}
		told++
		e := change(before[dst], after[dst])
		e.Interface, e.Real = s.cfg.Interface, dst
		s.cfg.Events.Emit(e)
	}
	if untold > 0 {
		s.cfg.Events.Emit(events.Event{Kind: events.KindNextHop, Interface: s.cfg.Interface, From: "known", To: "changed",
			Cause: fmt.Sprintf("%d more addresses have another next hop, or none", untold)})
	}
}

// change is a change of one next hop.
func change(before, after lb.NextHop) events.Event {
	e := events.Event{Kind: events.KindNextHop, From: word(before), To: word(after)}
	if !after.Resolved() {
		e.Level, e.Cause = slog.LevelWarn, after.Problem
		return e
	}
	e.Cause = fmt.Sprintf("mac %s, mtu %d", macText(after.MAC), after.MTU)
	return e
}

// word is the state of a next hop; the zero value is not resolved.
func word(h lb.NextHop) string {
	switch {
	case !h.Resolved():
		return "unresolved"
	case h.Stale:
		return "stale"
	}
	return "resolved"
}
