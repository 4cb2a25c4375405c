// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// optionVIP is a VIP that is there for one case, and the case.
type optionVIP struct {
	name    string // of the case
	vip     lb.VIP
	options lb.Options
	// payload is what the case's packet has behind the IP header; fragment tells that more of it follows.
	payload  []byte
	fragment bool
	// led tells that something else than the ring chooses the real. The ring is empty then: a packet that
	// is not led is dropped, and so fails the check of its verdict.
	led bool
	// local tells that the reals are this machine; hopMTU is the MTU on the way to them, 0 for the link's.
	local  bool
	hopMTU int
	expect Expectation
}

const (
	// optionServer is the server that packets with an id name, counted from 1 among the VIP's reals.
	optionServer = 7
	// quicLBConfig and quicLBBytes are the form of QUIC-LB's connection ids.
	quicLBConfig, quicLBBytes = 1, 2
	// sourceRoutes is the number of prefixes of clients.
	sourceRoutes = 10_000
	// optionQuoted is the packet's length where it is too big: just as much as is quoted, since the stub
	// cannot undo that a frame's end was cut.
	optionQuoted = 84
	tcpIDKind    = 0xb7
)

// optionVIPs are those of the cases that no other VIP has packets of: docs/packet-path.md sections 3 to 3.2, 6 and 8.
func optionVIPs() []optionVIP {
	at := func(host byte, port uint16, protocol lb.Protocol) lb.VIP {
		return lb.VIP{Addr: netip.AddrFrom4([4]byte{198, 51, 100, host}), Port: port, Protocol: protocol}
	}
	plain := func(name string, vip lb.VIP, o lb.Options) optionVIP {
		return optionVIP{name: name, vip: vip, options: o, payload: ackOf(10), expect: Expectation{lb.TX, 20}}
	}
	led := func(name string, vip lb.VIP, o lb.Options, payload []byte) optionVIP {
		return optionVIP{name: name, vip: vip, options: o, payload: payload, led: true, expect: Expectation{lb.TX, 20}}
	}
	prefix := lb.VIP{Addr: netip.AddrFrom4([4]byte{198, 51, 101, 0}), HostBits: 8, Port: 80, Protocol: lb.TCP}
	fragment := plain("tcp4-fragment", at(29, 80, lb.TCP), lb.Options{Fragments: lb.FragmentsByClient})
	fragment.fragment = true
	return []optionVIP{
		plain("tcp4-no-source-port", at(21, 80, lb.TCP), lb.Options{Hash: lb.HashInput{NoSourcePort: true}}),
		plain("tcp4-destination-port-only", at(22, 80, lb.TCP), lb.Options{Hash: lb.HashInput{DestinationPortOnly: true}}),
		led("quic4-katran-id", at(23, quicPort, lb.UDP), lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, quicShort(katranID())),
		led("quic4-quic-lb-id", at(24, quicPort, lb.UDP), lb.Options{ConnectionIDs: lb.ConnectionIDsQUICLB}, quicShort(quicLBID())),
		led("tcp4-id", at(25, 80, lb.TCP), lb.Options{TCPIDs: true}, tcpWithID()),
		led("udp4-id", at(26, 53, lb.UDP), lb.Options{UDPIDs: true}, udpWithID()),
		led("tcp4-source-route", at(27, 80, lb.TCP), lb.Options{SourceRoutes: true}, ackOf(10)),
		plain("tcp4-prefix", prefix, lb.Options{}),
		plain("tcp4-port-0", at(28, 0, lb.TCP), lb.Options{}),
		fragment,
		{name: "tcp4-too-big", vip: at(30, 80, lb.TCP), payload: ackOf(optionQuoted - 40), hopMTU: optionQuoted, expect: Expectation{lb.TX, 28}},
		{name: "tcp4-local", vip: at(31, 80, lb.TCP), payload: ackOf(10), local: true, expect: Expectation{lb.Pass, 0}},
	}
}

// OptionCases are frames that need an option of their VIP, or a feature of the program: for targets that have the
// VIPs of TopologyOptions.OptionVIPs.
func OptionCases() []Case {
	plan := addresses()
	var ack, udp Case
	for _, c := range Cases() {
		switch c.Name {
		case "tcp4-ack":
			ack = c
		case "udp4":
			udp = c
		}
	}
	var cases []Case
	for _, v := range optionVIPs() {
		c := Case{Name: v.name, Frame: v.frame(plan.client4), Source: source4, Port: port4, Restore: 16, Expect: v.expect, Unit: &ack, Option: true}
		if v.vip.Protocol == lb.UDP {
			c.Unit = &udp
		}
		cases = append(cases, c)
	}
	tunnelled := etherFrame(etherIPv4, ipv4Packet(plan.tunnelSource, plan.decap, protoIPIP, ack.Frame[etherLen:]))
	return append(cases, Case{
		// Its inner TTL is changed, too.
		Name: "ipip4-decapsulated", Frame: tunnelled, Source: 20 + source4, Port: 20 + port4, Restore: 64, Expect: Expectation{lb.TX, 0},
		Unit: &ack, Option: true,
	})
}

