// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Routes are prefixes of VIPs that BGP would begin or cease to announce, as far as VIPs and backends
// decide: a prefix has a VIP with a backend that gets new connections. Health, routers and the fleet are
// not foreseen.
type Routes struct {
	Announce []netip.Prefix `json:"announce"`
	Withdraw []netip.Prefix `json:"withdraw"`
}

// Routes compares the prefixes before and after.
func (p *Plan) Routes(have Present) Routes {
	before, after := make(map[netip.Prefix]bool), make(map[netip.Prefix]bool)
	for _, r := range have.Reals {
		if r.Use == lb.RealActive {
			before[r.VIP.Prefix()] = true
		}
	}
	for _, v := range p.VIPs {
		if v.Change != Removed && v.Active > 0 {
			after[v.VIP.Prefix()] = true
		}
	}
	return Routes{Announce: without(after, before), Withdraw: without(before, after)}
}

// without are the prefixes of a that b lacks, in order.
func without(a, b map[netip.Prefix]bool) []netip.Prefix {
	list := []netip.Prefix{}
	for p := range a {
		if !b[p] {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return list
}
