// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/lb/governor"
)

// definitionsKey is the part of what cannot be used that is about service definitions.
const definitionsKey = "definitions in Consul"

// definition is a service that a key of the key-value store defines. It is not changed.
type definition struct {
	*config.Definition
	// checks are nil if its backends are not checked.
	checks Checks
	// key and text are what it was read from, file is the configuration by which it was read.
	key, text string
	file      *config.Config
	// gone tells that the key is there no more, or defines another service: this one stays until its
	// backends may go.
	gone bool
}

// readDefinitions takes in the folder of definitions. Of one that cannot be read, or not all of it, the
// last reading counts.
func (d *Discovery) readDefinitions(p *consul.Pairs, now time.Time) {
	if rule := d.file.Consul.Definitions; rule == nil || p.Prefix != rule.Folder {
		return
	}
	if problem := p.Problem(); problem != "" {
		d.refuse(definitionsKey, []Refusal{{Object: p.Prefix, Reason: problem + "; the definitions that are known stay"}})
		for _, name := range d.definedNames() {
			if def := d.defined[name]; def.gone || def.Source == nil { // nobody else tells of these
				d.note(d.governor.Offer(governor.Offer{Source: ConsulSource, Service: name, At: now, Fault: fault(p.Facts, p.Err), Detail: problem}))
			}
		}
		return
	}
	d.texts, d.definitionsHeard = make(map[string]string, len(p.Pairs)), true
	for _, pair := range p.Pairs {
		d.texts[pair.Key] = string(pair.Value)
	}
	d.define(now)
}

// define makes the services of what is known of the folder and of those that are going. A definition
// that cannot be used is left out as a whole; one that the key had before stays in its place.
func (d *Discovery) define(now time.Time) {
	if d.file.Consul.Definitions == nil {
		d.texts, d.definitionsHeard = nil, false
	}
	next := make(map[string]*definition)
	var refused []Refusal
	for _, key := range slices.Sorted(maps.Keys(d.texts)) {
		def, err := d.readDefinition(key, d.texts[key])
		if err == nil {
			err = fits(def, next)
		}
		if err == nil {
			next[def.Service.Name] = def
			continue
		}
		reason := err.Error()
		if was := d.definitionOf(key); was != nil && d.keep(was, next, false) {
			reason += "; the definition before it stays"
		}
		refused = append(refused, Refusal{Object: key, Reason: reason})
	}
	for _, name := range d.definedNames() {
		d.keep(d.defined[name], next, true)
	}
	d.refuse(definitionsKey, refused)
	dropped := make(map[string]bool)
	for name := range d.defined {
		dropped[name] = next[name] == nil
	}
	d.defined = next
	d.merge()
	d.forgetThese(dropped, now)
	if err := d.readThese(); err != nil {
		d.log.Error("watches not replaced", "source", ConsulSource, "error", err)
	}
	d.offerDefined(now)
	d.changed, d.unsaved = true, true
}

// readDefinition reads one, unless that has been done.
func (d *Discovery) readDefinition(key, text string) (*definition, error) {
	if was := d.definitionOf(key); was != nil && was.text == text && was.file == d.file && !was.gone {
		return was, nil
	}
	read, err := d.file.Define(key, []byte(text))
	if err != nil {
		return nil, err
	}
	def := &definition{Definition: read, key: key, text: text, file: d.file}
	if read.Health != nil && d.prepareChecks != nil {
		checks, err := d.prepareChecks(*read.Health)
		if err != nil {
			return nil, fmt.Errorf("health checks: %v", err)
		}
		def.checks = checks
	}
	return def, nil
}

// definitionOf is what a key defines; nil if it defines nothing.
func (d *Discovery) definitionOf(key string) *definition {
	for _, def := range d.defined {
		if def.key == key && !def.gone {
			return def
		}
	}
	return nil
}

// keep has a definition that was in force stay so, and tells whether it may: the file may say otherwise
// now, and what is defined anew goes before it.
func (d *Discovery) keep(was *definition, next map[string]*definition, gone bool) bool {
	if next[was.Service.Name] != nil {
		return false
	}
	def, err := was, error(nil)
	if was.file != d.file {
		if def, err = d.readDefinition(was.key, was.text); err != nil {
			return false
		}
	}
	if fits(def, next) != nil {
		return false
	}
	kept := *def
	kept.gone = gone
	next[kept.Service.Name] = &kept
	return true
}

