// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import "github.com/remora-lb/remora/lb/engine"

// MapGrowth is a map that would be replaced by a greater one, and the entries that it has and would have
// room for.
type MapGrowth struct {
	Name     string
	From, To int
}

// Growth lists the maps that would grow if the data plane were asked for the room, by name. It is Reserve
// on a copy of the sizes.
func (i *Inspection) Growth(c engine.Capacity) []MapGrowth {
	have := i.gen.sizes()
	vips := c.VIPs4 + c.VIPs6
	var list []MapGrowth
	add := func(name string, have, want int) {
		if want > have {
			list = append(list, MapGrowth{name, have, want})
		}
	}
	add("reals", have.reals, withSpare(have.reals, c.Reals+1))
	add("rings", have.words, withSpare(have.words, c.RingSlots+2*vips))
	add("vip_infos", have.vips, withSpare(have.vips, vips))
	add("vip_prefixes", have.prefixes, withSpare(have.prefixes, 2*c.Prefixes))
	add("vips4", bucketRoom(have.bits4, vip4PerBucket), bucketRoom(max(have.bits4, tableBits(c.VIPs4, vip4PerBucket)), vip4PerBucket))
	add("vips6", bucketRoom(have.bits6, vip6PerBucket), bucketRoom(max(have.bits6, tableBits(c.VIPs6, vip6PerBucket)), vip6PerBucket))
	return list
}

// bucketRoom is how many VIPs one half of a table has places for.
func bucketRoom(bits, perBucket int) int { return perBucket << bits }
