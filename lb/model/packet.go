// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// packet is one frame on its way through the steps. The slices all share the frame's memory.
type packet struct {
	frame []byte
	flows *Flows

	// Set by parse.

	// ethernet is the Ethernet header with its VLAN tags; its last two bytes are the EtherType
	// that says what follows.
	ethernet []byte
	// ip is the IP packet by its own length, without the trailer behind it.
	ip []byte
	// ipHeader is the fixed header and IPv4 options, without IPv6 extension headers.
	ipHeader []byte
	// payload is what lies behind the IP header, its options and the extension headers.
	payload  []byte
	protocol uint8
	// extended tells that there are IPv4 options or IPv6 extension headers.
	extended bool
	// fragment tells that the packet is a fragment. Its payload is any part of one then.
	fragment bool
	src, dst netip.Addr

	// Set by the step named in the comment.

	flow      Flow      // parse; of an ICMP error, followError; as its VIP names it, findVIP
	vip       VIP       // findVIP; of a fragment, parse
	hash      inputs    // findVIP: of the slot; chooseInputs
	entropy   inputs    // findVIP: of the outer headers; chooseInputs
	led       ledBy     // findServer
	slotIndex uint32    // findSlot
	slot      lb.Slot   // findSlot; routeSource
	realID    lb.RealID // findServer if led, chooseReal
	flowStep  FlowStep  // chooseReal
	real      lb.Real   // checkReal
}

// inputs is what of a packet chooses something.
type inputs struct {
	src              netip.Addr
	srcPort, dstPort uint16
}

// byClient tells whether the VIP sends all packets of a client to one real.
func (p *packet) byClient() bool { return p.vip.Options.Fragments == lb.FragmentsByClient }

func (p *packet) isIPv6() bool { return p.dst.Is6() }

// isICMP tells whether the payload is the ICMP of the packet's own family.
func (p *packet) isICMP() bool {
	if p.isIPv6() {
		return p.protocol == protocolICMPv6
	}
	return p.protocol == protocolICMP
}

// trafficClass is the TOS byte of IPv4, the traffic class of IPv6; whole, with ECN.
func (p *packet) trafficClass() byte {
	if p.isIPv6() {
		return p.ip[0]<<4 | p.ip[1]>>4
	}
	return p.ip[1]
}
