// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// How many targets, clients of each family and ports most frames are of.
const (
	busyTargets = 5
	fewClients  = 2
	fewPorts    = 2
)

// vip is any of the targets.
func (g *Generator) vip() lb.VIP {
	if g.usual {
		return pick(g, g.busy)
	}
	return pick(g, g.targets)
}

// target is any of the targets; in the place of a prefix, one of its addresses.
func (g *Generator) target() lb.VIP { return g.somewhere(g.vip()) }

// somewhere is the VIP, with one of its addresses in the place of a prefix.
func (g *Generator) somewhere(vip lb.VIP) lb.VIP {
	if !vip.IsPrefix() {
		return vip
	}
	host := g.bytes(16)
	if g.usual {
		host = []byte{15: byte(g.rng.IntN(2))}
	}
	vip.Addr = within(vip.Prefix(), host)
	return vip
}

// within is the address in the prefix with these host bits, the last of 16 bytes.
func within(p netip.Prefix, host []byte) netip.Addr {
	b := p.Addr().AsSlice()
	host = host[16-len(b):]
	for i := range b {
		free := byte(0xff >> min(max(p.Bits()-8*i, 0), 8))
		b[i] = b[i]&^free | host[i]&free
	}
	addr, _ := netip.AddrFromSlice(b) // as long as the prefix's
	return addr
}

// routedClient is a client that a source route is for, or beside one; if there are any, one client in
// two is.
func (g *Generator) routedClient(v6 bool) (netip.Addr, bool) {
	if g.world == nil || g.rng.IntN(2) == 0 {
		return netip.Addr{}, false
	}
	var prefixes []netip.Prefix
	for p := range g.world.SourceRoutes {
		if p.Addr().Is6() == v6 {
			prefixes = append(prefixes, p)
		}
	}
	if len(prefixes) == 0 {
		return netip.Addr{}, false
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return within(pick(g, prefixes), g.bytes(16)), true
}

// source is any client's address.
func (g *Generator) source(v6 bool) netip.Addr {
	switch {
	case !g.usual:
		return g.anyAddr(v6)
	case v6:
		return pick(g, g.clients6)
	}
	return pick(g, g.clients4)
}

// port is any client's port.
func (g *Generator) port() uint16 {
	if g.usual {
		return pick(g, g.ports)
	}
	return uint16(g.rng.IntN(1 << 16))
}

// meetOthers chooses all few anew.
func (g *Generator) meetOthers() {
	g.busy, g.clients4, g.clients6, g.ports = nil, nil, nil, nil
	for range busyTargets {
		g.busy = append(g.busy, pick(g, g.targets))
	}
	for range fewClients {
		g.clients4 = append(g.clients4, g.anyAddr(false))
		g.clients6 = append(g.clients6, g.anyAddr(true))
	}
	for range fewPorts {
		g.ports = append(g.ports, uint16(g.rng.IntN(1<<16)))
	}
}

// meetAnother chooses one of the few anew.
func (g *Generator) meetAnother() {
	switch g.rng.IntN(4) {
	case 0:
		g.clients4[g.rng.IntN(fewClients)] = g.anyAddr(false)
	case 1:
		g.clients6[g.rng.IntN(fewClients)] = g.anyAddr(true)
	case 2:
		g.ports[g.rng.IntN(fewPorts)] = uint16(g.rng.IntN(1 << 16))
	default:
		g.busy[g.rng.IntN(busyTargets)] = pick(g, g.targets)
	}
}
