// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// state is what a data plane has, or is to have.
type state struct {
	vips  map[lb.VIP]lb.VIPEntry
	rings map[lb.RingID]*ring
	reals map[lb.RealID]lb.Real
	// targets and routes are nil where they are as a previous run left them.
	targets *targets
	routes  *routeSet
}

func newState() state {
	return state{
		vips:  make(map[lb.VIP]lb.VIPEntry),
		rings: make(map[lb.RingID]*ring),
		reals: make(map[lb.RealID]lb.Real),
	}
}

func (s state) clone() state {
	s.vips, s.rings, s.reals = maps.Clone(s.vips), maps.Clone(s.rings), maps.Clone(s.reals)
	return s
}

func (s state) has(v lb.VIP) bool {
	_, ok := s.vips[v]
	return ok
}

func (s state) realsByVIP() map[lb.VIP][]lb.Real {
	by := make(map[lb.VIP][]lb.Real)
	for _, r := range s.reals {
		by[r.VIP] = append(by[r.VIP], r)
	}
	return by
}

// destinations are the addresses that packets are encapsulated to, sorted, each once.
func (s state) destinations() []netip.Addr {
	addrs := make([]netip.Addr, 0, len(s.reals))
	for _, r := range s.reals {
		if r.Tunnel.Encap != lb.Local {
			addrs = append(addrs, r.Tunnel.Destination)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func sortedReals(reals map[lb.RealID]lb.Real) []lb.Real {
	return slices.SortedFunc(maps.Values(reals), func(a, b lb.Real) int { return cmp.Compare(a.ID, b.ID) })
}

func sortedVIPs(vips map[lb.VIP]lb.VIPEntry) []lb.VIPEntry {
	return slices.SortedFunc(maps.Values(vips), func(a, b lb.VIPEntry) int { return a.VIP.Compare(b.VIP) })
}

// ring is what one VIP's ring holds. It does not change once it is made, so states share it, and two
// of them hold the same exactly if they are one.
type ring struct {
	vip     lb.VIP
	spec    lb.Ring
	members []maglev.Member
	// choice is what Maglev makes of spec and members; slots are that with the changes in progress.
	// Both are nil in a ring that a previous run left, whose slots are not known.
	choice, slots []lb.Slot
	// shares counts the slots of each real, prevs those that name it as the previous one.
	shares, prevs map[lb.RealID]int
	states        [lb.SlotStateLen]int
}

func newRing(vip lb.VIP, spec lb.Ring, members []maglev.Member, choice, slots []lb.Slot) *ring {
	r := &ring{
		vip: vip, spec: spec, members: members, choice: choice, slots: slots,
		shares: make(map[lb.RealID]int), prevs: make(map[lb.RealID]int),
	}
	for _, s := range slots {
		r.shares[s.Cur()]++
		r.states[s.State()]++
		if s.Prev() != 0 {
			r.prevs[s.Prev()]++
		}
	}
	return r
}

// chosenBy tells whether the ring's choice is known to be that of vip, spec and members.
func (r *ring) chosenBy(vip lb.VIP, spec lb.Ring, members []maglev.Member) bool {
	return r != nil && r.choice != nil && r.vip == vip && r.spec == spec && slices.Equal(r.members, members)
}

// realised is the state that the data plane has, and which parts of it are in doubt: a verb about
// them failed or was not done, so that they may be as before, as they were to be, or in between.
// State in doubt is what the verb was to make of it.
type realised struct {
	state
	reserved   Capacity
	doubtReals map[lb.RealID]bool
	doubtRings map[lb.RingID]bool
	doubtVIPs  bool

	doubtTargets, doubtRoutes bool
}

func newRealised() realised {
	s := newState()
	s.targets = &targets{} // an empty data plane has none
	return realised{
		state:      s,
		doubtReals: make(map[lb.RealID]bool),
		doubtRings: make(map[lb.RingID]bool),
	}
}

// doubtAll makes the next diff write everything.
func (h *realised) doubtAll() {
	for id := range h.reals {
		h.doubtReals[id] = true
	}
	for id := range h.rings {
		h.doubtRings[id] = true
	}
	h.doubtVIPs, h.doubtTargets = true, true
}
