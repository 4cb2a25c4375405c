// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// Capacity is how many entries of each kind the data plane is asked to have room for.
type Capacity struct {
	// VIPs4 and VIPs6 count VIPs by family of their address.
	VIPs4, VIPs6 int
	// Reals is the greatest real id in use; RingSlots the slots of all rings together.
	Reals, RingSlots int
	// Prefixes counts those of the VIPs that are prefixes; Targets the servers and the routes of
	// SetTargets together; SourceRoutes those of SetSourceRoutes.
	Prefixes, Targets, SourceRoutes int
	// Options tells that some VIP has options.
	Options bool
}

// String has what nearly all have, and the rest where there is any.
func (c Capacity) String() string {
	text := fmt.Sprintf("vips4=%d vips6=%d reals=%d slots=%d", c.VIPs4, c.VIPs6, c.Reals, c.RingSlots)
	for _, part := range []struct {
		name string
		n    int
	}{{"prefixes", c.Prefixes}, {"targets", c.Targets}, {"routes", c.SourceRoutes}} {
		if part.n != 0 {
			text += fmt.Sprintf(" %s=%d", part.name, part.n)
		}
	}
	if c.Options {
		text += " options"
	}
	return text
}

// Dataplane is what the engine writes to; lb/dataplane implements it. All verbs are idempotent:
// they compare with what is there, write the difference, and setting twice is setting once. A
// failed verb may have written a part of its set; calling it again completes it. They are called
// from one goroutine.
type Dataplane interface {
	// Reserve makes room for c, and keeps everything that is there. It may replace the maps and
	// the program while packets flow, so it is called before the verbs that need the room. It
	// never shrinks.
	Reserve(c Capacity) error
	// SetReals writes the records of these reals and leaves all others alone.
	SetReals(reals []lb.Real) error
	// DeleteReals clears records and counters. No slot may name the ids any more.
	DeleteReals(ids []lb.RealID) error
	// SetRing makes the ring have these slots and returns how many were written. A ring of
	// another length than before is written to a place of its own; the VIPs that name it must be
	// set again before packets use it.
	SetRing(id lb.RingID, slots []lb.Slot) (written int, err error)
	// DeleteRing frees a ring's slots. No VIP may name it any more.
	DeleteRing(id lb.RingID) error
	// SetVIPs replaces the whole set of VIPs in one step. Their rings must be there.
	SetVIPs(vips []lb.VIPEntry) error
	// SetTargets replaces the whole set of ways to reals beside the rings: by a server's number, and by a
	// backend that source routes name. Set before the VIPs whose options need them.
	SetTargets(servers []lb.ServerTarget, routes []lb.RouteTarget) error
	// SetSourceRoutes replaces the whole set of source routes. There may be millions.
	SetSourceRoutes(routes []lb.SourceRoute) error
	// SweepFlows calls visit with every remembered flow, and forgets those for which it returns
	// false, unless they were met again meanwhile. It begins after the last packet has ended that
	// may have met rings as they were before the last SetRing, so it sees all that such packets
	// remembered.
	SweepFlows(visit func(lb.Flow) (keep bool)) error
	// AddFlows remembers flows, but those whose tag is there already, and those for which there is no
	// place, and returns how many.
	AddFlows(flows []lb.Flow) (added int, err error)
}

// NextHops resolves the link addresses of reals; lb/nexthop implements it.
type NextHops interface {
	// Want replaces the whole set of addresses to resolve. It does not block.
	Want(addrs []netip.Addr)
}
