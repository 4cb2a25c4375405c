// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"math/rand/v2"
	"net/netip"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// World is a table set with everything that Tables has none of, the same for the same seed: VIPs with any
// options, servers and routes, prefixes around one another and around exact VIPs, reals that are this
// machine or have little room, source routes and decapsulation.
func World(seed uint64) *model.Tables {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := &worldBuilder{tablesBuilder{rng: rng, tables: &model.Tables{
		VIPs: map[lb.VIP]model.VIP{}, Reals: map[lb.RealID]lb.Real{},
		QUICLB: lb.QUICLB{ConfigID: uint8(rng.IntN(7)), ServerIDBytes: uint8(1 + seed%4)},
	}}}
	for n := range 2 * 2 * 2 {
		v6, realV6, protocol := n&1 != 0, n&2 != 0, []lb.Protocol{lb.TCP, lb.UDP}[n/4]
		b.addPlain(v6, realV6, protocol)
		b.addWithOptions(v6, realV6, protocol)
		b.addByClient(v6, realV6, protocol)
		b.addPassing(v6, realV6, protocol)
		b.addNested(v6, realV6, protocol)
	}
	b.tables.SourceRoutes = anySourceRoutes(rng)
	b.addDecap(seed)
	return b.tables
}

type worldBuilder struct{ tablesBuilder }

// addPlain adds a VIP without options.
func (b *worldBuilder) addPlain(v6, realV6 bool, protocol lb.Protocol) {
	b.add(lb.VIP{Addr: b.nextAddr(v6), Port: 443, Protocol: protocol}, realV6, lb.Options{})
}

// addWithOptions adds VIPs of a port and of all ports, at one address and at others.
func (b *worldBuilder) addWithOptions(v6, realV6 bool, protocol lb.Protocol) {
	both := b.nextAddr(v6)
	for _, name := range []lb.VIP{
		{Addr: both, Port: 443}, {Addr: both}, {Addr: b.nextAddr(v6), Port: 443}, {Addr: b.nextAddr(v6)},
	} {
		name.Protocol = protocol
		b.add(name, realV6, anyOptions(b.rng, name, lb.FragmentsDrop))
	}
}

// addByClient adds two VIPs, each the only one of its address, whose fragments go by client.
func (b *worldBuilder) addByClient(v6, realV6 bool, protocol lb.Protocol) {
	for _, port := range []uint16{443, 0} {
		name := lb.VIP{Addr: b.nextAddr(v6), Port: port, Protocol: protocol}
		b.add(name, realV6, anyOptions(b.rng, name, lb.FragmentsByClient))
	}
}

// addPassing adds two VIPs of an address whose fragments pass.
func (b *worldBuilder) addPassing(v6, realV6 bool, protocol lb.Protocol) {
	addr := b.nextAddr(v6)
	for _, port := range []uint16{443, 0} {
		name := lb.VIP{Addr: addr, Port: port, Protocol: protocol}
		b.add(name, realV6, lb.Options{Fragments: lb.FragmentsPass})
	}
}

// addNested adds prefixes of one port and of all ports, in one another, and exact VIPs in the longest.
func (b *worldBuilder) addNested(v6, realV6 bool, protocol lb.Protocol) {
	b.addrs++
	first := netip.AddrFrom4([4]byte{198, 18, b.addrs, 0})
	wide, narrow := uint8(8), uint8(3)
	if v6 {
		first = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 2, 0, b.addrs})
		wide, narrow = 64, 3
	}
	for _, hostBits := range []uint8{wide, narrow, 0} {
		for _, port := range []uint16{443, 0} {
			name := lb.VIP{Addr: first, Port: port, Protocol: protocol, HostBits: hostBits}
			b.add(name, realV6, anyOptions(b.rng, name, lb.FragmentsDrop))
		}
	}
}

// add adds a VIP with reals of all kinds of tunnels, one of them now and then this machine.
func (b *worldBuilder) add(name lb.VIP, realV6 bool, options lb.Options) {
	var ids []lb.RealID
	for _, kind := range []tunnelKind{ipip, gue, gueChecksum} {
		ids = append(ids, b.addReal(name, realV6, kind, b.hop()))
	}
	if b.rng.IntN(2) == 0 {
		ids = append(ids, b.addLocal(name, realV6))
	}
	size := uint32(otherRingSize)
	if b.rng.IntN(4) == 0 {
		size = lb.DefaultRingSize
	}
	inRing := ids
	if b.rng.IntN(8) == 0 {
		inRing = append(inRing[:len(ids):len(ids)], 0, unknownID)
	}
	b.addVIP(name, b.ring(size, inRing...))
	vip := b.tables.VIPs[name]
	vip.Options, vip.Servers, vip.Routes = options, anyServers(b.rng, ids), anyRoutes(b.rng, ids)
	b.tables.VIPs[name] = vip
}

