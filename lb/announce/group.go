// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// group is a prefix and the VIPs within it, in their order.
type group struct {
	prefix netip.Prefix
	share  Share
	vips   []lb.VIP
}

// decision is whether and how a prefix is announced, and if not, why.
type decision struct {
	announced bool
	class     Class
	reason    string
}

// or is the decision for a VIP of two prefixes: one that is announced counts.
func (d decision) or(e decision) decision {
	if d.announced || (!e.announced && d.reason != "") {
		return d
	}
	return e
}

// groups are the prefixes that could be announced, in their order.
func (m *Machine) groups(in Inputs) []group {
	byPrefix := make(map[netip.Prefix]*group)
	add := func(prefix netip.Prefix, share Share, v lb.VIP) {
		g := byPrefix[prefix]
		if g == nil {
			g = &group{prefix: prefix, share: share}
			byPrefix[prefix] = g
		}
		g.vips = append(g.vips, v)
	}
	for key := range m.vips {
		a, within := m.aggregate(key.Prefix())
		if within {
			add(a.Prefix, a.Share, key)
		}
		if !within || a.Hosts {
			add(key.Prefix(), m.cfg.Share, key)
		}
	}
	groups := make([]group, 0, len(byPrefix))
	for _, g := range byPrefix {
		slices.SortFunc(g.vips, lb.VIP.Compare)
		g.vips = onlyConfigured(g.vips, in)
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, compareGroups)
	return groups
}

// onlyConfigured leaves out VIPs that are on their way out for good, unless there are no others:
// one that is removed must not take its neighbours with it.
func onlyConfigured(vips []lb.VIP, in Inputs) []lb.VIP {
	configured := slices.DeleteFunc(slices.Clone(vips), func(v lb.VIP) bool {
		_, ok := in.VIPs[v]
		return !ok
	})
	if len(configured) == 0 {
		return vips
	}
	return configured
}

// aggregate is the one that holds all of a VIP's addresses; they do not overlap.
func (m *Machine) aggregate(p netip.Prefix) (Aggregate, bool) {
	for _, agg := range m.cfg.Aggregates {
		if agg.Prefix.Contains(p.Addr()) && agg.Prefix.Bits() <= p.Bits() {
			return agg, true
		}
	}
	return Aggregate{}, false
}

// decide combines the VIPs of a prefix.
func (m *Machine) decide(g group) decision {
	var asking []Class
	var holding []lb.VIP
	for _, key := range g.vips {
		v := m.vips[key]
		switch {
		case v.announced():
			asking = append(asking, v.class())
		case m.joins(g.prefix, v):
		default:
			holding = append(holding, key)
		}
	}
	if len(asking) == 0 {
		return decision{reason: "no VIP of it can be served"}
	}
	if g.share == ShareAny {
		return decision{announced: true, class: slices.Min(asking)}
	}
	if len(holding) > 0 {
		first := holding[0]
		reason := fmt.Sprintf("%v is not announced because %v shares it: %s", g.prefix, first, m.vips[first].cause.text)
		return decision{reason: reason}
	}
	return decision{announced: true, class: slices.Max(asking)}
}

// joins tells whether a VIP is new in a prefix that is announced: it has not been served before,
// so it does not take those with it that are.
func (m *Machine) joins(prefix netip.Prefix, v *vip) bool {
	return v.state == Waiting && !v.served && m.announced[prefix]
}
