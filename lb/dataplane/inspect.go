// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// Inspection reads the tables that the packet program of an instance has, whether or not its daemon
// runs. It changes nothing: no counter, and no entry of the flow table. VIPs, reals and settings are as
// they were when it was made; rings, flows, targets and routes are read when they are asked for. It
// belongs to one goroutine. Close it after use.
type Inspection struct {
	// Interface is where the program is attached.
	Interface string
	// VIPs and Reals are what is in the maps, by ring and by id.
	VIPs  []lb.VIPEntry
	Reals []lb.Real
	// UDPIdle is the pause after which a UDP flow is new, on VIPs with lb.FlowAlways; to about a second.
	UDPIdle time.Duration
	// Decap and QUICLB are what the program was loaded with.
	Decap  lb.Decap
	QUICLB lb.QUICLB

	gen    *generation
	own    bool // gen is to be closed
	places map[lb.RingID]span
	clock  flowClock
}

// Inspect opens the pinned maps of an instance. Errors of ErrNoInstance say that there is none.
func Inspect(bpffs, instance string) (*Inspection, error) {
	g, err := pinsOf(bpffs, instance).openInUse()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read instance %q below %s: %w", instance, bpffs, ErrNoInstance)
	case err != nil:
		return nil, fmt.Errorf("read instance %q: %v", instance, err)
	}
	i, err := inspect(g)
	if err != nil {
		g.close()
		return nil, fmt.Errorf("read instance %q: %v", instance, err)
	}
	i.own = true
	return i, nil
}

// Inspect inspects the data plane's own tables, until the next verb.
func (d *Dataplane) Inspect() (*Inspection, error) { return inspect(d.gen) }

// Close releases the maps.
func (i *Inspection) Close() {
	if i.own {
		i.gen.close()
	}
}

// inspect reads what an inspection of the generation has from the start.
func inspect(g *generation) (*Inspection, error) {
	info, err := readInstance(g)
	if err != nil {
		return nil, err
	}
	i := &Inspection{Interface: text(info.Interface[:]), gen: g, places: make(map[lb.RingID]span)}
	err = eachRealInfo(g, func(id lb.RealID, info nativeRealInfo) {
		i.Reals = append(i.Reals, realOf(id, info, g.reals.elems[id]))
	})
	if err != nil {
		return nil, err
	}
	err = eachVIPInfo(g, func(info nativeVipInfo) {
		v, slots := entryOf(info)
		i.VIPs = append(i.VIPs, v)
		if g.hasPlace(slots) {
			i.places[v.RingID] = slots
		}
	})
	if err != nil {
		return nil, err
	}
	if i.clock, err = g.flowClock(); err != nil {
		return nil, err
	}
	return i, i.readSettings()
}

// readSettings reads what the program was loaded with.
func (i *Inspection) readSettings() error {
	var flows nativeFlowSettings
	if err := i.gen.maps[".data.flow_settings"].Lookup(uint32(0), &flows); err != nil {
		return fmt.Errorf("read settings of the flow table: %v", err)
	}
	i.UDPIdle = time.Duration(flows.UdpIdleTicks) * i.clock.tick
	m := i.gen.maps[loadSettingsSection]
	if m == nil {
		return nil // of a schema without
	}
	var load nativeLoadSettings
	if err := m.Lookup(uint32(0), &load); err != nil {
		return fmt.Errorf("read settings of the program: %v", err)
	}
	i.QUICLB = lb.QUICLB{ConfigID: load.QuicLbConfig, ServerIDBytes: load.QuicLbBytes}
	i.Decap.GUEPort = portWord(load.DecapGuePort)
	i.Decap.Others = lb.DecapAction(load.DecapOthers)
	destinations, err := entriesOf[nativeVipAddr, uint32](i.gen.maps["decap_dsts"])
	if err != nil {
		return fmt.Errorf("read destinations of tunnelled packets: %v", err)
	}
	if len(destinations) != 0 {
		i.Decap.Destinations = make(map[netip.Addr]lb.DecapAction)
	}
	for addr, action := range destinations {
		i.Decap.Destinations[keyAddr(addr.Addr)] = lb.DecapAction(action)
	}
	return nil
}

