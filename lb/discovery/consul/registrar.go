// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb"
)

// Registration is how the balancer is registered in Consul. Start from DefaultRegistration.
type Registration struct {
	// Log receives changes of state; nil discards them.
	Log *slog.Logger
	// Client is how Consul is reached. Only the first address is used: it must be the agent of this
	// machine.
	Client ClientConfig
	// Name is the service's. Default "remora".
	Name string
	// ID is unique on the node. Default "remora".
	ID string
	// Address and Port are where the balancer answers, for people and monitoring. Default: the
	// node's address, and none; 0 to 65535.
	Address string
	Port    int
	// Tags and Meta are given to the service as they are. Default none.
	Tags []string
	Meta map[string]string
	// TTL is the time after which Consul holds a balancer for dead that says nothing. Default 30 s;
	// at least 3 s.
	TTL time.Duration
	// DeregisterAfter is the time after which Consul forgets a dead balancer. Default 24 h; at
	// least 1 minute, or 0 for never.
	DeregisterAfter time.Duration
}

// DefaultRegistration is the registration with all defaults.
func DefaultRegistration() Registration {
	return Registration{Name: "remora", ID: "remora", TTL: 30 * time.Second, DeregisterAfter: 24 * time.Hour}
}

// Validate reports all problems, each with the path of its field.
func (r Registration) Validate() error {
	var p problems
	p.add(r.Client.Validate())
	if r.Name == "" {
		p.addf("Name: missing")
	}
	if r.ID == "" || strings.Contains(r.ID, "/") {
		p.addf("ID: %q is not a name without slashes", r.ID)
	}
	if r.Port < 0 || r.Port > 65535 {
		p.addf("Port: %d is not 0 to 65535", r.Port)
	}
	if r.TTL < 3*time.Second {
		p.addf("TTL: %v is less than 3s", r.TTL)
	}
	if r.DeregisterAfter != 0 && r.DeregisterAfter < time.Minute {
		p.addf("DeregisterAfter: %v is less than 1m0s", r.DeregisterAfter)
	}
	return p.err()
}

// Health is what a check says.
type Health string

// The states of a check.
const (
	Passing  Health = statusPassing
	Warning  Health = statusWarning
	Critical Health = statusCritical
)

// Finding is the state of a check and its text for people.
type Finding struct {
	Health Health
	Text   string
}

// Report is all that the balancer says of itself.
type Report struct {
	Self Finding
	// VIPs has those that the data plane has; the text holds their digest.
	VIPs map[lb.VIP]Finding
	// Announced are the VIPs that routers are told of. Each has a check of its own, see Announced.
	Announced map[lb.VIP]bool
}

// Registrar keeps the balancer registered: a service with one check that says that it lives, and
// one check for each VIP. Set may be called concurrently with all else; Run is for one goroutine.
type Registrar struct {
	registration Registration
	log          *slog.Logger
	endpoint     *endpoint

	mu sync.Mutex
	// report is guarded by mu.
	report Report
	// changed holds a token while Run has a report to make.
	changed chan struct{}

	// registered, and what each check said last, by its id, are Run's.
	registered bool
	checks     map[string]Finding
}

// requestTimeout bounds every request to the agent.
const requestTimeout = 5 * time.Second

// NewRegistrar makes a registrar. It sends nothing.
func NewRegistrar(r Registration) (*Registrar, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	endpoints, err := newEndpoints(r.Client, timeouts{request: requestTimeout})
	if err != nil {
		return nil, err
	}
	log := r.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registrar{
		registration: r, log: log, endpoint: endpoints[0],
		report:  Report{Self: Finding{Health: Critical, Text: "starting"}},
		changed: make(chan struct{}, 1),
	}, nil
}

// Set makes this the report. It stays the caller's.
func (r *Registrar) Set(report Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report = Report{Self: report.Self, VIPs: maps.Clone(report.VIPs), Announced: maps.Clone(report.Announced)}
	select {
	case r.changed <- struct{}{}:
	default: // a token is there already, and leads to the present report
	}
}

// Run registers, and reports at once on every Set and a few times each TTL, until ctx ends. Then it
// deregisters; the error says if it could not.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.endpoint.transport.inner.CloseIdleConnections()
	retry := DefaultConfig().Retry
	replace, all, failures := true, true, 0
	for ctx.Err() == nil {
		err := r.pass(ctx, replace, all)
		wait := r.registration.TTL / 3
		switch {
		case err == nil:
			replace, failures = false, 0
		case ctx.Err() != nil: // it was called off
		default:
			failures++
			if failures == 1 {
				r.log.Warn("cannot register in Consul", "reason", err)
			}
			// Whatever the reason, the agent may have lost us.
			r.registered = false
			wait = min(wait, retry.delay(failures, rand.Float64()))
		}
		all = r.await(ctx, wait, err == nil)
	}
	return r.deregister()
}

