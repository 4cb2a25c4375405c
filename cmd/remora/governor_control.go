// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/governor"
)

// Held implements control.Daemon.
func (d *daemon) Held(context.Context) (control.Held, error) {
	j := d.discovery.State()
	var h control.Held
	for _, one := range j.Held {
		h.Holds = append(h.Holds, control.Hold{
			Source: one.Source, Service: one.Service, Rule: one.Rule.String(), Object: one.Object,
			Since: one.Since, Until: one.Until, Release: one.Release, Sentence: one.Sentence,
		})
	}
	for _, r := range j.Refused {
		h.Refusals = append(h.Refusals, control.Refusal{Source: discovery.ConsulSource, Service: r.Service, Object: r.Object, Reason: r.Reason})
	}
	for rule, held := range j.Counters.Held {
		if held > 0 {
			h.Rules = append(h.Rules, control.RuleCount{Rule: governor.Rule(rule).String(), Held: held})
		}
	}
	return h, nil
}

// governedService is the service that is meant by its name or by one of its VIPs.
func (d *daemon) governedService(name string) (string, error) {
	if vip, err := lb.ParseVIP(name); err == nil {
		for _, s := range d.engine.Status().Services {
			for _, v := range s.VIPs {
				if v.VIP == vip {
					name = s.Name
				}
			}
		}
	}
	services := d.discovery.State().Services
	if slices.ContainsFunc(services, func(s governor.Service) bool { return s.Service == name }) {
		return name, nil
	}
	cure := "no service has its backends from a dynamic source"
	if len(services) > 0 {
		cure = "those with backends of a dynamic source:"
		for _, s := range services {
			cure += " " + s.Service
		}
	}
	return "", &control.Error{Code: control.CodeNotFound, Object: name,
		Problem: fmt.Sprintf("no dynamic source has a service %q", name), Cure: cure}
}

// Freeze implements control.Daemon.
func (d *daemon) Freeze(ctx context.Context, f control.Freeze) (service string, until time.Time, err error) {
	if service, err = d.governedService(f.Service); err != nil {
		return "", time.Time{}, err
	}
	until, err = d.discovery.Freeze(ctx, service, f.Author, f.Reason, f.Duration)
	return service, until, refusedCall(ctx, service, err)
}

// Unfreeze implements control.Daemon.
func (d *daemon) Unfreeze(ctx context.Context, name string) (service string, err error) {
	if service, err = d.governedService(name); err != nil {
		return "", err
	}
	return service, refusedCall(ctx, service, d.discovery.Unfreeze(ctx, service))
}

// Accept implements control.Daemon.
func (d *daemon) Accept(ctx context.Context, name string) (service string, changes int, err error) {
	if service, err = d.governedService(name); err != nil {
		return "", 0, err
	}
	changes, err = d.discovery.Accept(ctx, service)
	return service, changes, refusedCall(ctx, service, err)
}

// refusedCall is the answer to a call that the governor refused.
func refusedCall(ctx context.Context, service string, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return &control.Error{Code: control.CodeRefused, Object: service, Problem: err.Error()}
}
