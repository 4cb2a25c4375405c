// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/netip"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb/governor"
)

// Verdicts are what the checks find of the backends of each service that is checked, by address. A backend
// is down if it is for every VIP of the service: what one VIP can still use is no loss.
func (h *Health) Verdicts() map[string]map[netip.Addr]governor.Verdict {
	known := h.checks.Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make(map[string]map[netip.Addr]governor.Verdict)
	for t, p := range h.patients {
		if found[p.service] == nil {
			found[p.service] = make(map[netip.Addr]governor.Verdict)
		}
		here, seen := found[p.service][t.Backend]
		p.hear(known[checkID{Target: t}])
		next := p.local()
		if g := h.groups[t.VIP]; g != nil && g.last.FailOpen {
			next = governor.LocalUnknown // the checks are not believed
		}
		if !seen || here == governor.LocalDown || next == governor.LocalUp {
			found[p.service][t.Backend] = next
		}
	}
	return found
}

// hear takes note of whether a check has come to a result that says something about the backend.
func (p *patient) hear(s healthcheck.Status) {
	p.heard = p.heard || !s.LastAt.IsZero() && s.Last.Conclusive()
}

// local is what the governor is told of a backend. What it is held for initially is no finding.
func (p *patient) local() governor.Verdict {
	switch {
	case !p.heard:
		return governor.LocalUnknown
	case p.verdict.State == healthcheck.Up:
		return governor.LocalUp
	case p.verdict.State == healthcheck.Down:
		return governor.LocalDown
	}
	return governor.LocalUnknown
}