// frame is a packet to the VIP.
func (v optionVIP) frame(client netip.Addr) []byte {
	to := v.vip.Addr
	if v.vip.IsPrefix() {
		to = to.Next()
	}
	packet := ipv4Packet(client, to, byte(v.vip.Protocol), v.payload)
	if v.fragment {
		packet[6] = 0x20 // more fragments
		packet[10], packet[11] = 0, 0
		binary.BigEndian.PutUint16(packet[10:], internetChecksum(packet[:20]))
	}
	return etherFrame(etherIPv4, packet)
}

func ackOf(payloadLen int) []byte { return tcpSegment(1024, 80, tcpACK, payloadLen) }

// quicShort is a packet with a short header and this destination connection id.
func quicShort(id [8]byte) []byte {
	b := quicDatagram(1024, false)
	copy(b[9:], id[:])
	return b
}

// katranID is the first version of Katran's connection ids.
func katranID() [8]byte {
	return [8]byte{0x40 | optionServer>>10, optionServer >> 2, (optionServer & 3) << 6, 4, 5, 6, 7, 8}
}

func quicLBID() [8]byte {
	return [8]byte{quicLBConfig << 5, optionServer >> 8, optionServer, 4, 5, 6, 7, 8}
}

// tcpWithID is an ACK with a server id in an option behind two of padding.
func tcpWithID() []byte {
	b := tcpSegment(1024, 80, tcpACK, 18)
	b[12] = 7 << 4
	copy(b[20:], []byte{1, 1, tcpIDKind, 6, optionServer, 0, 0, 0})
	return b
}

func udpWithID() []byte {
	b := udpDatagram(1024, 53, 22)
	copy(b[8:], []byte{0x52, 0, 0, optionServer})
	return b
}

// addFeatures makes the program have all features. Decapsulation is on only where something is decapsulated.
func (b *topologyBuilder) addFeatures(o TopologyOptions) error {
	if !o.Features && !o.OptionVIPs {
		return nil
	}
	t := &b.topology
	t.Features, t.QUICLB = true, lb.QUICLB{ConfigID: quicLBConfig, ServerIDBytes: quicLBBytes}
	t.Decap = lb.Decap{GUEPort: b.sources.GUEPort, Destinations: map[netip.Addr]lb.DecapAction{addresses().decap: lb.DecapBalance}}
	if !o.OptionVIPs {
		return nil
	}
	return b.addOptionVIPs()
}

// addOptionVIPs adds the VIPs of OptionCases with what their packets are led by.
func (b *topologyBuilder) addOptionVIPs() error {
	t := &b.topology
	for _, v := range optionVIPs() {
		first := len(t.Reals)
		if err := b.addVIP(v.vip, backend4); err != nil {
			return err
		}
		reals, entry := t.Reals[first:], &t.VIPs[len(t.VIPs)-1]
		entry.Options = v.options
		v.changeReals(reals)
		if v.led {
			clear(t.Rings[entry.RingID])
		}
		if v.options.HasServerIDs() {
			t.Servers = append(t.Servers, lb.ServerTarget{Ring: entry.RingID, ServerID: optionServer, Real: reals[optionServer-1].ID})
		}
		if v.options.SourceRoutes {
			for _, r := range reals {
				t.Routes = append(t.Routes, lb.RouteTarget{Ring: entry.RingID, Backend: r.Backend.Addr, Real: r.ID})
			}
		}
	}
	t.SourceRoutes = routesOfClients()
	return nil
}

func (v optionVIP) changeReals(reals []lb.Real) {
	for i := range reals {
		r := &reals[i]
		if v.hopMTU != 0 {
			r.NextHop.MTU = v.hopMTU
		}
		if v.local {
			r.Backend.Local, r.NextHop = true, lb.NextHop{}
			r.Tunnel = lb.Tunnel{Encap: lb.Local, Destination: r.Backend.Addr}
		}
	}
}

// routesOfClients lead all clients, 10.0.0.0/8, by prefixes of 21 bits, of which there are 8192, and some that have
// no packets.
func routesOfClients() []lb.SourceRoute {
	routes := make([]lb.SourceRoute, sourceRoutes)
	for i := range routes {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], 10<<24+uint32(i)<<11)
		routes[i] = lb.SourceRoute{Prefix: netip.PrefixFrom(netip.AddrFrom4(addr), 21), Backend: backend4(1 + i%realsByVIP)}
	}
	return routes
}
