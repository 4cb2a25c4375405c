// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// Case is one frame and what must become of it.
type Case struct {
	Name  string
	Frame []byte
	// Source is the offset of the word of the source address that is varied to make flows (the
	// whole IPv4 address, the last word of an IPv6 one), Port that of the source port. Source 0:
	// the case has one flow only.
	Source, Port int
	// IPv6 tells which of the two Source is.
	IPv6 bool
	// Restore is how many bytes of the frame a program may change: 16, 64 or 96.
	Restore int
	// Expect is for a program that balances the bench topology over IPIP.
	Expect Expectation
	// Unit is the case on which the reference is measured that figures of this one are divided
	// by; nil stands for the case itself. It is set where the reference passes the frame up.
	Unit *Case
	// Option tells that the case is for a VIP that only targets with Options have.
	Option bool
}

func (c Case) validate() error {
	if c.Restore != 16 && c.Restore != 64 && c.Restore != 96 {
		return fmt.Errorf("case %q: restore: %d is not 16, 64 or 96", c.Name, c.Restore)
	}
	if len(c.Frame) < c.Restore || len(c.Frame) > maxFrame {
		return fmt.Errorf("case %q: a frame of %d bytes is not between %d and %d", c.Name, len(c.Frame), c.Restore, maxFrame)
	}
	if c.Source != 0 && (c.Source+4 > len(c.Frame) || c.Port+2 > len(c.Frame)) {
		return fmt.Errorf("case %q: source or port lies outside of the frame", c.Name)
	}
	return nil
}

func (c Case) unit() Case {
	if c.Unit == nil {
		return c
	}
	return *c.Unit
}

// Offsets of what makes a flow, in frames without VLAN tags or options.
const (
	source4, port4 = etherLen + 12, etherLen + 20
	source6, port6 = etherLen + 20, etherLen + 40
)

// Cases are the frames that are measured, all for the VIPs of the bench topology.
func Cases() []Case {
	tx := func(growth int) Expectation { return Expectation{lb.TX, growth} }
	plan := addresses()
	frame4 := func(dst netip.Addr, proto byte, payload []byte) []byte {
		return etherFrame(etherIPv4, ipv4Packet(plan.client4, dst, proto, payload))
	}
	frame6 := func(dst netip.Addr) []byte {
		return etherFrame(etherIPv6, ipv6Packet(plan.client6, dst, byte(lb.TCP), tcpSegment(1024, 80, tcpACK, 10)))
	}
	v4 := func(name string, frame []byte, e Expectation) Case {
		return Case{Name: name, Frame: frame, Source: source4, Port: port4, Restore: 16, Expect: e}
	}
	ackSegment := tcpSegment(1024, 80, tcpACK, 10)
	ack := v4("tcp4-ack", frame4(plan.vip4, byte(lb.TCP), ackSegment), tx(20))
	v6 := func(name string, dst netip.Addr, growth int) Case {
		return Case{Name: name, Frame: frame6(dst), Source: source6, Port: port6, IPv6: true, Restore: 16, Expect: tx(growth), Unit: &ack}
	}
	moving := func(name string, vip movingVIP, flags byte) Case {
		c := v4(name, frame4(vip.addr, byte(lb.TCP), tcpSegment(1024, 80, flags, 10)), tx(20))
		c.Unit = &ack
		return c
	}
	udp := v4("udp4", frame4(plan.vip4, byte(lb.UDP), udpDatagram(1024, 53, 22)), tx(20))
	quic := func(name string, initial bool) Case {
		c := v4(name, frame4(plan.vip4, byte(lb.UDP), quicDatagram(1024, initial)), tx(20))
		c.Unit = &udp
		return c
	}
	lingering := v4("tcp4-lingering-miss", frame4(plan.lingering, byte(lb.TCP), ackSegment), tx(20))
	lingering.Unit = &ack
	// The flow of an error is that of the packet that it quotes.
	quoted := ipv4Packet(plan.vip4, plan.client4, byte(lb.TCP), tcpSegment(80, 1024, tcpACK, 10))
	const quote = etherLen + 20 + 8
	return []Case{
		ack,
		v4("tcp4-syn", frame4(plan.vip4, byte(lb.TCP), tcpSegment(1024, 80, tcpSYN, 10)), tx(20)),
		udp,
		quic("quic4-initial", true),
		quic("quic4-short", false),
		v4("tcp4in6", frame4(plan.vip4To6, byte(lb.TCP), ackSegment), tx(40)),
		v6("tcp6", plan.vip6, 40),
		v6("tcp6in4", plan.vip6To4, 20),
		v4("not-a-vip", frame4(plan.none, byte(lb.TCP), ackSegment), Expectation{lb.Pass, 0}),
		{Name: "icmp-echo", Frame: frame4(plan.vip4, protoICMP, icmpEchoRequest(56)), Restore: 64, Expect: tx(0), Unit: &ack},
		{
			Name: "icmp-error", Frame: frame4(plan.vip4, protoICMP, icmpTooBig(quoted)), Source: quote + 16, Port: quote + 22,
			Restore: 64, Expect: tx(20), Unit: &ack,
		},
		{
			Name: "vlan", Frame: vlanFrame(100, ack.Frame), Source: vlanLen + source4, Port: vlanLen + port4,
			Restore: 64, Expect: tx(20), Unit: &ack,
		},
		moving("tcp4-moving-1%", plan.moving[0], tcpACK),
		moving("tcp4-moving-10%", plan.moving[1], tcpACK),
		moving("tcp4-moving-hit", plan.moving[2], tcpACK),
		moving("tcp4-moving-syn", plan.moving[2], tcpSYN),
		lingering,
	}
}

// AllOptions is what SelectCases takes for the names of all OptionCases.
const AllOptions = "options"

// SelectCases picks by name, in the order of Cases and OptionCases; no name picks all Cases.
func SelectCases(names []string) ([]Case, error) {
	if len(names) == 0 {
		return Cases(), nil
	}
	all, known := append(Cases(), OptionCases()...), []string{AllOptions}
	for _, c := range all {
		known = append(known, c.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("select case: %q is not one of %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(c Case) bool {
		return !slices.Contains(names, c.Name) && !(c.Option && slices.Contains(names, AllOptions))
	}), nil
}
