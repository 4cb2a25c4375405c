// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// Catalogue has the instances of services by their names in Consul.
type Catalogue map[string][]Instance

// Claimed is a VIP that a service has by its claim.
type Claimed struct {
	// Name is a name for the service of this VIP, the same on every balancer: SERVICE@VIP.
	Name    string
	Service string
	VIP     lb.VIP
	// Verdicts are those of the instances that claim the VIP.
	Verdicts []Verdict
}

// RefusedClaim is a claim that came to nothing.
type RefusedClaim struct {
	Service string
	// ID is the instance; zero if it is about all of the service's.
	ID ID
	// Claim is the VIP, or the text that is none.
	Claim  string
	Reason string
}

// Resolve tells which service has which VIP by its claims. A VIP of the operator's file, in
// reserved with its service's name, cannot be claimed. Where several services claim one VIP, the
// one that an earlier rule allows has it, then the one whose name is less: so the winner stays the
// same while instances come and go. Both results are ordered; the order of what comes in does not
// matter. Ports of r are set by the VIPs, and its VIPs are completed by those that are claimed.
func Resolve(c Catalogue, rules []ClaimRule, reserved map[lb.VIP]string, r Rules) ([]Claimed, []RefusedClaim) {
	g := claims{rules: rules, reserved: reserved, by: make(map[lb.VIP]map[string]*claimant)}
	for service, instances := range c {
		for i := range instances {
			g.add(service, &instances[i])
		}
	}
	won := g.award()
	r.VIPs = maps.Clone(r.VIPs)
	if r.VIPs == nil {
		r.VIPs = make(map[netip.Addr]bool)
	}
	for _, w := range won {
		r.VIPs[w.vip.Addr] = true
	}
	result := make([]Claimed, 0, len(won))
	for _, w := range won {
		r.Ports = []uint16{w.vip.Port}
		result = append(result, Claimed{
			Name: w.service + "@" + w.vip.String(), Service: w.service, VIP: w.vip, Verdicts: JudgeAll(w.instances, r),
		})
	}
	slices.SortFunc(g.refused, compareRefused)
	return result, slices.Compact(g.refused)
}

// claims gathers who claims what.
type claims struct {
	rules    []ClaimRule
	reserved map[lb.VIP]string
	by       map[lb.VIP]map[string]*claimant
	refused  []RefusedClaim
}

// claimant is one service that claims one VIP, with the rule that allows it.
type claimant struct {
	vip       lb.VIP
	service   string
	rule      int
	instances []Instance
}

// add gathers the claims of an instance.
func (g *claims) add(service string, i *Instance) {
	text, ok := i.label(keyVIP)
	if !ok {
		return
	}
	seen := make(map[lb.VIP]bool)
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		vip, err := i.claimedVIP(part)
		rule := 0
		if err == nil {
			rule, err = g.allow(service, vip)
		}
		if err != nil {
			g.refused = append(g.refused, RefusedClaim{service, i.ID(), part, err.Error()})
			continue
		}
		if !seen[vip] {
			g.note(service, vip, rule, i)
		}
		seen[vip] = true
	}
}

func (g *claims) note(service string, vip lb.VIP, rule int, i *Instance) {
	if g.by[vip] == nil {
		g.by[vip] = make(map[string]*claimant)
	}
	c := g.by[vip][service]
	if c == nil {
		c = &claimant{vip: vip, service: service, rule: rule}
		g.by[vip][service] = c
	}
	c.instances = append(c.instances, *i)
}

// claimedVIP reads a claim: a whole VIP, or an address that port and protocol are said beside.
func (i *Instance) claimedVIP(text string) (lb.VIP, error) {
	if !strings.Contains(text, "/") {
		port, ok := i.label(keyPort)
		if !ok {
			port = strconv.Itoa(i.Service.Port)
		}
		protocol, ok := i.label(keyProtocol)
		if !ok {
			protocol = lb.TCP.String()
		}
		if strings.Contains(text, ":") && !strings.HasPrefix(text, "[") {
			text = "[" + text + "]"
		}
		text += ":" + port + "/" + protocol
	}
	vip, err := lb.ParseVIP(text)
	if err == nil && vip.Port == 0 {
		err = errors.New("a claim of all ports is not allowed: name one")
	}
	return vip, err
}

// allow finds the first rule that lets a service have a VIP.
func (g *claims) allow(service string, vip lb.VIP) (rule int, err error) {
	if owner, ok := g.reserved[vip]; ok {
		return 0, fmt.Errorf("the VIP is that of service %s in the file", quote(owner))
	}
	named := false
	for n, r := range g.rules {
		if !r.matches(service) {
			continue
		}
		named = true
		if slices.ContainsFunc(r.Prefixes, func(p netip.Prefix) bool { return p.Contains(vip.Addr) }) {
			return n, nil
		}
	}
	if !named {
		return 0, errors.New("no rule lets the service claim VIPs")
	}
	return 0, fmt.Errorf("address %s is in no prefix that the service may claim", vip.Addr)
}

func (r ClaimRule) matches(service string) bool {
	return slices.ContainsFunc(r.Services, func(pattern string) bool {
		ok, err := path.Match(pattern, service)
		return ok && err == nil
	})
}

// award picks the winner of each VIP, ordered by VIP, and reports the others.
func (g *claims) award() []*claimant {
	var won []*claimant
	for _, vip := range slices.SortedFunc(maps.Keys(g.by), lb.VIP.Compare) {
		order := slices.SortedFunc(maps.Values(g.by[vip]), func(a, b *claimant) int {
			return cmp.Or(cmp.Compare(a.rule, b.rule), strings.Compare(a.service, b.service))
		})
		won = append(won, order[0])
		for _, loser := range order[1:] {
			reason := fmt.Sprintf("service %s claims it, too, and goes before", quote(order[0].service))
			g.refused = append(g.refused, RefusedClaim{Service: loser.service, Claim: vip.String(), Reason: reason})
		}
	}
	return won
}

func compareRefused(a, b RefusedClaim) int {
	return cmp.Or(strings.Compare(a.Service, b.Service), a.ID.Compare(b.ID), strings.Compare(a.Claim, b.Claim), strings.Compare(a.Reason, b.Reason))
}