// await waits for the time to pass, for ctx, or, if wanted, for a report. It tells whether the time
// passed, so that every check has to be told again.
func (r *Registrar) await(ctx context.Context, d time.Duration, report bool) (passed bool) {
	changed := r.changed
	if !report {
		changed = nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
		return true
	}
	return false
}

// pass makes Consul know what the report says: all of it, or what is new. Replace does away with
// checks that an earlier run left behind. It ends early with ctx.
func (r *Registrar) pass(ctx context.Context, replace, all bool) error {
	r.mu.Lock()
	report := r.report
	r.mu.Unlock()
	if !r.registered {
		if err := r.register(ctx, report.Self, replace); err != nil {
			return err
		}
		r.log.Info("registered in Consul", "service", r.registration.Name, "address", r.endpoint.address)
		r.registered, r.checks = true, make(map[string]Finding)
	}
	if err := r.say(ctx, r.registration.ID, report.Self); err != nil {
		return err
	}
	wanted := r.wanted(report)
	for id := range r.checks {
		if _, stays := wanted[id]; !stays {
			if err := r.endpoint.client.Agent().CheckDeregisterOpts(id, within(ctx)); err != nil {
				return fmt.Errorf("remove check %q: %v", id, cause(err))
			}
			delete(r.checks, id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if said, ok := r.checks[id]; ok && !all && said == wanted[id].Finding {
			continue
		}
		if err := r.sayMore(ctx, id, wanted[id]); err != nil {
			return err
		}
	}
	return nil
}

// check is one beside that which says that the balancer lives.
type check struct {
	name string
	Finding
}

// wanted are the checks of a report, by id.
func (r *Registrar) wanted(report Report) map[string]check {
	checks := make(map[string]check)
	for vip, f := range report.VIPs {
		checks[r.checkID(vip)] = check{"VIP " + vip.String(), f}
	}
	for vip, announced := range report.Announced {
		if announced {
			checks[r.registration.ID+announcesPart+vipText(vip)] = check{"announces " + vip.String(), Finding{Passing, "routers are told of the VIP"}}
		}
	}
	return checks
}

func (r *Registrar) register(ctx context.Context, self Finding, replace bool) error {
	c := r.registration
	check := &api.AgentServiceCheck{
		CheckID: c.ID, Name: "remora lives", TTL: c.TTL.String(), Status: string(self.Health),
	}
	if c.DeregisterAfter > 0 {
		check.DeregisterCriticalServiceAfter = c.DeregisterAfter.String()
	}
	err := r.endpoint.client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: c.ID, Name: c.Name, Address: c.Address, Port: c.Port, Tags: c.Tags, Meta: c.Meta, Check: check,
	}, api.ServiceRegisterOpts{ReplaceExistingChecks: replace}.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("register service %q: %v", c.Name, cause(err))
	}
	return nil
}

// sayMore reports a check, which it registers first if there is none yet.
func (r *Registrar) sayMore(ctx context.Context, id string, c check) error {
	if _, ok := r.checks[id]; !ok {
		err := r.endpoint.client.Agent().CheckRegisterOpts(&api.AgentCheckRegistration{
			ID: id, Name: c.name, ServiceID: r.registration.ID,
			AgentServiceCheck: api.AgentServiceCheck{TTL: r.registration.TTL.String(), Status: string(c.Health)},
		}, within(ctx))
		if err != nil {
			return fmt.Errorf("register check %q: %v", id, cause(err))
		}
	}
	r.checks[id] = c.Finding
	return r.say(ctx, id, c.Finding)
}

func (r *Registrar) say(ctx context.Context, check string, f Finding) error {
	if err := r.endpoint.client.Agent().UpdateTTLOpts(check, f.Text, string(f.Health), within(ctx)); err != nil {
		return fmt.Errorf("report check %q: %v", check, cause(err))
	}
	return nil
}

// within are the options of a request that ends with ctx.
func within(ctx context.Context) *api.QueryOptions { return new(api.QueryOptions).WithContext(ctx) }

// checkID is a VIP's check on the node.
func (r *Registrar) checkID(vip lb.VIP) string { return r.registration.ID + "-vip-" + vipText(vip) }

// deregister takes service and checks out of Consul. If registering failed last, the service may be
// there all the same; if it is not, that is no error.
func (r *Registrar) deregister() error {
	err := r.endpoint.client.Agent().ServiceDeregister(r.registration.ID)
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deregister service %q: %v", r.registration.Name, cause(err))
	}
	r.log.Info("deregistered from Consul", "service", r.registration.Name)
	return nil
}
