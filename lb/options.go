// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"
	"strconv"
)

// Options are what decides on a VIP's packets beside its ring: docs/packet-path.md sections 3.1 and
// 3.2. The zero value is none, and costs a packet nothing.
type Options struct {
	Hash      HashInput
	Fragments Fragments
	// ConnectionIDs routes QUIC by the server's number in the destination connection id.
	ConnectionIDs ConnectionIDs
	// TCPIDs routes TCP by the server's number in option 0xb7.
	TCPIDs bool
	// UDPIDs routes UDP by the server's number in the first bytes of the payload.
	UDPIDs bool
	// SourceRoutes lets the client's prefix choose the backend of a new flow, in the ring's place.
	SourceRoutes bool
}

// HashInput is what of a packet chooses the slot. The zero value: source address and both ports, and
// on VIPs of all ports, or of a prefix, source address and source port.
type HashInput struct {
	// NoSourcePort leaves out the source port.
	NoSourcePort bool
	// KeepDestinationPort hashes the destination port on VIPs of all ports and prefixes, too.
	KeepDestinationPort bool
	// DestinationPortOnly hashes nothing but the destination port.
	DestinationPortOnly bool
}

// Fragments is what becomes of fragments.
type Fragments uint8

const (
	// FragmentsDrop drops them. The zero value.
	FragmentsDrop Fragments = iota
	// FragmentsByClient sends all packets of a client, fragments and whole ones, to one backend.
	FragmentsByClient
	// FragmentsPass leaves them to the host.
	FragmentsPass
)

func (f Fragments) String() string {
	switch f {
	case FragmentsDrop:
		return "drop"
	case FragmentsByClient:
		return "hash-3-tuple"
	case FragmentsPass:
		return "pass"
	}
	return "fragments " + strconv.Itoa(int(f))
}

// ConnectionIDs is how a server's number stands in QUIC connection ids.
type ConnectionIDs uint8

const (
	// ConnectionIDsOff looks at none. The zero value.
	ConnectionIDsOff ConnectionIDs = iota
	// ConnectionIDsKatran reads the three versions of Katran.
	ConnectionIDsKatran
	// ConnectionIDsQUICLB reads the plaintext form of draft-ietf-quic-load-balancers.
	ConnectionIDsQUICLB
)

func (c ConnectionIDs) String() string {
	switch c {
	case ConnectionIDsOff:
		return "off"
	case ConnectionIDsKatran:
		return "katran"
	case ConnectionIDsQUICLB:
		return "quic-lb"
	}
	return "connection ids " + strconv.Itoa(int(c))
}

// Names are the options that are set, in the words of the configuration; none for the zero value.
func (o Options) Names() (names []string) {
	for _, option := range []struct {
		on   bool
		name string
	}{
		{o.Hash.NoSourcePort, "hash=no-source-port"},
		{o.Hash.KeepDestinationPort, "hash=keep-destination-port"},
		{o.Hash.DestinationPortOnly, "hash=destination-port-only"},
		{o.Fragments != FragmentsDrop, "fragments=" + o.Fragments.String()},
		{o.ConnectionIDs != ConnectionIDsOff, "connection_ids=" + o.ConnectionIDs.String()},
		{o.TCPIDs, "tcp_ids"},
		{o.UDPIDs, "udp_ids"},
		{o.SourceRoutes, "source_routes"},
	} {
		if option.on {
			names = append(names, option.name)
		}
	}
	return names
}

// OnPath tells whether they change the path of the VIP's packets. Fragments that pass do not: they are looked
// at where fragments are.
func (o Options) OnPath() bool {
	if o.Fragments == FragmentsPass {
		o.Fragments = FragmentsDrop
	}
	return o != Options{}
}

// HasServerIDs tells whether backends' server ids count.
func (o Options) HasServerIDs() bool {
	return o.ConnectionIDs != ConnectionIDsOff || o.TCPIDs || o.UDPIDs
}

// QUICLB is the plaintext form of connection ids that is read for all VIPs that ask for it
// (draft-ietf-quic-load-balancers section 3).
type QUICLB struct {
	// ConfigID is the codepoint in the three first bits: 0 to 6.
	ConfigID uint8
	// ServerIDBytes is the length of the server's number: 1 to 4.
	ServerIDBytes uint8
}

// SourceRoute leads the clients of a prefix to a backend, on VIPs that have Options.SourceRoutes.
type SourceRoute struct {
	Prefix  netip.Prefix
	Backend netip.Addr
}

// ServerTarget leads a server's number to a real of a ring's VIP.
type ServerTarget struct {
	Ring     RingID
	ServerID uint32
	Real     RealID
}

// RouteTarget leads a backend that source routes name to the real of a ring's VIP.
type RouteTarget struct {
	Ring    RingID
	Backend netip.Addr
	Real    RealID
}

// Decap is inline decapsulation of IPIP and GUE: docs/packet-path.md section 9.
type Decap struct {
	// GUEPort is the UDP destination port of GUE; 0: GUE is not looked at.
	GUEPort uint16
	// Destinations are the outer destination addresses, and what becomes of their inner packets.
	Destinations map[netip.Addr]DecapAction
	// Others is what becomes of other tunnelled packets that are for no VIP; DecapNone leaves them.
	Others DecapAction
}

// Enabled tells whether anything is decapsulated.
func (d Decap) Enabled() bool { return len(d.Destinations) != 0 || d.Others != DecapNone }

// DecapAction is what becomes of an inner packet.
type DecapAction uint8

// What becomes of an inner packet.
const (
	// DecapNone leaves the packet as it is. The zero value.
	DecapNone DecapAction = iota
	// DecapBalance lets the inner packet begin anew.
	DecapBalance
	// DecapEgress sends it back out.
	DecapEgress
	// DecapHost gives it to this machine's network stack.
	DecapHost
)

func (a DecapAction) String() string {
	switch a {
	case DecapNone:
		return "none"
	case DecapBalance:
		return "balance"
	case DecapEgress:
		return "egress"
	case DecapHost:
		return "host"
	}
	return "action " + strconv.Itoa(int(a))
}
