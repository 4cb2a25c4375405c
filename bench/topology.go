// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// Topology is what a balancer under test is filled with. It refers to nothing outside of itself.
type Topology struct {
	// VIPs are those of the cases, then those that get no packets.
	VIPs []lb.VIPEntry
	// Reals have the ids from 1 on without a gap.
	Reals []lb.Real
	// Rings are indexed by ring id; all slots are stable but of four VIPs, of which one slot in 100, one in 10,
	// and all move, and all linger. VIPs whose packets are all led past their ring have an empty one; VIPs that
	// get no packets share rings.
	Rings [][]lb.Slot
	// FlowTable is how many flows the balancer has room to remember.
	FlowTable int
	// Features tells that the program is loaded with all of its features, of which the following says what is used.
	Features bool
	// Servers and Routes are where server ids and source routes lead.
	Servers      []lb.ServerTarget
	Routes       []lb.RouteTarget
	SourceRoutes []lb.SourceRoute
	QUICLB       lb.QUICLB
	Decap        lb.Decap
}

// TopologyOptions vary the topology.
type TopologyOptions struct {
	// GUE encapsulates in UDP, with checksum zero, instead of IPIP.
	GUE bool
	// ExtraVIPs is the number of VIPs that get no packets, one in four of them IPv6. 0 to 65536.
	ExtraVIPs int
	// RingSize is the number of slots, a prime; 0 stands for lb.DefaultRingSize.
	RingSize uint32
	// Weighted gives every second real of a UDP VIP twice the weight of the others, and builds their rings
	// as remora does. Otherwise all rings are even, and filled so that they never change.
	Weighted bool
	// MTU is that of the link in bytes, 576 to 65535; 0 stands for 1500.
	MTU int
	// FlowTable is how many flows there is room to remember, all of which may begin at once, 1 to
	// 1<<26; 0 stands for 1<<20.
	FlowTable int
	// Features loads the program with all of its features, none of which a packet uses.
	Features bool
	// OptionVIPs adds the VIPs of OptionCases, each with 100 reals and a ring of its own, and so all features.
	OptionVIPs bool
}

// SmallRing is a ring size for which the way from hash to slot is not Katran's modulo.
const SmallRing = 4093

const (
	realsByVIP   = 100
	maxExtraVIPs = 1 << 16
	linkMTU      = 1500
)

// RemoraTarget is the product's program, loaded with a topology by load: the target Remora, or RemoraOptions or
// RemoraFeatures if the topology asks for those, or RemoraGUE if it asks for GUE, which puts 8 bytes of UDP into what
// is forwarded.
func RemoraTarget(o TopologyOptions, load func(Topology) (*ebpf.Program, io.Closer, error)) (Target, error) {
	topology, err := NewTopology(o)
	if err != nil {
		return Target{}, err
	}
	t := Target{Name: Remora, Load: func() (*ebpf.Program, io.Closer, error) { return load(topology) }}
	switch {
	case o.OptionVIPs:
		t.Name, t.Options = RemoraOptions, true
	case o.Features:
		t.Name = RemoraFeatures
	case o.GUE:
		t.Name = RemoraGUE
		t.Expect = func(c Case) Expectation {
			e := c.Expect
			if e.Growth > 0 {
				e.Growth += 8
			}
			return e
		}
	}
	return t, nil
}

// addressPlan names the addresses that topology, cases and reference programs share.
type addressPlan struct {
	// The VIPs, by their own family and that of their reals; none is not one of them.
	vip4, vip4To6, vip6, vip6To4, none netip.Addr
	// lingering is that of a VIP all of whose slots linger.
	lingering netip.Addr
	// moving are those of VIPs with slots that move: of every so many slots one.
	moving           []movingVIP
	client4, client6 netip.Addr
	// decap is where packets are decapsulated that come from tunnelSource.
	decap, tunnelSource netip.Addr
}

// movingVIP is a VIP of which one in so many slots moves.
type movingVIP struct {
	addr  netip.Addr
	oneIn int
}

func addresses() addressPlan {
	return addressPlan{
		moving: []movingVIP{
			{netip.AddrFrom4([4]byte{198, 51, 100, 11}), 100},
			{netip.AddrFrom4([4]byte{198, 51, 100, 12}), 10},
			{netip.AddrFrom4([4]byte{198, 51, 100, 13}), 1},
		},
		lingering: netip.AddrFrom4([4]byte{198, 51, 100, 14}),

		decap:        netip.AddrFrom4([4]byte{192, 0, 2, 100}),
		tunnelSource: netip.AddrFrom4([4]byte{192, 0, 2, 99}),

		vip4:    netip.AddrFrom4([4]byte{198, 51, 100, 1}),
		vip4To6: netip.AddrFrom4([4]byte{198, 51, 100, 2}),
		vip6:    netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 5, 15: 1}),
		vip6To4: netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 5, 15: 2}),
		none:    netip.AddrFrom4([4]byte{203, 0, 113, 9}),
		client4: netip.AddrFrom4([4]byte{10, 0, 0, 1}),
		client6: netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0xc, 15: 1}),
	}
}

