// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package routers runs real routers, FRR and BIRD, in the network namespaces of a lab, as the
// neighbours that a BGP speaker has in a data centre. Configuration and sockets are private to
// the lab, and the daemons end with it.
package routers

import (
	"net/netip"
	"time"
)

// Config says what a router is like. It accepts routes within Accept only and announces nothing.
type Config struct {
	ASN      uint32
	RouterID netip.Addr
	// Hold is the hold time; keepalives are sent three times as often. Whole seconds from 3 s. 0
	// stands for 3 s.
	Hold time.Duration
	// GracefulRestart keeps the routes of a neighbour that went away without a word.
	GracefulRestart bool
	// BFDInterval is the time between two BFD packets; three missing ones are too many. 0: no BFD.
	BFDInterval time.Duration
	// ExtendedNextHop takes IPv4 routes with an IPv6 next hop from IPv6 neighbours.
	ExtendedNextHop bool
	// Accept are the prefixes whose routes are taken, of any length.
	Accept    []netip.Prefix
	Neighbors []Neighbor
}

// Neighbor is a speaker that the router has a session with.
type Neighbor struct {
	Address netip.Addr
	ASN     uint32
	// Password is the TCP MD5 key; empty for none.
	Password string
	// TTLSecurity sends packets with TTL 255 and takes no others (RFC 5082).
	TTLSecurity bool
	// Connect has the router open the session; otherwise it waits for the neighbour.
	Connect bool
	// Multihop is for a neighbour that is not on the link. Not together with TTLSecurity.
	Multihop bool
}

func (c Config) withDefaults() Config {
	if c.Hold == 0 {
		c.Hold = 3 * time.Second
	}
	return c
}

// accepted are the prefixes of one family.
func (c Config) accepted(v4 bool) (prefixes []netip.Prefix) {
	for _, p := range c.Accept {
		if p.Addr().Is4() == v4 {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}
