// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

// MapFill is how full a map is, in the entries that it is for.
type MapFill struct {
	// Name is as in docs/architecture.md.
	Name           string
	Used, Capacity int
}

// fills are those of the maps that have something of what is configured or remembered. Of VIP tables only
// one half is in use. Gaps between rings count as free.
func (s *Snapshot) fills(g *generation) []MapFill {
	vips4, vips6, words, prefixes := 0, 0, 0, 0
	for _, v := range s.VIPs {
		switch {
		case v.VIP.IsPrefix():
			prefixes++
		case v.VIP.Addr.Is4():
			vips4++
		default:
			vips6++
		}
		words += 1 + int(v.Ring.Size)
	}
	return []MapFill{
		{"flows", s.Flows, s.FlowCapacity},
		{"reals", len(s.Reals), len(g.reals.elems) - 1}, // id 0 is no real
		{"rings", words, len(g.rings.elems)},
		{"source_routes", s.SourceRoutes, g.capacity("source_routes")},
		{"targets", s.Targets, g.capacity("targets")},
		{"vip_infos", len(s.VIPs), int(g.maps["vip_infos"].MaxEntries())},
		{"vip_prefixes", prefixes, g.capacity("vip_prefixes")},
		{"vips4", vips4, len(g.vips4.elems) / 2 * vip4PerBucket},
		{"vips6", vips6, len(g.vips6.elems) / 2 * vip6PerBucket},
	}
}
