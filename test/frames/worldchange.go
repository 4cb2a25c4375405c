// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// comeBack brings a VIP back that is gone, as it was at first, but with what becomes of fragments now.
func (g *Generator) comeBack(t *model.Tables, name lb.VIP) Change {
	vip := g.world.VIPs[name]
	for other, of := range t.VIPs {
		if sameFragments(name, other) {
			vip.Options.Fragments = of.Options.Fragments
		}
	}
	return Change{VIPs: map[lb.VIP]model.VIP{name: vip}}
}

// sameFragments tells whether two VIPs must agree about what becomes of fragments.
func sameFragments(a, b lb.VIP) bool {
	return !a.IsPrefix() && !b.IsPrefix() && a.Addr == b.Addr && a.Protocol == b.Protocol
}

// changeOptions changes what options a VIP has, or what they lead to, or takes the VIP away.
func (g *Generator) changeOptions(t *model.Tables, name lb.VIP) Change {
	vip, ids := t.VIPs[name], []lb.RealID{}
	for _, r := range realsOf(t, name) {
		ids = append(ids, r.ID)
	}
	switch g.rng.IntN(7) {
	case 0:
		return Change{Gone: []lb.VIP{name}}
	case 1:
		return Change{SourceRoutes: anySourceRoutes(g.rng)}
	case 2:
		if vip.Options.Fragments != lb.FragmentsByClient {
			return g.changeFragments(t, name)
		}
	case 3:
		vip.Servers = anyServers(g.rng, ids)
	case 4:
		vip.Routes = anyRoutes(g.rng, ids)
	default:
		vip.Options = anyOptions(g.rng, name, vip.Options.Fragments)
	}
	return Change{VIPs: map[lb.VIP]model.VIP{name: vip}}
}

// changeFragments lets the fragments of all VIPs that have to agree pass, or drop.
func (g *Generator) changeFragments(t *model.Tables, name lb.VIP) Change {
	c := Change{VIPs: map[lb.VIP]model.VIP{}}
	fragments := pick(g, []lb.Fragments{lb.FragmentsDrop, lb.FragmentsPass})
	for other, vip := range t.VIPs {
		if other == name || sameFragments(name, other) {
			vip.Options.Fragments = fragments
			c.VIPs[other] = vip
		}
	}
	return c
}
