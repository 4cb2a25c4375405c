// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// SlotsPerElement is how many slots of a ring share an element: CARD_SLOTS of bpf/card_types.h.
const SlotsPerElement = 8

// Sizes is what a card is to have room for. A card's maps never grow.
type Sizes struct {
	// VIPs4 and VIPs6 are VIPs by family. Default 0: none.
	VIPs4, VIPs6 int
	// Reals is the greatest id of a real. Range 0 to lb.MaxRealID.
	Reals int
	// RingSlots is slots over all rings, each ring rounded up by RingSpace. Range 0 to 1<<32 - 8.
	RingSlots int
}

// maxRingSlots is what the place of a ring in a VIP's word, 32 bits, leaves.
const maxRingSlots = 1<<32 - SlotsPerElement

// Validate reports all sizes that are out of range.
func (s Sizes) Validate() error {
	var errs []error
	check := func(what string, n, most int) {
		if n < 0 || n > most {
			errs = append(errs, fmt.Errorf("%s: %d is not from 0 to %d", what, n, most))
		}
	}
	check("VIPs of IPv4", s.VIPs4, MaxVIPs)
	check("VIPs of IPv6", s.VIPs6, MaxVIPs)
	check("reals", s.Reals, int(lb.MaxRealID))
	check("ring slots", s.RingSlots, maxRingSlots)
	return errors.Join(errs...)
}

// MaxVIPs is the most VIPs of a family.
const MaxVIPs = 1 << 24

// RingSpace is the slots that a ring of this size takes: elements are not shared between rings.
func RingSpace(size int) int { return roundUp(size, SlotsPerElement) }

// SizesFor has room for so many VIPs of either family, each with a ring of this size, and for reals.
func SizesFor(vips, reals, ringSize int) Sizes {
	return Sizes{VIPs4: vips, VIPs6: vips, Reals: reals, RingSlots: vips * RingSpace(ringSize)}
}

// MostVIPs is how many VIPs SizesFor may have room for, that all elements fit a card; -1 if the card
// has no limit.
func MostVIPs(p Profile, reals, ringSize int) int {
	if p.Elements == 0 {
		return -1
	}
	others := 2*(reals+1) + passCounters
	each := RingSpace(ringSize)/SlotsPerElement + 2
	return max(p.Elements-others, 0) / each
}

// passCounters is CARD_PASS_LEN of bpf/card_types.h.
const passCounters = 7

// elements is how many each map has. No map has none: the kernel does not make such.
func (s Sizes) elements() map[string]int {
	return map[string]int{
		mapRings:        max(roundUp(s.RingSlots, SlotsPerElement)/SlotsPerElement, 1),
		mapReals:        s.Reals + 1, // id 0 is none's
		mapRealCounters: s.Reals + 1,
		mapVIPs4:        max(s.VIPs4, 1),
		mapVIPs6:        max(s.VIPs6, 1),
	}
}

// The names of a card's maps: bpf/target_card.h.
const (
	mapRings        = "rings"
	mapReals        = "reals"
	mapVIPs4        = "vips4"
	mapVIPs6        = "vips6"
	mapRealCounters = "real_counters"
)

// ProgramName is that of the packet program in Spec.
const ProgramName = "remora_card"

// Spec is remora's packet program for a card and its maps, with room for what the sizes say. Its maps
// are ordinary ones, so it also loads on a host, where tests run it.
func Spec(s Sizes) (*ebpf.CollectionSpec, error) {
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("size the card's maps: %v", err)
	}
	spec, err := loadCard()
	if err != nil {
		return nil, fmt.Errorf("read the card's program: %v", err)
	}
	for name, n := range s.elements() {
		spec.Maps[name].MaxEntries = uint32(n)
	}
	return spec, nil
}