// NextHop is that of all servers of the benches.
func NextHop() lb.NextHop { return lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 2}, MTU: linkMTU} }

// quicPort is where VIPs take QUIC.
const quicPort = 443

// NewTopology returns the VIPs of the cases, each with 100 reals and a ring of its own: three of IPv4 to
// IPv4 reals, of which one is QUIC's, one to IPv6 reals, three of IPv6 to either, and four of IPv4 with
// slots that move or linger.
func NewTopology(o TopologyOptions) (Topology, error) {
	if err := o.validate(); err != nil {
		return Topology{}, fmt.Errorf("make topology: %v", err)
	}
	b := topologyBuilder{topology: Topology{FlowTable: cmp.Or(o.FlowTable, 1<<20)}, encap: lb.IPIP, ring: lb.Ring{Size: o.RingSize}, sources: lb.DefaultTunnelSources(), hop: NextHop(), weighted: o.Weighted}
	if o.MTU != 0 {
		b.hop.MTU = o.MTU
	}
	if o.RingSize == 0 {
		b.ring.Size = lb.DefaultRingSize
	}
	if o.GUE {
		b.encap = lb.GUE
	}
	b.sources.GUE4 = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	b.sources.GUE6 = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0xff, 0xff, 15: 1})
	plan := addresses()
	for _, v := range []struct {
		vip     lb.VIP
		backend func(i int) netip.Addr
	}{
		{lb.VIP{Addr: plan.vip4, Port: 80, Protocol: lb.TCP}, backend4},
		{lb.VIP{Addr: plan.vip4, Port: 53, Protocol: lb.UDP}, backend4},
		{lb.VIP{Addr: plan.vip4To6, Port: 80, Protocol: lb.TCP}, backend6},
		{lb.VIP{Addr: plan.vip6, Port: 80, Protocol: lb.TCP}, backend6},
		{lb.VIP{Addr: plan.vip6To4, Port: 80, Protocol: lb.TCP}, backend4},
		{lb.VIP{Addr: plan.vip6, Port: 53, Protocol: lb.UDP}, backend6},
		{lb.VIP{Addr: plan.vip4, Port: quicPort, Protocol: lb.UDP}, backend4},
		{lb.VIP{Addr: plan.lingering, Port: 80, Protocol: lb.TCP}, backend4},
	} {
		if err := b.addVIP(v.vip, v.backend); err != nil {
			return Topology{}, fmt.Errorf("make topology: %v", err)
		}
	}
	linger(b.topology.Rings[len(b.topology.Rings)-1])
	for _, m := range plan.moving {
		if err := b.addVIP(lb.VIP{Addr: m.addr, Port: 80, Protocol: lb.TCP}, backend4); err != nil {
			return Topology{}, fmt.Errorf("make topology: %v", err)
		}
		moveSlots(b.topology.Rings[len(b.topology.Rings)-1], m.oneIn)
	}
	if err := b.addFeatures(o); err != nil {
		return Topology{}, fmt.Errorf("make topology: %v", err)
	}
	b.addExtraVIPs(o.ExtraVIPs)
	return b.topology, nil
}

func (o TopologyOptions) validate() error {
	var errs []error
	if o.GUE && (o.Features || o.OptionVIPs) {
		errs = append(errs, errors.New("features and VIPs with options: are measured with IPIP only"))
	}
	if o.ExtraVIPs < 0 || o.ExtraVIPs > maxExtraVIPs {
		errs = append(errs, fmt.Errorf("extra VIPs: %d is not between 0 and %d", o.ExtraVIPs, maxExtraVIPs))
	}
	if o.FlowTable < 0 || o.FlowTable > 1<<26 {
		errs = append(errs, fmt.Errorf("flow table: %d is not between 0 and %d", o.FlowTable, 1<<26))
	}
	if o.MTU != 0 && (o.MTU < 576 || o.MTU > 65535) {
		errs = append(errs, fmt.Errorf("MTU: %d is not between 576 and 65535", o.MTU))
	}
	if o.RingSize > lb.MaxRingSize {
		errs = append(errs, fmt.Errorf("ring size: %d is more than %d", o.RingSize, lb.MaxRingSize))
	}
	return errors.Join(errs...)
}

func backend4(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 200, 0, byte(i)}) }

func backend6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 0xbb, 15: byte(i)})
}

type topologyBuilder struct {
	topology Topology
	encap    lb.Encap
	ring     lb.Ring
	sources  lb.TunnelSources
	hop      lb.NextHop
	weighted bool
}