// Slots is a copy of a ring's slots; nil if it has none.
func (i *Inspection) Slots(id lb.RingID) []lb.Slot {
	place, ok := i.places[id]
	if !ok {
		return nil
	}
	words := i.gen.rings.elems[place.first:place.end()]
	slots := make([]lb.Slot, len(words))
	for n, word := range words {
		slots[n] = lb.Slot(word)
	}
	return slots
}

// Targets are the ways to a ring's reals by servers' numbers, and by the backends that source routes name.
func (i *Inspection) Targets(ring lb.RingID) (servers map[uint32]lb.RealID, routes map[netip.Addr]lb.RealID, err error) {
	servers, routes = make(map[uint32]lb.RealID), make(map[netip.Addr]lb.RealID)
	all, err := i.targets()
	for t, real := range all {
		switch {
		case lb.RingID(t.Ring) != ring:
		case t.ServerId != 0:
			servers[t.ServerId] = lb.RealID(real)
		default:
			routes[keyAddr(t.Addr)] = lb.RealID(real)
		}
	}
	return servers, routes, err
}

func (i *Inspection) targets() (map[nativeTarget]uint32, error) {
	m := i.gen.maps["targets"]
	if m == nil {
		return nil, nil // of a schema without
	}
	all, err := entriesOf[nativeTarget, uint32](m)
	if err != nil {
		return nil, fmt.Errorf("read targets: %v", err)
	}
	return all, nil
}

// SourceRoute is the source route of the longest prefix that holds the client. If there is one, all are
// read, which takes seconds where there are millions.
func (i *Inspection) SourceRoute(client netip.Addr) (route lb.SourceRoute, found bool, err error) {
	m := i.gen.maps["source_routes"]
	if m == nil || !client.IsValid() {
		return route, false, nil
	}
	whole, err := sourceRouteOf(lb.SourceRoute{Prefix: netip.PrefixFrom(client, client.BitLen()), Backend: client})
	if err != nil {
		return route, false, nil // an IPv4-mapped client, of whom no route can be
	}
	var backend nativeVipAddr
	switch err := m.Lookup(whole.prefix, &backend); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return route, false, nil
	case err != nil:
		return route, false, fmt.Errorf("look up source route: %v", err)
	}
	err = eachRoute(m, func(some []sourceRoute) error {
		for _, r := range some {
			p := r.prefixOf()
			if p.Contains(client) && (!found || p.Bits() > route.Prefix.Bits()) {
				route, found = lb.SourceRoute{Prefix: p, Backend: keyAddr(r.backend.Addr)}, true
			}
		}
		return nil
	})
	return route, found, err
}

// prefixOf is the prefix of a source route.
func (s *sourceRoute) prefixOf() netip.Prefix {
	var b [16]byte
	packetOrder.PutUint64(b[:], s.prefix.Addr[0])
	packetOrder.PutUint64(b[8:], s.prefix.Addr[1])
	addr := netip.AddrFrom16(b)
	if s.prefix.Family == 4 {
		addr = netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.PrefixFrom(addr, int(s.prefix.Bits)-32)
}

// Flow is what is remembered of a flow.
func (i *Inspection) Flow(name FlowName) (f lb.Flow, found bool) {
	tag := name.Tag()
	for _, b := range flowTable(i.gen.flows.elems).buckets(tag) {
		for place := range flowPerBucket {
			if e, ok := readEntry(b, place); ok && e.tag>>flowTagShift == tag {
				return i.clock.flow(e), true
			}
		}
	}
	return lb.Flow{}, false
}

// FlowRoom tells whether a flow without an entry would get one, but for the limit of new flows in a
// second: whether one of its eight places is free, or has a flow that was not seen again. With
// lb.FlowAlways any place will do.
func (i *Inspection) FlowRoom(name FlowName) bool {
	for _, b := range flowTable(i.gen.flows.elems).buckets(name.Tag()) {
		for place := range flowPerBucket {
			if e, ok := readEntry(b, place); e.tag == 0 || ok && e.tag&flowSeen == 0 {
				return true
			}
		}
	}
	return false
}

// Flows calls visit with every remembered flow.
func (i *Inspection) Flows(visit func(lb.Flow)) {
	flowTable(i.gen.flows.elems).each(func(e flowEntry) { visit(i.clock.flow(e)) })
}

// FlowCapacity is how many flows there is room for.
func (i *Inspection) FlowCapacity() int { return i.gen.flowCapacity() }
