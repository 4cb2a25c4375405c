// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// fleetGuard knows which VIPs other balancers announce, by what they say of themselves in Consul. Where
// it does not know, it says so, and each balancer decides by itself. Its methods may be called from any
// goroutine.
type fleetGuard struct {
	source *consul.Source
	log    *slog.Logger
	// self is by what this balancer knows its own registration.
	self string
	// wake is called when something changed.
	wake func()

	mu    sync.Mutex // guards what follows
	known bool
	fleet consul.Fleet
}

const (
	// guardWait and guardGrace bound how old what is known can be: a query that is not answered within
	// both means that nothing is known.
	guardWait  = 10 * time.Second
	guardGrace = 5 * time.Second
)

// newFleetGuard is nil if there is to be none.
func newFleetGuard(c *config.Config, self string, wake func(), log *slog.Logger) (*fleetGuard, error) {
	if c.BGP == nil || !c.BGP.Announce.FleetGuard || c.Consul.Register == nil {
		return nil, nil
	}
	r := consul.DefaultConfig()
	r.Log, r.Client, r.Wait, r.Grace = log, discovery.ConsulClient(c.Consul), guardWait, guardGrace
	r.Watches = []consul.Watch{{Name: c.Consul.Register.Name, Service: c.Consul.Register.Name}}
	source, err := consul.New(r)
	if err != nil {
		return nil, fmt.Errorf("prepare the fleet guard: %v", err)
	}
	return &fleetGuard{source: source, log: log, self: self, wake: wake}, nil
}

// run reads until ctx ends.
func (g *fleetGuard) run(ctx context.Context) error {
	if g == nil {
		return nil
	}
	return g.source.Run(ctx, g.hear)
}

// hear takes in an answer about the balancers. One that is not whole, or in which this balancer is not,
// tells nothing of who else announces a VIP.
func (g *fleetGuard) hear(u consul.Update) {
	if u.Answer == nil {
		return
	}
	problem := u.Answer.Problem()
	fleet := consul.Announced(u.Answer.Instances, g.self)
	known := problem == "" && fleet.Self
	g.mu.Lock()
	changed := known != g.known || known && !maps.Equal(fleet.Others, g.fleet.Others)
	was := g.known
	g.known, g.fleet = known, fleet
	g.mu.Unlock()
	switch {
	case known && !was:
		g.log.Info("fleet guard is on")
	case was && !known:
		g.log.Warn("fleet guard is off: it is not known what other balancers announce", "reason", problem)
	}
	if changed {
		g.wake()
	}
}

// of is what the other balancers do with a VIP.
func (g *fleetGuard) of(vip lb.VIP) announce.Fleet {
	if g == nil {
		return announce.FleetUnknown
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.known:
		return announce.FleetUnknown
	case g.fleet.Others[vip]:
		return announce.FleetOthers
	}
	return announce.FleetAlone
}
