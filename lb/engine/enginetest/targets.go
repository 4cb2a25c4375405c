// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// target is what leads to a real beside a ring: a server's number, or a backend of source routes.
type target struct {
	ring     lb.RingID
	serverID uint32
	backend  netip.Addr
}

func (t target) compare(u target) int {
	return cmp.Or(cmp.Compare(t.ring, u.ring), cmp.Compare(t.serverID, u.serverID), t.backend.Compare(u.backend))
}

// SetTargets implements engine.Dataplane. Failing, it has taken some of the old targets away, or written
// some of the new ones.
func (d *Dataplane) SetTargets(servers []lb.ServerTarget, routes []lb.RouteTarget) error {
	err := d.begin("SetTargets", fmt.Sprintf(" %d %d", len(servers), len(routes)))
	defer d.end()
	want := make(map[target]lb.RealID)
	add := func(t target, id lb.RealID) {
		if _, twice := want[t]; twice || id == 0 {
			d.tb.Errorf("target %+v is set to real %d, twice: %t", t, id, twice)
		}
		want[t] = id
	}
	for _, s := range servers {
		add(target{ring: s.Ring, serverID: s.ServerID}, s.Real)
	}
	for _, r := range routes {
		add(target{ring: r.Ring, backend: r.Backend}, r.Real)
	}
	d.writes += replace(d.targets, want, target.compare, func(n int) int { return d.part(n, err) })
	return err
}

// SetSourceRoutes implements engine.Dataplane. Failing, it has written a part.
func (d *Dataplane) SetSourceRoutes(routes []lb.SourceRoute) error {
	err := d.begin("SetSourceRoutes", fmt.Sprintf(" %d", len(routes)))
	defer d.end()
	want := make(map[netip.Prefix]netip.Addr)
	for _, r := range routes {
		want[r.Prefix] = r.Backend
	}
	d.writes += replace(d.routes, want, netip.Prefix.Compare, func(n int) int { return d.part(n, err) })
	return err
}

// replace makes have equal to want: what is gone goes first. Of all the changes it does part, and returns
// how many that were.
func replace[K comparable, V comparable](have, want map[K]V, compare func(a, b K) int, part func(int) int) int {
	var gone, fresh []K
	for k := range have {
		if _, ok := want[k]; !ok {
			gone = append(gone, k)
		}
	}
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			fresh = append(fresh, k)
		}
	}
	slices.SortFunc(gone, compare)
	slices.SortFunc(fresh, compare)
	n := part(len(gone) + len(fresh))
	for _, k := range gone[:min(n, len(gone))] {
		delete(have, k)
	}
	for _, k := range fresh[:max(0, n-len(gone))] {
		have[k] = want[k]
	}
	return n
}

// checkTargets demands that each target that packets of a VIP may follow leads to a real of it.
func (d *Dataplane) checkTargets(users map[lb.RingID]lb.VIP) {
	for t, id := range d.targets {
		vip, used := users[t.ring]
		o := d.vips[vip].Options
		if used = used && (t.serverID != 0 && o.HasServerIDs() || t.serverID == 0 && o.SourceRoutes); !used {
			continue
		}
		if r, ok := d.reals[id]; !ok || r.VIP != vip {
			d.tb.Errorf("target %+v of VIP %s leads to real %d: %+v", t, vip, id, r)
		}
	}
	if n := len(d.targets); n > d.reserved.Targets {
		d.tb.Errorf("there are %d targets, but room is for %d", n, d.reserved.Targets)
	}
	for v, entry := range d.vips {
		if entry.Options.OnPath() && !d.reserved.Options || v.IsPrefix() && d.reserved.Prefixes == 0 {
			d.tb.Errorf("VIP %s is more than what was reserved: %+v", v, d.reserved)
		}
	}
}

// dumpOptions is empty for none.
func dumpOptions(o lb.Options) (text string) {
	for _, name := range o.Names() {
		text += " " + name
	}
	return text
}

// dumpTargets has targets with their VIPs, and source routes, as lines.
func (d *Dataplane) dumpTargets(real func(lb.Real) string) (lines []string) {
	vips := make(map[lb.RingID]lb.VIP)
	for _, v := range d.vips {
		vips[v.RingID] = v.VIP
	}
	for t, id := range d.targets {
		name := "backend " + t.backend.String()
		if t.serverID != 0 {
			name = fmt.Sprintf("server %d", t.serverID)
		}
		lines = append(lines, fmt.Sprintf("target %s %s: %s", vips[t.ring], name, real(d.reals[id])))
	}
	for p, backend := range d.routes {
		lines = append(lines, fmt.Sprintf("route %s: %s", p, backend))
	}
	return lines
}
