// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package lb is the vocabulary of remora: services, VIPs, backends, reals, rings and the reasons
// for which the packet program ends. It holds plain values only; every other package may import
// it, and it imports the standard library alone.
package lb

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"
)

// Service is what an operator names and configures: VIPs, and (elsewhere) a source of backends.
type Service struct {
	Name string
	VIPs []ServiceVIP
}

// ServiceVIP is one VIP of a service and how its packets are balanced.
type ServiceVIP struct {
	VIP    VIP
	Encap  Encap
	Ring   Ring
	Tunnel TunnelSources
	Flows  FlowMode
	Leave  Leave
	// Options are what else decides on the VIP's packets.
	Options Options
}

// Leave is what becomes of a backend's flows when it gets no new ones any more.
type Leave struct {
	// Drain is for how long a backend that is removed, or has weight 0, keeps its flows. 0: not at
	// all.
	Drain time.Duration
	// Grace is for how long a backend that is down keeps its flows, since a failing check is often
	// only a failing check. 0: its flows are given to others at once.
	Grace time.Duration
}

// DefaultLeave drains for an hour and gives a backend that is down 30 seconds.
func DefaultLeave() Leave { return Leave{Drain: time.Hour, Grace: 30 * time.Second} }

// Backend is one server of a service, as discovered.
type Backend struct {
	Addr netip.Addr
	// Weight is the backend's share of new flows relative to its neighbours'. 0 means none.
	Weight uint32
	// Down tells that the source says that the backend fails.
	Down bool
	// ServerID is the backend's number in QUIC connection ids, TCP options and UDP headers; 0: none.
	ServerID uint32
	// Local tells that the backend is this machine: its packets are not encapsulated.
	Local bool
	// Routed tells that source routes lead to the backend, which stays with weight 0, too.
	Routed bool
}

// Target names a backend of one VIP.
type Target struct {
	VIP     VIP
	Backend netip.Addr
}

func (t Target) String() string { return t.VIP.String() + " " + t.Backend.String() }

// Compare orders targets by VIP and backend, for sorted lists.
func (t Target) Compare(u Target) int {
	return cmp.Or(t.VIP.Compare(u.VIP), t.Backend.Compare(u.Backend))
}

// ParseBackendAddr reads a backend's address and refuses what no packet can be sent to.
func ParseBackendAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IPv4 or IPv6 address", s)
	}
	return a, checkAddr(a)
}

// Encap is how a packet is wrapped on its way to a real.
type Encap uint8

const (
	// IPIP is IP in IP, in all four pairings of families (RFC 2003, RFC 2473, RFC 4213).
	IPIP Encap = iota
	// GUE is IP in UDP without a header of its own (GUE variant 1, draft-ietf-intarea-gue).
	GUE
	// Local is none: packets go to this machine's own network stack.
	Local
)

func (e Encap) String() string {
	switch e {
	case GUE:
		return "gue"
	case Local:
		return "local"
	}
	return "ipip"
}

// TunnelSources are the outer source addresses, UDP port and checksum of encapsulated packets.
type TunnelSources struct {
	// IPIP4 is a /16 and IPIP6 a /96: the remaining bits carry the flow's entropy.
	IPIP4, IPIP6 netip.Prefix
	// GUE4 and GUE6 are whole addresses. A GUE tunnel of a family whose address is not set
	// cannot be used.
	GUE4, GUE6 netip.Addr
	// GUEPort is the outer UDP destination port, host order.
	GUEPort uint16
	// GUEChecksum asks for a computed outer UDP checksum; otherwise it is zero (RFC 6935).
	GUEChecksum bool
}

// DefaultTunnelSources are Katran's: 172.16.0.0/16, 100::/96, GUE port 6080.
func DefaultTunnelSources() TunnelSources {
	return TunnelSources{
		IPIP4:   netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16}), 16),
		IPIP6:   netip.PrefixFrom(netip.AddrFrom16([16]byte{1}), 96),
		GUEPort: 6080,
	}
}

// Tunnel is everything the outer headers of packets to one real are made of, except what the
// packet itself contributes.
type Tunnel struct {
	Encap       Encap
	Destination netip.Addr
	// Source is the whole source address of GUE, and the prefix (see TunnelSources) of IPIP; its
	// family is Destination's.
	Source netip.Prefix
	// Port and Checksum are GUE's.
	Port     uint16
	Checksum bool
}

// Tunnel picks what a tunnel to dst needs. The error says which source address is missing.
func (s TunnelSources) Tunnel(e Encap, dst netip.Addr) (Tunnel, error) {
	t := Tunnel{Encap: e, Destination: dst}
	if e == Local {
		return t, nil
	}
	if e == IPIP {
		t.Source = s.IPIP4
		if dst.Is6() {
			t.Source = s.IPIP6
		}
		return t, nil
	}
	src := s.GUE4
	if dst.Is6() {
		src = s.GUE6
	}
	if !src.IsValid() {
		return Tunnel{}, fmt.Errorf("GUE to %s needs a source address of its family", dst)
	}
	t.Source = netip.PrefixFrom(src, src.BitLen())
	t.Port, t.Checksum = s.GUEPort, s.GUEChecksum
	return t, nil
}

// TunnelTo is the VIP's tunnel to one of its backends. The error says which source address is missing.
func (v ServiceVIP) TunnelTo(b Backend) (Tunnel, error) {
	if b.Local {
		return v.Tunnel.Tunnel(Local, b.Addr)
	}
	return v.Tunnel.Tunnel(v.Encap, b.Addr)
}

// OuterLen is the number of bytes that the tunnel puts in front of the inner packet.
func (t Tunnel) OuterLen() int {
	if t.Encap == Local {
		return 0
	}
	n := 20
	if t.Destination.Is6() {
		n = 40
	}
	if t.Encap == GUE {
		n += 8
	}
	return n
}

// NextHop is where the frames to one address go on the link.
type NextHop struct {
	// MAC is the destination of the frames; zero if Problem is set.
	MAC [6]byte
	// MTU is the longest outer IP packet that the link takes, in bytes.
	MTU int
	// Stale tells that the kernel could not confirm the MAC lately; frames still go to it.
	Stale bool
	// Problem says why no frame can be sent, for people; empty if one can.
	Problem string
}

// Resolved tells whether frames can be sent.
func (n NextHop) Resolved() bool { return n.MAC != [6]byte{} }
