// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"maps"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

// Plan has the checks of services.
type Plan struct {
	checks map[string]Checks
	// configured are all services of the configuration that it was made of, checked or not.
	configured map[string]bool
}

// newPlan makes the checks of all services of a configuration.
func newPlan(c *config.Config) (*Plan, error) {
	plan := &Plan{checks: make(map[string]Checks, len(c.Health)), configured: make(map[string]bool)}
	for _, s := range c.Services {
		plan.configured[s.Name] = true
	}
	for name, h := range c.Health {
		checks, err := newChecks(h)
		if err != nil {
			return nil, fmt.Errorf("health checks of service %q: %v", name, err)
		}
		plan.checks[name] = checks
	}
	return plan, nil
}

// keep takes over the checks of services that are not configured any more: they may have VIPs that
// routers still send packets for.
func (p *Plan) keep(old *Plan) {
	for name, checks := range old.checks {
		if !p.configured[name] {
			p.checks[name] = checks
		}
	}
}

// drop forgets the checks of services that are neither configured nor among these.
func (p *Plan) drop(services []lb.Service) {
	there := make(map[string]bool, len(services))
	for _, s := range services {
		there[s.Name] = true
	}
	maps.DeleteFunc(p.checks, func(name string, _ Checks) bool { return !p.configured[name] && !there[name] })
}

// anyTunnelled tells whether probes need the tunnel.
func (p *Plan) anyTunnelled() bool {
	for _, c := range p.checks {
		if c.tunnelled() {
			return true
		}
	}
	return false
}
