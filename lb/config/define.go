// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"path"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Definition is a service that is defined outside the file.
type Definition struct {
	Service lb.Service
	// Backends are its own; Source, if not nil, says where they come from instead.
	Backends []lb.Backend
	Source   *ConsulSource
	// Health, if not nil, says how they are checked.
	Health *Health
}

// Define reads a service section as the file's list services has it, with the file's defaults. It must
// not contradict the file, and be allowed by Consul.Definitions. The name stands for the text in the
// error, which is about the text alone. The configuration must come from Parse or Load.
func (c *Config) Define(name string, data []byte) (*Definition, error) {
	r := &report{file: name}
	root := parseTree(data, r)
	if root == nil {
		return nil, r.sorted()
	}
	d := &decoder{report: r, left: len(data) + aliasBudget}
	section := d.service(d.node(place{}, root))
	if len(r.problems) > 0 || !section.ok || d.spent {
		return nil, r.sorted()
	}
	doc := *c.doc
	doc.services.items = append(slices.Clone(doc.services.items), section)
	whole := validate(doc, r)
	if len(r.problems) > 0 {
		return nil, r.sorted()
	}
	return c.allow(whole)
}

// allow picks the last service of a configuration, if it may be defined.
func (c *Config) allow(whole *Config) (*Definition, error) {
	s := whole.Services[len(whole.Services)-1]
	rule := c.Consul.Definitions
	if rule == nil {
		return nil, fmt.Errorf("the file lets no service be defined")
	}
	named := func(pattern string) bool { ok, err := path.Match(pattern, s.Name); return ok && err == nil }
	if !slices.ContainsFunc(rule.Services, named) {
		return nil, fmt.Errorf("service %s may not be defined: it is none of consul.definitions.services", quote(s.Name))
	}
	for _, v := range s.VIPs {
		holds := func(p netip.Prefix) bool { return p.Contains(v.VIP.Addr) && p.Bits() <= v.VIP.Prefix().Bits() }
		if !slices.ContainsFunc(rule.Prefixes, holds) {
			return nil, fmt.Errorf("VIP %s is in none of consul.definitions.prefixes", v.VIP)
		}
	}
	d := &Definition{Service: s, Backends: whole.Backends[s.Name]}
	if source, ok := whole.Sources[s.Name]; ok {
		d.Source = &source
	}
	if health, ok := whole.Health[s.Name]; ok {
		d.Health = &health
	}
	return d, nil
}
