// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package maglev computes which real has each slot of a ring, and which slot a flow falls on. The
// arithmetic is Katran's to the bit, so that both put the same flow on the same real. It holds pure
// functions: equal arguments give equal results, whatever was computed before.
package maglev

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Member is a real that takes part in a ring. Its place in the ring follows from its address and
// weight, and from those of the others; the id only fills the slots.
type Member struct {
	ID   lb.RealID
	Addr netip.Addr
	// Weight is the member's share relative to its neighbours'. 0 means no slot.
	Weight uint32
}

// Build returns the slots of a ring of these members, all stable. The order of the members does
// not matter; with none of weight above 0 all slots are zero. It fails on a size that CheckSize
// refuses, on ids that a slot cannot hold, and on addresses that are invalid, have a zone or are
// there twice (an IPv4-mapped address is the IPv4 address).
//
// It takes about 2 ms for 65537 slots, with ten members as with thousands.
func Build(ring lb.Ring, members []Member) ([]lb.Slot, error) {
	if err := CheckSize(ring.Size); err != nil {
		return nil, fmt.Errorf("build ring: %v", err)
	}
	ranked, err := rank(members)
	if err != nil {
		return nil, fmt.Errorf("build ring: %v", err)
	}
	slots := make([]lb.Slot, ring.Size)
	switch len(ranked) {
	case 0:
	case 1:
		for i := range slots {
			slots[i] = lb.StableSlot(ranked[0].id)
		}
	default:
		walks := make([]walk, len(ranked))
		for i, r := range ranked {
			walks[i] = newWalk(r.id, r.hash, ring.Size)
		}
		fill(slots, walks, takers(ring, ranked))
	}
	return slots, nil
}

// ranked is a member of weight above 0 in the order in which members take slots.
type ranked struct {
	hash   uint64
	id     lb.RealID
	weight uint32
}

// rank orders members by the hash of their address, and by the address itself where two hashes are
// equal. That is not rare: half of the addresses of an IPv4 /16 share their hash with another one
// of it, since FNV over signed bytes is no bijection. Such members have the same way over the ring,
// and every balancer must let the same one go first.
func rank(members []Member) ([]ranked, error) {
	// Sorting moves its elements about, so they are kept small.
	type key struct {
		hash  uint64
		index int
	}
	keys := make([]key, len(members))
	for i, m := range members {
		if err := checkMember(m); err != nil {
			return nil, err
		}
		keys[i] = key{hash: AddrHash(m.Addr), index: i}
	}
	addr := func(k key) netip.Addr { return members[k.index].Addr.Unmap() }
	slices.SortFunc(keys, func(a, b key) int {
		if a.hash != b.hash {
			return cmp.Compare(a.hash, b.hash)
		}
		return addr(a).Compare(addr(b))
	})
	all := make([]ranked, 0, len(members))
	for i, k := range keys {
		if i > 0 && addr(k) == addr(keys[i-1]) {
			return nil, fmt.Errorf("member address %s is there twice", addr(k))
		}
		if m := members[k.index]; m.Weight > 0 {
			all = append(all, ranked{hash: k.hash, id: m.ID, weight: m.Weight})
		}
	}
	return all, nil
}

func checkMember(m Member) error {
	switch {
	case !m.Addr.IsValid():
		return errors.New("a member has no address")
	case m.Addr.Zone() != "":
		return fmt.Errorf("member address %s has a zone", m.Addr)
	case m.ID == 0 || m.ID > lb.MaxRealID:
		return fmt.Errorf("member %s has id %d: ids are 1 to %d", m.Addr, m.ID, lb.MaxRealID)
	}
	return nil
}