// fits returns an error if a definition and others cannot both be.
func fits(def *definition, others map[string]*definition) error {
	if other := others[def.Service.Name]; other != nil {
		return fmt.Errorf("service %q is defined by %q, too", def.Service.Name, other.key)
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		other := others[name]
		if err := errors.Join(apart(def, other), backendsApart(def, other), backendsApart(other, def)); err != nil {
			return err
		}
	}
	return nil
}

// apart returns an error if both have one VIP.
func apart(a, b *definition) error {
	for _, v := range a.Service.VIPs {
		if hasVIP(b, func(w lb.VIP) bool { return w == v.VIP }) {
			return fmt.Errorf("VIP %s is that of service %q, which %q defines", v.VIP, b.Service.Name, b.key)
		}
	}
	return nil
}

// backendsApart returns an error if packets to a backend of a would come back to a balancer.
func backendsApart(a, b *definition) error {
	for _, backend := range a.Backends {
		if hasVIP(b, func(w lb.VIP) bool { return w.Prefix().Contains(backend.Addr) }) {
			return fmt.Errorf("backend %s of service %q is an address of a VIP of service %q", backend.Addr, a.Service.Name, b.Service.Name)
		}
	}
	return nil
}

func hasVIP(def *definition, is func(lb.VIP) bool) bool {
	return slices.ContainsFunc(def.Service.VIPs, func(v lb.ServiceVIP) bool { return is(v.VIP) })
}

func (d *Discovery) definedNames() []string { return slices.Sorted(maps.Keys(d.defined)) }

// merge makes the configuration of the file and of what is defined beside it.
func (d *Discovery) merge() {
	c := *d.file
	c.Services, c.Sources = slices.Clone(c.Services), maps.Clone(c.Sources)
	for _, name := range d.definedNames() {
		def := d.defined[name]
		c.Services = append(c.Services, def.Service)
		if def.Source != nil && !def.gone {
			c.Sources[name] = *def.Source
		}
	}
	d.cfg, d.rules = &c, ConsulRules(&c)
}

// offerDefined has the governor judge the backends of definitions, and the end of those that are gone.
func (d *Discovery) offerDefined(now time.Time) {
	for _, name := range d.definedNames() {
		def := d.defined[name]
		if def.Source != nil && !def.gone {
			if a := d.answers[name]; a != nil && a.Service == def.Source.Service && a.Problem() == "" {
				d.offer(name, now)
			}
			continue
		}
		delete(d.answers, name) // what was read of it counts no more
		o := governor.Offer{Source: ConsulSource, Service: name, At: now, Complete: true}
		if !def.gone {
			for _, b := range def.Backends {
				o.Backends = append(o.Backends, governor.Backend{Backend: b})
			}
		}
		d.note(d.governor.Offer(o))
	}
}

// dropDefinitions forgets those that are gone and whose backends are, too.
func (d *Discovery) dropDefinitions(now time.Time) {
	dropped := make(map[string]bool)
	for name, def := range d.defined {
		s, known := d.governor.Service(governor.Key{Source: ConsulSource, Service: name})
		if def.gone && (!known || len(s.Backends) == 0 && s.Held == 0) {
			dropped[name] = true
			delete(d.defined, name)
		}
	}
	if len(dropped) > 0 {
		d.merge()
		d.forgetThese(dropped, now)
		d.unsaved = true
	}
}

// forgetThese has the governor forget services, but none that the file names.
func (d *Discovery) forgetThese(these map[string]bool, now time.Time) {
	var names []string
	for _, s := range d.governor.Services() {
		if _, named := d.file.Sources[s.Service]; named || !these[s.Service] {
			names = append(names, s.Service)
			continue
		}
		delete(d.answers, s.Service)
		delete(d.refused, s.Service)
	}
	d.note(d.governor.Retain(ConsulSource, names, now))
}

// definedServices are the services that are defined, and their checks: nil for those without.
func (d *Discovery) definedServices() (services []lb.Service, checks map[string]Checks) {
	checks = make(map[string]Checks)
	for _, name := range d.definedNames() {
		services = append(services, d.defined[name].Service)
		checks[name] = d.defined[name].checks
	}
	return services, checks
}

// definedTexts are the definitions in force, by key, for the next run.
func (d *Discovery) definedTexts() map[string]string {
	texts := make(map[string]string)
	for _, def := range d.defined {
		texts[def.key] = def.text
	}
	return texts
}

// definedLeaves are what is configured for VIPs that are defined in Consul.
func (d *Discovery) definedLeaves() map[lb.VIP]lb.Leave {
	leaves := make(map[lb.VIP]lb.Leave)
	for _, def := range d.defined {
		for _, v := range def.Service.VIPs {
			leaves[v.VIP] = v.Leave
		}
	}
	return leaves
}
