// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/engine"
)

// registration keeps the balancer registered in Consul, with what its data plane has.
type registration struct {
	registrar *consul.Registrar
	status    func() engine.Status
	// announced are the VIPs that routers are told of. Nil without BGP.
	announced func() map[lb.VIP]bool
	// self is by what this balancer knows its own entry.
	self string
	log  *slog.Logger
}

// newRegistration is nil if the balancer is not to be registered.
func newRegistration(c config.Consul, status func() engine.Status, log *slog.Logger) (*registration, error) {
	if c.Register == nil {
		return nil, nil
	}
	r := consul.DefaultRegistration()
	r.Log, r.Client = log, discovery.ConsulClient(c)
	r.Name, r.ID, r.TTL = c.Register.Name, c.Register.ID, c.Register.TTL
	self := rand.Text()
	r.Meta = map[string]string{consul.MetaInstance: self}
	registrar, err := consul.NewRegistrar(r)
	if err != nil {
		return nil, fmt.Errorf("prepare to register in Consul: %v", err)
	}
	return &registration{registrar: registrar, status: status, self: self, log: log}, nil
}

// lookAtVIPs is how often the data plane is looked at for what is to be reported.
const lookAtVIPs = time.Second

// run registers and reports until ctx ends, and deregisters.
func (r *registration) run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	var g errgroup.Group
	g.Go(func() error {
		if err := r.registrar.Run(ctx); err != nil {
			r.log.Warn("Consul may keep the balancer until its check has run out", "error", err)
		}
		return nil
	})
	look := time.NewTicker(lookAtVIPs)
	defer look.Stop()
	var last consul.Report
	for {
		now := report(r.status())
		if r.announced != nil {
			now.Announced = r.announced()
		}
		if now.Self != last.Self || !maps.Equal(now.VIPs, last.VIPs) || !maps.Equal(now.Announced, last.Announced) {
			r.registrar.Set(now)
			last = now
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-look.C:
		}
	}
}

// report is what the balancer says of itself. A VIP without a server for new connections is critical.
func report(s engine.Status) consul.Report {
	r := consul.Report{VIPs: make(map[lb.VIP]consul.Finding)}
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			r.VIPs[v.VIP] = finding(service.Name, v)
		}
	}
	r.Self = consul.Finding{Health: consul.Passing, Text: fmt.Sprintf("%d VIPs", len(r.VIPs))}
	if s.LastError != "" {
		r.Self = consul.Finding{Health: consul.Warning, Text: "the data plane is not as wanted: " + s.LastError}
	}
	return r
}

func finding(service string, v engine.VIPStatus) consul.Finding {
	var members []lb.Backend
	for _, real := range v.Reals {
		if real.Absence.Cause == engine.CauseNone {
			members = append(members, real.Backend)
		}
	}
	f := consul.Finding{Health: consul.Passing, Text: fmt.Sprintf("service %s, %d servers, digest %s", service, len(members), consul.Digest(v.VIP, members))}
	if len(members) == 0 {
		f.Health = consul.Critical
	}
	return f
}
