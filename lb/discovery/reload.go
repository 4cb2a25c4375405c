// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// Replace makes c the configuration: what it reads is read from now on, and services that had their
// backends in the file keep them until Consul has answered. What it no longer names stays until
// Retain. It fails if c cannot be used; then nothing changes.
func (d *Discovery) Replace(ctx context.Context, old, c *config.Config) error {
	renew := !reflect.DeepEqual(reading(old.Consul), reading(c.Consul)) || old.ReadsConsul() != c.ReadsConsul()
	return d.ask(ctx, func() error {
		source, err := d.newReader(c) // also to see whether it can be
		if err != nil {
			return err
		}
		d.setConfig(c)
		if renew { // what it says of claims is not known before it has said it
			d.source, d.fresh = source, true
			clear(d.claiming)
			clear(d.catalogue)
		}
		if err := d.readThese(); err != nil {
			return err
		}
		now := time.Now()
		d.define(now) // by the new file
		d.seed(old, now)
		if c.Consul.Overlay == "" {
			d.refuse(overlayKey, nil)
			d.setOverlay(nil, now)
		}
		d.again(now) // by the new rules
		return nil
	})
}

// readThese tells the reader what to read.
func (d *Discovery) readThese() error {
	d.left = d.leftWatches(d.cfg)
	if d.source == nil {
		return nil
	}
	return d.source.Replace(append(watches(d.cfg), d.left...), claimRules(d.cfg))
}

// reading is what a reader is made with and keeps.
func reading(c config.Consul) config.Consul {
	c.Claims, c.TCP, c.UDP, c.Register, c.DrainLimit = nil, lb.ServiceVIP{}, lb.ServiceVIP{}, nil, nil
	if c.Definitions != nil {
		c.Definitions = &config.ConsulDefinitions{Folder: c.Definitions.Folder}
	}
	return c
}

// seed makes what the file had the last known good of services that it has from Consul now.
func (d *Discovery) seed(old *config.Config, now time.Time) {
	for name := range d.cfg.Sources {
		list := old.Backends[name]
		if _, known := d.governor.Service(governor.Key{Source: ConsulSource, Service: name}); known || len(list) == 0 {
			continue
		}
		o := governor.Offer{Source: ConsulSource, Service: name, At: now, Complete: true}
		for _, b := range list {
			o.Backends = append(o.Backends, governor.Backend{Backend: b})
		}
		d.note(d.governor.Offer(o))
	}
}

// Retain has what the configuration no longer names forgotten. It does not block.
func (d *Discovery) Retain() {
	select {
	case d.settled <- struct{}{}:
	default:
	}
}

// forget forgets what the configuration no longer names.
func (d *Discovery) forget(now time.Time) {
	names := append(slices.Collect(maps.Keys(d.cfg.Sources)), d.definedNames()...)
	for _, s := range d.governor.Services() {
		if vip := claimedVIP(s.Service); vip.Addr.IsValid() && d.mayStay(s.Service, vip) {
			names = append(names, s.Service)
		}
	}
	d.note(d.governor.Retain(ConsulSource, names, now))
	maps.DeleteFunc(d.answers, func(name string, _ *consul.Answer) bool { return !slices.Contains(names, name) })
	maps.DeleteFunc(d.refused, func(by string, _ []Refusal) bool {
		return by != overlayKey && by != claimsKey && by != definitionsKey && !slices.Contains(names, by)
	})
}

// ask has the goroutine of Run do something, and returns what came of it.
func (d *Discovery) ask(ctx context.Context, do func() error) error {
	result := make(chan error, 1)
	select {
	case d.asked <- func() { err := do(); d.finish(); result <- err }:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
