// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
)

// Annotate adds what the checks know to the VIPs and reals of a status.
func (h *Health) Annotate(services []control.Service) {
	known := h.checks.Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range services {
		for i := range s.VIPs {
			v := &s.VIPs[i]
			g := h.groups[v.VIP]
			if g == nil {
				continue
			}
			v.Health = &control.HealthGroup{
				Checked: len(g.last.Members), Healthy: g.last.Healthy, FailOpen: g.last.FailOpen, Servable: g.last.Servable, Detail: g.last.Detail,
			}
			for k := range v.Reals {
				r := &v.Reals[k]
				t := lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}
				if p := h.patients[t]; p != nil && p.real.ID == r.ID {
					r.Health = p.status(known[checkID{Target: t}], known[checkID{t, true}])
				}
			}
		}
	}
}

// status is what is known of a backend; full is its full-size probe, zero if there is none.
func (p *patient) status(s, full healthcheck.Status) *control.Health {
	c := &control.Health{
		Local: control.HealthState(p.verdict.State), Outside: control.HealthState(p.outside), Since: s.Since,
		Percent: p.verdict.Weight, Suppressed: p.verdict.Suppressed,
	}
	if !s.LastAt.IsZero() {
		c.Reason, c.Detail = s.Last.Reason.String(), s.Last.Detail
	}
	d := p.diagnosis
	if p.verdict.State != healthcheck.Down {
		d = fullSizeFault(full.Verdict.State, full.Last)
	}
	if d.Fault != healthcheck.NoFault {
		c.Fault, c.FaultDetail = d.Fault.String(), d.Detail
	}
	return c
}
