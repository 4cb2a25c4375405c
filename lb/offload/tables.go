// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// Ring is the slots of a ring and where they are: First is a multiple of SlotsPerElement.
type Ring struct {
	First uint32
	Slots []lb.Slot
}

// Tables is all that a card is to know.
type Tables struct {
	VIPs  []lb.VIPEntry
	Rings map[lb.RingID]Ring
	Reals []lb.Real
}

// Encode lays out tables as elements of the card's maps, in the order in which they can be written while
// packets come: reals, rings, VIPs, each by its key. VIPs that are not OnCard need no ring, and prefixes
// have no element at all: what the card does not find passes up. The error names everything that does not
// fit the sizes or together.
func Encode(t Tables, s Sizes) ([]Element, error) {
	e := &encoder{sizes: s}
	e.reals(t.Reals)
	e.rings(t)
	e.vips(t)
	if err := errors.Join(append(e.errs, s.Validate())...); err != nil {
		return nil, fmt.Errorf("lay out the card's tables: %v", err)
	}
	return e.elements, nil
}

type encoder struct {
	sizes    Sizes
	elements []Element
	errs     []error
}

func (e *encoder) fail(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(format, args...))
}

func (e *encoder) add(element Element, err error) {
	if err != nil {
		e.errs = append(e.errs, err)
		return
	}
	e.elements = append(e.elements, element)
}

func (e *encoder) reals(reals []lb.Real) {
	byID := slices.SortedFunc(slices.Values(reals), func(a, b lb.Real) int { return cmp.Compare(a.ID, b.ID) })
	for i, r := range byID {
		if int(r.ID) > e.sizes.Reals {
			e.fail("real %d: there is room for ids up to %d", r.ID, e.sizes.Reals)
		}
		if i > 0 && byID[i-1].ID == r.ID {
			e.fail("real %d: it is there twice", r.ID)
		}
		e.add(RealElement(r))
	}
}

// rings adds those that a VIP on the card has.
func (e *encoder) rings(t Tables) {
	used := map[lb.RingID]bool{}
	for _, v := range t.VIPs {
		if OnCard(v, t.VIPs) {
			used[v.RingID] = true
		}
	}
	var placed []Ring
	for id, ring := range t.Rings {
		if used[id] {
			placed = append(placed, ring)
		}
	}
	slices.SortFunc(placed, func(a, b Ring) int { return cmp.Compare(a.First, b.First) })
	end := uint64(0)
	for _, ring := range placed {
		if uint64(ring.First) < end {
			e.fail("ring at slot %d: it begins before the end of another, %d", ring.First, end)
		}
		end = uint64(ring.First) + uint64(RingSpace(len(ring.Slots)))
		elements, err := RingElements(ring.First, ring.Slots)
		if err != nil {
			e.errs = append(e.errs, err)
		}
		e.elements = append(e.elements, elements...)
	}
	if end > uint64(e.sizes.RingSlots) {
		e.fail("rings end at slot %d: there is room for %d", end, e.sizes.RingSlots)
	}
}

func (e *encoder) vips(t Tables) {
	vips4, vips6 := 0, 0
	byName := slices.SortedFunc(slices.Values(t.VIPs), func(a, b lb.VIPEntry) int { return a.VIP.Compare(b.VIP) })
	for i, v := range byName {
		if i > 0 && byName[i-1].VIP == v.VIP {
			e.fail("VIP %s: it is there twice", v.VIP)
		}
		switch {
		case v.VIP.IsPrefix():
			continue
		case v.VIP.Addr.Is4():
			vips4++
		default:
			vips6++
		}
		e.vip(v, t)
	}
	if vips4 > e.sizes.VIPs4 || vips6 > e.sizes.VIPs6 {
		e.fail("%d VIPs of IPv4 and %d of IPv6: there is room for %d and %d", vips4, vips6, e.sizes.VIPs4, e.sizes.VIPs6)
	}
}

func (e *encoder) vip(v lb.VIPEntry, t Tables) {
	if !OnCard(v, t.VIPs) {
		e.add(PassingVIPElement(v.VIP), nil)
		return
	}
	ring := t.Rings[v.RingID]
	if len(ring.Slots) != int(v.Ring.Size) {
		e.fail("VIP %s: its ring %d has %d slots, expected %d", v.VIP, v.RingID, len(ring.Slots), v.Ring.Size)
	}
	e.add(VIPElement(v, ring.First))
}
