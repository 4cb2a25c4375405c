// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// otherRingSize is a ring size that is not Katran's, so that both ways from hash to slot are met.
const otherRingSize = 4093

// unknownID is an id between others that no record has.
const unknownID lb.RealID = 100

// Tables is a table set without options, prefixes and decapsulation, the same for the same seed; it meets
// every reason that does not need these, but no_room. It has VIPs of
// both families, each with reals of either family, by IPIP, GUE and GUE with checksum, in rings
// of both kinds of size, on single ports and on all ports; and VIPs whose rings and reals are wanting.
// VIPs are of all flow modes and reals of all uses. Rings are filled at random and not by Maglev, with
// slots in all states. Some name reals that have no record.
func Tables(seed uint64) *model.Tables {
	b := &tablesBuilder{
		rng:    rand.New(rand.NewPCG(seed, 0)),
		tables: &model.Tables{VIPs: map[lb.VIP]model.VIP{}, Reals: map[lb.RealID]lb.Real{}},
	}
	for _, v6 := range []bool{false, true} {
		for _, realV6 := range []bool{false, true} {
			for _, size := range []uint32{lb.DefaultRingSize, otherRingSize} {
				for _, tunnel := range []tunnelKind{ipip, gue, gueChecksum} {
					b.addSoundVIPs(v6, realV6, size, tunnel)
				}
			}
		}
		b.addWantingVIPs(v6)
	}
	return b.tables
}

// Targets are the VIPs of the tables in lb.VIP's order, which unlike the map's is always the same.
func Targets(t *model.Tables) []lb.VIP {
	return slices.SortedFunc(maps.Keys(t.VIPs), lb.VIP.Compare)
}

type tunnelKind int

const (
	ipip tunnelKind = iota
	gue
	gueChecksum
)

type tablesBuilder struct {
	rng    *rand.Rand
	tables *model.Tables
	addrs  byte
	modes  int
	lastID lb.RealID
}

// addSoundVIPs adds one address with two VIPs: one port, and all ports of the same protocol or
// of the other.
func (b *tablesBuilder) addSoundVIPs(v6, realV6 bool, size uint32, tunnel tunnelKind) {
	protocols := [][2]lb.Protocol{{lb.TCP, lb.TCP}, {lb.UDP, lb.UDP}, {lb.TCP, lb.UDP}, {lb.UDP, lb.TCP}}[b.addrs%4]
	addr := b.nextAddr(v6)
	for i, port := range []uint16{443, 0} {
		vip := lb.VIP{Addr: addr, Port: port, Protocol: protocols[i]}
		var ids []lb.RealID
		for range 3 {
			ids = append(ids, b.addReal(vip, realV6, tunnel, nextHop(b.lastID)))
		}
		b.addVIP(vip, b.ring(size, ids...))
	}
}

// addWantingVIPs adds VIPs of one family that drop some or all of their packets, and one whose slots
// are words of which some are no slots that remora writes.
func (b *tablesBuilder) addWantingVIPs(v6 bool) {
	add := func(fill func(vip lb.VIP) model.Ring) {
		vip := lb.VIP{Addr: b.nextAddr(v6), Port: 80, Protocol: lb.TCP}
		if b.addrs%2 == 0 {
			vip.Port, vip.Protocol = 0, lb.UDP
		}
		b.addVIP(vip, fill(vip))
	}
	sound := func(vip lb.VIP) lb.RealID { return b.addReal(vip, v6, ipip, nextHop(0)) }
	unresolved := lb.NextHop{MTU: 1500, Problem: "no neighbour entry"}

	add(func(lb.VIP) model.Ring { return b.ring(otherRingSize, 0) })
	add(func(vip lb.VIP) model.Ring { return b.ring(otherRingSize, 0, sound(vip)) })
	add(func(lb.VIP) model.Ring { return b.ring(otherRingSize, b.nextID()) })
	add(func(vip lb.VIP) model.Ring {
		return b.ring(otherRingSize, b.addReal(vip, v6, gue, unresolved), sound(vip))
	})
	for _, mtu := range []int{0, 100, 576} {
		narrow := lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 1, 1}, MTU: mtu}
		add(func(vip lb.VIP) model.Ring {
			return b.ring(otherRingSize, b.addReal(vip, v6, ipip, narrow), b.addReal(vip, !v6, gueChecksum, narrow))
		})
	}
	add(func(vip lb.VIP) model.Ring {
		ring := b.ring(otherRingSize, sound(vip), sound(vip))
		for i := range ring {
			prev, state := ring[b.rng.IntN(len(ring))].Cur(), b.rng.IntN(int(lb.SlotStateLen))
			ring[i] = lb.StableSlot(ring[i].Cur()) | lb.Slot(prev)<<32 | lb.Slot(state)<<62
		}
		return ring
	})
	b.addGreatestID(v6)
}

