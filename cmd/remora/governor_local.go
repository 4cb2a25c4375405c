// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb/governor"
)

// localVerdicts are what the local checks find of the backends of a service, by address.
type localVerdicts map[string]map[netip.Addr]governor.Verdict

// verdicts are those of all services that are checked. A backend is down if it is for every VIP of the
// service: what one VIP can still use is no loss.
func (h *health) verdicts() localVerdicts {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := make(localVerdicts)
	for t, p := range h.patients {
		if found[p.service] == nil {
			found[p.service] = make(map[netip.Addr]governor.Verdict)
		}
		here, seen := found[p.service][t.Backend]
		next := localVerdict(p.verdict.State)
		if g := h.groups[t.VIP]; g != nil && g.last.FailOpen {
			next = governor.LocalUnknown // the checks are not believed
		}
		if !seen || here == governor.LocalDown || next == governor.LocalUp {
			found[p.service][t.Backend] = next
		}
	}
	return found
}

func localVerdict(s healthcheck.State) governor.Verdict {
	switch s {
	case healthcheck.Up:
		return governor.LocalUp
	case healthcheck.Down:
		return governor.LocalDown
	}
	return governor.LocalUnknown
}

// localInterval is how often the governor hears of the local checks: what it holds is held for minutes.
const localInterval = time.Second

// followLocal tells the governor what the local checks find, until ctx ends: they confirm losses that
// it holds.
func (d *discovery) followLocal(ctx context.Context, verdicts func() localVerdicts) error {
	look := time.NewTicker(localInterval)
	defer look.Stop()
	var last localVerdicts
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		next := verdicts()
		if maps.EqualFunc(last, next, maps.Equal[map[netip.Addr]governor.Verdict, map[netip.Addr]governor.Verdict]) {
			continue
		}
		// The only error is that ctx has ended.
		_ = d.ask(ctx, func() error {
			d.setLocal(last, next, time.Now())
			return nil
		})
		last = next
	}
}

// setLocal replaces what the local checks found.
func (d *discovery) setLocal(last, next localVerdicts, now time.Time) {
	for service := range last {
		if next[service] == nil {
			d.note(d.governor.SetLocal(service, nil, now))
		}
	}
	for service, verdicts := range next {
		if !maps.Equal(last[service], verdicts) {
			d.note(d.governor.SetLocal(service, verdicts, now))
		}
	}
}
