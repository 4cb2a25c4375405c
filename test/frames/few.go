// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// How many targets, clients of each family and ports most frames are of.
const (
	busyTargets = 5
	fewClients  = 2
	fewPorts    = 2
)

// target is any of the targets.
func (g *Generator) target() lb.VIP {
	if g.usual {
		return pick(g, g.busy)
	}
	return pick(g, g.targets)
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
