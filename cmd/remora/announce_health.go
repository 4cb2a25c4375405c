// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
)

// announceable is what the checks of a VIP's backends say of it: known tells that there is a verdict on
// each of them, servable that enough are healthy for health.min_healthy. Without checks both are true.
func (h *health) announceable(vip lb.VIP) (known, servable bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[vip]
	if g == nil {
		return true, true
	}
	unknown := func(m healthcheck.MemberDecision) bool { return m.Combined == healthcheck.Unknown }
	return !slices.ContainsFunc(g.last.Members, unknown), g.last.Servable
}
