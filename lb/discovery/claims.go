// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// offerClaims settles who has which VIP by what all claimants say, and has the governor judge it.
// Answers are new ones; of services whose answer is not whole, what they claimed before stays.
func (d *Discovery) offerClaims(answers map[string]*consul.Answer, now time.Time) {
	if len(d.cfg.Consul.Claims) == 0 { // what there was goes with forget
		clear(d.claimed)
		clear(d.claiming)
		clear(d.catalogue)
		d.refuse(claimsKey, nil)
		return
	}
	vips, prefixes := fileVIPs(d.cfg)
	won, refused := consul.Resolve(d.catalogue, claimRules(d.cfg), d.reserved(),
		consul.Rules{Warning: consul.WarningWeight, VIPs: vips, VIPPrefixes: prefixes})
	list := make([]Refusal, 0, len(refused))
	for _, r := range refused {
		object := r.Claim
		if r.ID != (consul.ID{}) {
			object = r.ID.String() + " " + object
		}
		list = append(list, Refusal{Service: r.Service, Object: object, Reason: r.Reason})
	}
	d.refuse(claimsKey, list)
	claimed := make(map[string]consul.Claimed)
	for _, c := range won {
		claimed[c.Name] = c
		if d.mayOffer(c.Service) {
			d.offerWhole(c.Name, c.Verdicts, now)
		}
	}
	for name, c := range d.withoutClaim(claimed) {
		if d.mayOffer(c) { // it says so itself: the end of a service is judged like all else
			d.offerWhole(name, nil, now)
		}
	}
	for service, a := range answers {
		if a.Problem() != "" {
			d.offerClaimFault(service, a, now)
		}
	}
	d.claimed = claimed
}

// leftPrefix begins the names of watches of claimants; no service of the file has it.
const leftPrefix = "@"

// leftWatches are those of claimants that the reader may not read by itself: of which it does not know
// yet that they are there, or knows it no more. If they are gone, nobody else would ask for them; and
// while their end is held, somebody has to tell if Consul goes away.
func (d *Discovery) leftWatches(c *config.Config) []consul.Watch {
	if len(c.Consul.Claims) == 0 {
		return nil
	}
	var list []consul.Watch
	seen := make(map[string]bool)
	for _, s := range d.governor.Services() {
		if !claimedVIP(s.Service).Addr.IsValid() {
			continue
		}
		if name := claimant(s.Service); len(d.catalogue[name]) == 0 && !seen[name] {
			seen[name] = true
			list = append(list, consul.Watch{Name: leftPrefix + name, Service: name})
		}
	}
	return list
}

// watchLeft has the reader read them.
func (d *Discovery) watchLeft() {
	if slices.Equal(d.leftWatches(d.cfg), d.left) {
		return
	}
	if err := d.readThese(); err != nil {
		d.log.Error("watches not replaced", "source", ConsulSource, "error", err)
	}
}

// readLeft makes answers to those watches answers about claims.
func (d *Discovery) readLeft(n *news) {
	for name, a := range n.watched {
		service, left := strings.CutPrefix(name, leftPrefix)
		if !left {
			continue
		}
		delete(n.watched, name)
		asked := slices.ContainsFunc(d.left, func(w consul.Watch) bool { return w.Name == name })
		if asked && n.claiming[service] == nil {
			n.claiming[service] = a
		}
	}
}

// mayOffer tells whether the latest answer about a service of Consul that may claim was whole.
func (d *Discovery) mayOffer(service string) bool {
	a := d.claiming[service]
	return a != nil && a.Problem() == ""
}

// withoutClaim are the services that had a VIP by a claim and have none now, with their names in
// Consul.
func (d *Discovery) withoutClaim(claimed map[string]consul.Claimed) map[string]string {
	gone := make(map[string]string)
	for _, s := range d.governor.Services() {
		if _, still := claimed[s.Service]; !still && claimedVIP(s.Service).Addr.IsValid() {
			gone[s.Service] = claimant(s.Service)
		}
	}
	return gone
}

// claimant is the name in Consul of a service that has a VIP by its claim.
func claimant(name string) string { return name[:strings.LastIndexByte(name, '@')] }

func (d *Discovery) offerClaimFault(service string, a *consul.Answer, now time.Time) {
	for _, s := range d.governor.Services() {
		if claimedVIP(s.Service).Addr.IsValid() && claimant(s.Service) == service {
			d.offerFault(s.Service, a, now)
		}
	}
}

// reserved are the VIPs that cannot be claimed: the file's, and those of claimants of which no whole
// answer has come since the start or since there is another reader. The order in which answers come must
// not matter.
func (d *Discovery) reserved() map[lb.VIP]string {
	owners := make(map[lb.VIP]string)
	for _, s := range d.governor.Services() {
		vip := claimedVIP(s.Service)
		if !vip.Addr.IsValid() {
			continue
		}
		if _, heard := d.catalogue[claimant(s.Service)]; !heard {
			owners[vip] = s.Service
		}
	}
	for _, s := range d.cfg.Services {
		for _, v := range s.VIPs {
			owners[v.VIP] = s.Name
		}
	}
	return owners
}

// claimedServices are the services that have their VIPs by claims: as long as the governor keeps
// backends of theirs. Of two with one VIP, the one that has the claim now counts.
func (d *Discovery) claimedServices() []lb.Service {
	var names []string
	for name := range d.backends {
		if claimedVIP(name).Addr.IsValid() {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		_, first := d.claimed[a]
		_, second := d.claimed[b]
		if first != second && first {
			return -1
		} else if first != second {
			return 1
		}
		return cmp.Compare(a, b)
	})
	taken := make(map[lb.VIP]bool)
	var services []lb.Service
	for _, name := range names {
		vip := claimedVIP(name)
		if !taken[vip] {
			taken[vip] = true
			services = append(services, lb.Service{Name: name, VIPs: []lb.ServiceVIP{claimedServiceVIP(d.cfg, vip)}})
		}
	}
	return services
}

// claimedServiceVIP is how a claimed VIP is balanced.
func claimedServiceVIP(c *config.Config, vip lb.VIP) lb.ServiceVIP {
	v := c.Consul.TCP
	if vip.Protocol == lb.UDP {
		v = c.Consul.UDP
	}
	v.VIP = vip
	return v
}

// dropEmptyClaims forgets services that have no claim and no backends any more.
func (d *Discovery) dropEmptyClaims(now time.Time) {
	var names []string
	all := d.governor.Services()
	for _, s := range all {
		_, claims := d.claimed[s.Service]
		if claims || len(s.Backends) > 0 || s.Held > 0 || !claimedVIP(s.Service).Addr.IsValid() {
			names = append(names, s.Service)
		}
	}
	if len(names) < len(all) {
		d.note(d.governor.Retain(ConsulSource, names, now))
	}
}

// mayStay tells whether a service may have its VIP by a claim, by the present configuration.
func (d *Discovery) mayStay(name string, vip lb.VIP) bool {
	if d.fileHas(vip) {
		return false
	}
	one := consul.Catalogue{claimant(name): {{Service: consul.Service{Tags: []string{"remora.vip=" + vip.String()}}}}}
	won, _ := consul.Resolve(one, claimRules(d.cfg), nil, consul.Rules{})
	return len(won) > 0
}

func (d *Discovery) fileHas(vip lb.VIP) bool {
	return slices.ContainsFunc(d.cfg.Services, func(s lb.Service) bool {
		return slices.ContainsFunc(s.VIPs, func(v lb.ServiceVIP) bool { return v.VIP == vip })
	})
}