// hop is a next hop of any room, and at times none.
func (b *worldBuilder) hop() lb.NextHop {
	hop := nextHop(b.lastID)
	hop.MTU = []int{1500, 1500, 1500, 9000, 1280, 576, 300, 150}[b.rng.IntN(8)]
	if b.rng.IntN(12) == 0 {
		hop = lb.NextHop{MTU: 1500, Problem: "no neighbour entry"}
	}
	return hop
}

func (b *worldBuilder) addLocal(name lb.VIP, v6 bool) lb.RealID {
	id := b.addReal(name, v6, ipip, lb.NextHop{})
	r := b.tables.Reals[id]
	r.Backend.Local = true
	r.Tunnel = lb.Tunnel{Encap: lb.Local, Destination: r.Backend.Addr}
	b.tables.Reals[id] = r
	return id
}

// addDecap adds an outer destination of each family for each action, and one that is a VIP's address.
func (b *worldBuilder) addDecap(seed uint64) {
	d := lb.Decap{GUEPort: 6080, Destinations: map[netip.Addr]lb.DecapAction{}, Others: lb.DecapAction(seed % 4)}
	for action := lb.DecapNone; action <= lb.DecapHost; action++ {
		d.Destinations[netip.AddrFrom4([4]byte{192, 0, 2, 100 + byte(action)})] = action
		d.Destinations[numbered("2001:db8:dec::", uint16(action))] = action
	}
	d.Destinations[Targets(b.tables)[0].Addr] = lb.DecapBalance
	b.tables.Decap = d
}

// anyOptions are any that the VIP may have beside what becomes of its fragments.
func anyOptions(rng *rand.Rand, name lb.VIP, fragments lb.Fragments) lb.Options {
	o := lb.Options{Fragments: fragments, SourceRoutes: rng.IntN(2) == 0}
	if fragments != lb.FragmentsByClient {
		o.Hash = lb.HashInput{
			NoSourcePort: rng.IntN(3) == 0, KeepDestinationPort: rng.IntN(3) == 0, DestinationPortOnly: rng.IntN(3) == 0,
		}
	}
	if name.Protocol == lb.TCP {
		o.TCPIDs = rng.IntN(3) > 0
		return o
	}
	o.ConnectionIDs = lb.ConnectionIDs(rng.IntN(3))
	o.UDPIDs = rng.IntN(2) == 0
	return o
}

// anyServers are numbers of all sizes that lead to the reals, and now and then to none.
func anyServers(rng *rand.Rand, ids []lb.RealID) map[uint32]lb.RealID {
	servers := map[uint32]lb.RealID{1 + rng.Uint32N(255): realOrNone(rng, ids)}
	for _, bits := range []int{8, 16, 24, 32} {
		servers[max(1, rng.Uint32()>>(32-bits))] = realOrNone(rng, ids)
	}
	return servers
}

// routeBackends are what source routes name.
var routeBackends = []netip.Addr{
	netip.AddrFrom4([4]byte{10, 200, 0, 1}), netip.AddrFrom4([4]byte{10, 200, 0, 2}),
	netip.AddrFrom16([16]byte{0xfd, 2, 15: 1}), netip.AddrFrom16([16]byte{0xfd, 2, 15: 2}),
}

// anyRoutes are the reals that most of the backends are.
func anyRoutes(rng *rand.Rand, ids []lb.RealID) map[netip.Addr]lb.RealID {
	routes := map[netip.Addr]lb.RealID{}
	for _, backend := range routeBackends {
		if rng.IntN(4) > 0 {
			routes[backend] = realOrNone(rng, ids)
		}
	}
	return routes
}

func realOrNone(rng *rand.Rand, ids []lb.RealID) lb.RealID {
	switch rng.IntN(16) {
	case 0:
		return unknownID
	case 1:
		return lb.MaxRealID
	}
	return ids[rng.IntN(len(ids))]
}

// anySourceRoutes are prefixes around one another, to any backends.
func anySourceRoutes(rng *rand.Rand) map[netip.Prefix]netip.Addr {
	routes := map[netip.Prefix]netip.Addr{}
	for _, around := range []netip.Addr{
		netip.AddrFrom4([4]byte{198, 51, 100, 7}), netip.AddrFrom4([4]byte{100, 64, 0, 1}),
		netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}),
		netip.AddrFrom16([16]byte{0xfd, 0x33, 15: 1}),
	} {
		for range 5 {
			prefix, _ := around.Prefix(rng.IntN(around.BitLen() + 1)) // which is not too long
			routes[prefix] = routeBackends[rng.IntN(len(routeBackends))]
		}
		whole, _ := around.Prefix(around.BitLen())
		routes[whole] = routeBackends[rng.IntN(len(routeBackends))]
	}
	return routes
}