// addVIP adds a VIP with its ring, and its reals at backend(1) to backend(100).
func (b *topologyBuilder) addVIP(vip lb.VIP, backend func(i int) netip.Addr) error {
	t := &b.topology
	first := lb.RealID(len(t.Reals) + 1)
	for i := 1; i <= realsByVIP; i++ {
		addr := backend(i)
		tunnel, err := b.sources.Tunnel(b.encap, addr)
		if err != nil {
			return err
		}
		t.Reals = append(t.Reals, lb.Real{
			ID: lb.RealID(len(t.Reals) + 1), VIP: vip, Backend: lb.Backend{Addr: addr, Weight: b.weight(vip, i)}, Tunnel: tunnel, NextHop: b.hop,
		})
	}
	t.VIPs = append(t.VIPs, lb.VIPEntry{VIP: vip, Service: "bench", RingID: lb.RingID(len(t.Rings)), Ring: b.ring, Flows: flowsOf(vip)})
	if b.weighted && vip.Protocol == lb.UDP {
		return b.addWeightedRing(t.Reals[first-1:])
	}
	ring := make([]lb.Slot, b.ring.Size)
	for i, n := range scrambled(len(ring), realsByVIP) {
		ring[i] = lb.StableSlot(first + lb.RealID(n))
	}
	t.Rings = append(t.Rings, ring)
	return nil
}

// weight is that of the VIP's real i.
func (b *topologyBuilder) weight(vip lb.VIP, i int) uint32 {
	if b.weighted && vip.Protocol == lb.UDP && i%2 == 0 {
		return 2
	}
	return 1
}

// flowsOf is which flows the VIP remembers.
func flowsOf(vip lb.VIP) lb.FlowMode {
	switch {
	case vip.Protocol == lb.TCP:
		return lb.FlowTransitions
	case vip.Port == quicPort:
		return lb.FlowQUIC
	}
	return lb.FlowNever
}

func (b *topologyBuilder) addWeightedRing(reals []lb.Real) error {
	var members []maglev.Member
	for _, r := range reals {
		members = append(members, maglev.Member{ID: r.ID, Addr: r.Backend.Addr, Weight: r.Backend.Weight})
	}
	ring, err := maglev.Build(b.ring, members)
	b.topology.Rings = append(b.topology.Rings, ring)
	return err
}

// Weights are the shares of a VIP's servers.
func (t Topology) Weights(vip lb.VIP) map[netip.Addr]float64 {
	weights := map[netip.Addr]float64{}
	for _, r := range t.Reals {
		if r.VIP == vip {
			weights[r.Backend.Addr] = float64(r.Backend.Weight)
		}
	}
	return weights
}

// linger makes all slots linger.
func linger(ring []lb.Slot) {
	for i := range ring {
		ring[i] = lb.LingeringSlot(ring[i].Cur())
	}
}

// moveSlots makes one in so many slots move, from the real of the slot behind it.
func moveSlots(ring []lb.Slot, oneIn int) {
	for i := 0; i < len(ring); i += oneIn {
		ring[i] = lb.MovingSlot(ring[i].Cur(), ring[(i+1)%len(ring)].Cur())
	}
}

// addExtraVIPs adds n VIPs, whose addresses lie in the prefixes for benchmarks: 198.18.0.0/15
// (RFC 2544) and 2001:2::/48 (RFC 5180). Their order is scrambled, since sequential addresses
// spread better over the buckets of a table than those of a real fleet. They share the rings of
// VIPs of their family.
func (b *topologyBuilder) addExtraVIPs(n int) {
	for i := range n {
		x := uint16(uint32(i) * 40503) // odd, so each i has an x of its own
		e := b.topology.VIPs[0]
		addr := [4]byte{198, 18}
		binary.BigEndian.PutUint16(addr[2:], x)
		e.VIP = lb.VIP{Addr: netip.AddrFrom4(addr), Port: 443, Protocol: lb.TCP}
		if i%4 == 3 {
			e = b.topology.VIPs[3]
			addr := [16]byte{0x20, 1, 0, 2}
			binary.BigEndian.PutUint16(addr[14:], x)
			e.VIP = lb.VIP{Addr: netip.AddrFrom16(addr), Port: 443, Protocol: lb.TCP}
		}
		b.topology.VIPs = append(b.topology.VIPs, e)
	}
}

// scrambled returns size numbers below n. Which slot has which real does not matter to the cost,
// their even spread does; and the reference program must never be filled in another way.
func scrambled(size, n int) []uint32 {
	s := make([]uint32, size)
	x := uint32(12345)
	for i := range s {
		x = x*1664525 + 1013904223
		s[i] = (x >> 8) % uint32(n)
	}
	return s
}
