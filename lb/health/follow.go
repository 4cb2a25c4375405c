// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// followInterval is how often it is looked whether the data plane has changed: new reals are checked
// from then on, and probes follow a new link address.
const followInterval = 100 * time.Millisecond

// follow keeps the set of checks equal to what the data plane has.
func (h *Health) follow(ctx context.Context) error {
	look := time.NewTicker(followInterval)
	defer look.Stop()
	changes := ^uint64(0)
	for {
		if s := h.engine.Status(); s.Changes != changes || h.isStale() {
			changes = s.Changes
			if err := h.place(s); err != nil {
				h.log.Error("health checks are not as wanted", "error", err)
				changes = ^uint64(0)
			}
		}
		h.visit(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

func (h *Health) isStale() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stale
}

// place makes the checks of all reals that the data plane has.
func (h *Health) place(s engine.Status) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stale = false
	reals := s.ByTarget()
	checks := make(map[checkID]healthcheck.Check)
	var tunnelled []lb.Real
	var errs []error
	for t, p := range h.patients {
		r, there := reals[t]
		if !there || r.Absence.Cause == engine.CauseRemoved {
			p.real, p.verdict, p.heard = lb.Real{}, initialVerdict(h.plan.checks[p.service].rules), false
			continue
		}
		p.real = r.Real
		c := h.plan.checks[p.service]
		if c.tunnelledTo(r.Real) {
			tunnelled = append(tunnelled, r.Real)
		}
		checks[checkID{Target: t}] = h.check(c, r.Real)
		if c.FullSize > 0 && t.VIP.Protocol == lb.TCP && r.NextHop.Resolved() {
			full, err := h.fullSizeCheck(c, r.Real)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			checks[checkID{t, true}] = full
		}
	}
	if h.tunnel != nil {
		errs = append(errs, h.tunnel.Set(tunnelled))
	}
	return errors.Join(append(errs, h.checks.Set(checks))...)
}

func (h *Health) check(c Checks, r lb.Real) healthcheck.Check {
	return healthcheck.Check{Probe: c.probe, Target: h.target(c, r), Server: r.Backend.Addr, Timeout: c.Timeout, Rules: c.rules}
}

// fullSizeFall is how many full-size probes in a row must fail.
const fullSizeFall = 2

func (h *Health) fullSizeCheck(c Checks, r lb.Real) (healthcheck.Check, error) {
	probe, err := fullSizeProbe(r)
	if err != nil {
		return healthcheck.Check{}, fmt.Errorf("full-size probe of %s to %s: %v", r.VIP, r.Backend.Addr, err)
	}
	target := h.target(c, r)
	return healthcheck.Check{Probe: probe, Target: target, Server: r.Backend.Addr, Timeout: c.Timeout, Rules: healthcheck.Rules{
		Rise: 1, Fall: fullSizeFall, UpInterval: c.FullSize, Jitter: c.Jitter,
	}}, nil
}