// addGreatestID adds a VIP whose slots name the greatest id that a real may have, and none has. There
// is no room for its record, so nothing is to be asked of its flows: the slots stay stable.
func (b *tablesBuilder) addGreatestID(v6 bool) {
	ring := make(model.Ring, otherRingSize)
	for i := range ring {
		ring[i] = lb.StableSlot(lb.MaxRealID)
	}
	vip := lb.VIP{Addr: b.nextAddr(v6), Port: 443, Protocol: lb.TCP}
	b.tables.VIPs[vip] = model.VIP{Ring: ring, Flows: lb.FlowTransitions}
}

// addVIP adds a VIP, with each flow mode in turn.
func (b *tablesBuilder) addVIP(vip lb.VIP, ring model.Ring) {
	b.tables.VIPs[vip] = model.VIP{Ring: ring, Flows: flowModes[b.modes%len(flowModes)]}
	b.modes++
}

// flowModes are all of them, some more than once; their number has no factor in common with those of
// tunnels, rings and families.
var flowModes = []lb.FlowMode{
	lb.FlowTransitions, lb.FlowQUIC, lb.FlowAlways, lb.FlowTransitions, lb.FlowNever, lb.FlowQUIC,
	lb.FlowAlways, lb.FlowQUIC, lb.FlowNever, lb.FlowTransitions, lb.FlowQUIC,
}

// ring is filled with slots that name the ids, at random.
func (b *tablesBuilder) ring(size uint32, ids ...lb.RealID) model.Ring {
	ring := make(model.Ring, size)
	for i := range ring {
		ring[i] = anySlot(b.rng, ids)
	}
	return ring
}

// anySlot is a slot in any state that names some of the ids, now and then as its previous real one
// that no record has.
func anySlot(rng *rand.Rand, ids []lb.RealID) lb.Slot {
	cur, prev := ids[rng.IntN(len(ids))], ids[rng.IntN(len(ids))]
	switch rng.IntN(32) {
	case 0:
		prev = 0
	case 1:
		prev = unknownID
	case 2:
		prev = lb.MaxRealID
	}
	switch rng.IntN(8) {
	case 0, 1, 2:
		return lb.StableSlot(cur)
	case 3, 4, 5:
		return lb.MovingSlot(cur, prev)
	case 6:
		return lb.SettlingSlot(cur)
	}
	return lb.LingeringSlot(cur)
}

// anyUse is any use of a real, mostly the common one.
func anyUse(rng *rand.Rand) lb.RealUse {
	return []lb.RealUse{lb.RealActive, lb.RealActive, lb.RealActive, lb.RealDraining, lb.RealRetired}[rng.IntN(5)]
}

func (b *tablesBuilder) addReal(vip lb.VIP, v6 bool, kind tunnelKind, hop lb.NextHop) lb.RealID {
	id := b.nextID()
	addr := netip.AddrFrom4([4]byte{10, 0, byte(id >> 8), byte(id)})
	if v6 {
		addr = numbered("fd00::", uint16(id))
	}
	b.tables.Reals[id] = lb.Real{
		ID: id, VIP: vip, Backend: lb.Backend{Addr: addr, Weight: 1},
		Tunnel: tunnelTo(addr, kind), NextHop: hop,
		Use: anyUse(b.rng), Generation: uint8(b.rng.UintN(256)),
	}
	return id
}

// nextID leaves gaps between the ids, and one at unknownID.
func (b *tablesBuilder) nextID() lb.RealID {
	b.lastID += 1 + lb.RealID(b.rng.IntN(3))
	if b.lastID == unknownID {
		b.lastID++
	}
	return b.lastID
}

func (b *tablesBuilder) nextAddr(v6 bool) netip.Addr {
	b.addrs++
	if v6 {
		return numbered("2001:db8:0:1::", uint16(b.addrs))
	}
	return netip.AddrFrom4([4]byte{203, 0, 113, b.addrs})
}

// nextHop varies with n: most links take 1500 bytes and one in three takes jumbo frames.
func nextHop(n lb.RealID) lb.NextHop {
	mtu := 1500
	if n%3 == 2 {
		mtu = 9000
	}
	return lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 1, byte(n)}, MTU: mtu}
}

func tunnelTo(dst netip.Addr, kind tunnelKind) lb.Tunnel {
	sources := lb.DefaultTunnelSources()
	sources.GUE4 = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	sources.GUE6 = numbered("2001:db8:ffff::", 1)
	sources.GUEChecksum = kind == gueChecksum
	encap := lb.GUE
	if kind == ipip {
		encap = lb.IPIP
	}
	tunnel, err := sources.Tunnel(encap, dst)
	if err != nil {
		panic(fmt.Sprintf("sources of both families are set: %v", err))
	}
	return tunnel
}

// numbered is an IPv6 prefix with n in its last two bytes.
func numbered(prefix string, n uint16) netip.Addr {
	b := netip.MustParseAddr(prefix).As16()
	binary.BigEndian.PutUint16(b[14:], n)
	return netip.AddrFrom16(b)
}
