// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"slices"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
)

// Announceable is what the checks of a VIP's backends say of it: known tells that there is a verdict on
// each of them, and unservable why not enough are healthy; it is empty if they are. Without checks all
// is well.
func (h *Health) Announceable(vip lb.VIP) (known bool, unservable string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[vip]
	if g == nil {
		return true, ""
	}
	unknown := func(m healthcheck.MemberDecision) bool { return m.Combined == healthcheck.Unknown }
	if !g.last.Servable {
		unservable = g.last.Detail
	}
	return !slices.ContainsFunc(g.last.Members, unknown), unservable
}
