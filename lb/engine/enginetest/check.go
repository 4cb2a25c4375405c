// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// check is what must hold at any moment, since a packet may arrive at any moment.
func (d *Dataplane) check() {
	live := make(map[*place]bool)
	for id, p := range d.rings {
		live[p] = true
		for i, s := range p.slots {
			if named := d.unknownReal(s); named != 0 {
				d.tb.Errorf("slot %d of ring %d names real %d, which has no record", i, id, named)
				break
			}
		}
	}
	users := make(map[lb.RingID]lb.VIP)
	for _, v := range d.vips {
		live[v.place] = true
		if other, shared := users[v.RingID]; shared {
			d.tb.Errorf("VIPs %s and %s share ring %d", v.VIP, other, v.RingID)
		}
		users[v.RingID] = v.VIP
		d.checkVIP(v)
	}
	d.checkRoom(live)
	d.checkTargets(users)
}

// unknownReal is a real without a record that the slot names; 0 if there is none.
func (d *Dataplane) unknownReal(s lb.Slot) lb.RealID {
	for _, id := range []lb.RealID{s.Cur(), s.Prev()} {
		if _, ok := d.reals[id]; !ok && id != 0 {
			return id
		}
	}
	return 0
}

// checkVIP looks along the way of the VIP's packets.
func (d *Dataplane) checkVIP(v vip) {
	if d.rings[v.RingID] == nil {
		d.tb.Errorf("VIP %s names ring %d, which is not there", v.VIP, v.RingID)
	}
	for i, s := range v.place.slots {
		for _, id := range []lb.RealID{s.Cur(), s.Prev()} {
			if r, ok := d.reals[id]; id != 0 && (!ok || r.VIP != v.VIP) {
				d.tb.Errorf("slot %d of VIP %s sends packets to real %d: %+v", i, v.VIP, id, r)
				return
			}
		}
	}
}

// checkRoom compares with what was reserved.
func (d *Dataplane) checkRoom(live map[*place]bool) {
	slots := 0
	for p := range live {
		slots += len(p.slots)
	}
	if slots > d.reserved.RingSlots {
		d.tb.Errorf("rings have %d slots, but room is for %d", slots, d.reserved.RingSlots)
	}
	for id := range d.reals {
		if int(id) > d.reserved.Reals {
			d.tb.Errorf("real %d is beyond the room for %d", id, d.reserved.Reals)
		}
	}
	var vips4, vips6 int
	for v := range d.vips {
		if v.Addr.Is4() {
			vips4++
		} else {
			vips6++
		}
	}
	if vips4 > d.reserved.VIPs4 || vips6 > d.reserved.VIPs6 {
		d.tb.Errorf("there are %d and %d VIPs, but room is for %d and %d", vips4, vips6, d.reserved.VIPs4, d.reserved.VIPs6)
	}
}

// Dump is all that is there as sorted lines: reals, and VIPs with the number of slots that each
// real has.
func (d *Dataplane) Dump() string {
	return d.dump(
		func(r lb.Real) string { return fmt.Sprintf("%d=%s", r.ID, r.Backend.Addr) },
		func(v lb.VIPEntry) string { return fmt.Sprintf("ring=%d ", v.RingID) },
		false)
}

// Content is Dump without ids and with every slot: equal for two data planes in which every packet
// has the same fate.
func (d *Dataplane) Content() string {
	return d.dump(
		func(r lb.Real) string { return fmt.Sprintf("%s/%s", r.Backend.Addr, r.Tunnel.Encap) },
		func(lb.VIPEntry) string { return "" },
		true)
}

func (d *Dataplane) dump(real func(lb.Real) string, ring func(lb.VIPEntry) string, each bool) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var lines []string
	for _, r := range d.reals {
		hop := r.NextHop.Problem
		if r.NextHop.Resolved() {
			hop = fmt.Sprintf("%x mtu %d", r.NextHop.MAC, r.NextHop.MTU)
		}
		line := fmt.Sprintf("real %s %s weight=%d %s from=%s port=%d hop=%s",
			r.VIP, real(r), r.Backend.Weight, r.Tunnel.Encap, r.Tunnel.Source, r.Tunnel.Port, hop)
		if r.Use != lb.RealActive {
			line += " " + r.Use.String()
		}
		if r.Backend.ServerID != 0 {
			line += fmt.Sprintf(" server=%d", r.Backend.ServerID)
		}
		if r.Backend.Routed {
			line += " routed"
		}
		lines = append(lines, line)
	}
	for _, v := range d.vips {
		lines = append(lines, fmt.Sprintf("vip %s service=%s %s%s/%d%s: %s",
			v.VIP, v.Service, ring(v.VIPEntry), v.Ring.Hash, v.Ring.Size, dumpOptions(v.Options), d.dumpSlots(v.place, real, each)))
	}
	for id, p := range d.rings {
		if !d.used(p) {
			lines = append(lines, fmt.Sprintf("ring %d of no VIP", id))
		}
	}
	lines = append(lines, d.dumpTargets(real)...)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (d *Dataplane) used(p *place) bool {
	for _, v := range d.vips {
		if v.place == p {
			return true
		}
	}
	return false
}

func (d *Dataplane) dumpSlots(p *place, real func(lb.Real) string, each bool) string {
	var all []string
	count := make(map[string]int)
	for _, s := range p.slots {
		name := "none"
		if s.Cur() != 0 {
			name = real(d.reals[s.Cur()])
		}
		all = append(all, name)
		count[name]++
	}
	if each {
		return strings.Join(all, " ")
	}
	var sums []string
	for name, n := range count {
		sums = append(sums, fmt.Sprintf("%s:%d", name, n))
	}
	slices.Sort(sums)
	return strings.Join(sums, " ")
}
