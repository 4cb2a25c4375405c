// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
)

const (
	// doctors is how many backends are diagnosed at one time.
	doctors = 8
	// visitInterval is the time between two diagnoses of a backend that stays down.
	visitInterval = 30 * time.Second
	// partTime is how long a part of a path may take to answer.
	partTime = 2 * time.Second
)

// target is where the check of a real goes.
func (h *Health) target(c Checks, r lb.Real) healthcheck.Target {
	port := c.Port
	if port == 0 {
		port = r.VIP.Port
	}
	if !c.tunnelledTo(r) {
		return healthcheck.Target{Addr: netip.AddrPortFrom(r.Backend.Addr, port)}
	}
	return healthcheck.Target{Addr: netip.AddrPortFrom(r.VIP.FirstHost(), port), Mark: h.tunnelOf.Mark(r.ID)}
}

// fullSizeProbe fills the longest inner packets that the way to the real takes.
func fullSizeProbe(r lb.Real) (healthcheck.Probe, error) {
	return healthcheck.TCP{Size: r.NextHop.MTU - r.Tunnel.OuterLen()}.Probe()
}

// callDoctor has a backend diagnosed. The caller holds mu.
func (h *Health) callDoctor(t lb.Target) {
	h.ill[t] = true
	h.patients[t].diagnosed = time.Now()
	select {
	case h.fresh <- struct{}{}:
	default: // already said
	}
}

// visit has those diagnosed again that are down for long.
func (h *Health) visit(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t, p := range h.patients {
		if p.verdict.State == healthcheck.Down && p.real.ID != 0 && now.Sub(p.diagnosed) > visitInterval {
			h.callDoctor(t)
		}
	}
}

// diagnoses finds out what is broken on the ways to backends that are down, until ctx ends.
func (h *Health) diagnoses(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(doctors)
	for {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-h.fresh:
		}
		for _, e := range h.takeIll() {
			g.Go(func() error {
				h.conclude(e, healthcheck.Diagnose(e.examine(ctx)))
				return nil
			})
		}
	}
}

// takeIll are those that are to be diagnosed and are still down.
func (h *Health) takeIll() []examination {
	known := h.checks.Snapshot()
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []examination
	for t := range h.ill {
		p := h.patients[t]
		if p != nil && p.real.ID != 0 && p.verdict.State == healthcheck.Down {
			c := h.plan.checks[p.service]
			list = append(list, examination{
				target: t, checks: c, real: p.real, goes: h.target(c, p.real), found: known[checkID{Target: t}].Last,
			})
		}
	}
	clear(h.ill)
	return list
}

// conclude keeps a diagnosis, and logs it if it is not the one before.
func (h *Health) conclude(e examination, d healthcheck.Diagnosis) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.patients[e.target]
	if p == nil || p.verdict.State != healthcheck.Down {
		return
	}
	if p.diagnosis.Fault != d.Fault {
		h.log.Warn("path diagnosed", "service", p.service, "vip", e.target.VIP, "real", e.target.Backend, "fault", d.Fault, "detail", d.Detail)
	}
	p.diagnosis = d
}

// examination is what a diagnosis begins with.
type examination struct {
	target lb.Target
	checks Checks
	real   lb.Real
	// goes is where the check goes, and found what it found last.
	goes  healthcheck.Target
	found healthcheck.Result
}

// examine tries the parts of the path.
func (e examination) examine(ctx context.Context) healthcheck.Parts {
	parts := healthcheck.Parts{Tunnel: e.found}
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	var wg sync.WaitGroup
	try := func(part **healthcheck.Result, kind healthcheck.Kind, t healthcheck.Target) {
		if probe, err := kind.Probe(); err == nil {
			wg.Go(func() { r := probe.Check(ctx, t); *part = &r })
		}
	}
	own := healthcheck.Target{Addr: netip.AddrPortFrom(e.real.Backend.Addr, e.goes.Addr.Port())}
	try(&parts.ICMP, healthcheck.ICMP{}, own)
	if !e.checks.tunnelledTo(e.real) {
		wg.Wait()
		parts.Direct = &e.found
		return parts
	}
	try(&parts.Direct, kindOf(e.checks.Health), own)
	if port := e.real.VIP.Port; e.real.VIP.Protocol == lb.TCP && port != 0 && port != own.Addr.Port() {
		try(&parts.DirectVIPPort, healthcheck.TCP{}, healthcheck.Target{Addr: netip.AddrPortFrom(own.Addr.Addr(), port)})
	}
	if e.found.Reason == healthcheck.NoAnswer && e.real.NextHop.Resolved() {
		try(&parts.Padded, healthcheck.TCP{Size: e.real.NextHop.MTU - e.real.Tunnel.OuterLen()}, e.goes)
	}
	if e.found.Reason != healthcheck.Timeout && e.found.Reason != healthcheck.Unreachable {
		wg.Wait() // something came back: the tunnel is well
		return parts
	}
	if e.outerFits() {
		try(&parts.Outer, healthcheck.TCP{}, healthcheck.Target{Addr: own.Addr, Mark: e.goes.Mark})
	}
	wg.Go(func() { r := askDecapsulator(ctx, e.real); parts.Decapsulator = &r })
	wg.Wait()
	// A server that unwraps packets for its VIPs only does not answer at its own address.
	if parts.Outer != nil && !parts.Outer.OK() && parts.Outer.Reason != healthcheck.Refused {
		parts.Outer = nil
	}
	return parts
}

// outerFits tells whether the tunnel may carry packets to the backend's own address: the outer headers
// of IPIP name the family of the VIP.
func (e examination) outerFits() bool {
	return e.real.Tunnel.Encap == lb.GUE || e.real.VIP.Addr.Is4() == e.real.Backend.Addr.Is4()
}
