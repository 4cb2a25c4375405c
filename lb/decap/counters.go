// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import "fmt"

// Count is packets and the bytes of their inner IP packets.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters are all that the program counted since New.
type Counters struct {
	// Reasons counts every frame once.
	Reasons [ReasonLen]uint64
	// Kinds divides what was decapsulated.
	Kinds [KindLen]Count
}

// Total is the sum over all kinds.
func (c Counters) Total() Count {
	var t Count
	for _, k := range c.Kinds {
		t.Packets += k.Packets
		t.Bytes += k.Bytes
	}
	return t
}

// Counters reads the counters of all CPUs. Frames that pass meanwhile may be in some and not yet
// in others. It may be called until Close, concurrently with Attach and Detach.
func (d *Decap) Counters() (Counters, error) {
	var c Counters
	for r := range ReasonLen {
		var perCPU []uint64
		if err := d.objects.ReasonPackets.Lookup(uint32(r), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counter of reason %s: %v", r, err)
		}
		for _, n := range perCPU {
			c.Reasons[r] += n
		}
	}
	for k := range KindLen {
		var perCPU []decapDecapCount
		if err := d.objects.KindCounts.Lookup(uint32(k), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counter of kind %s: %v", k, err)
		}
		for _, n := range perCPU {
			c.Kinds[k].Packets += n.Packets
			c.Kinds[k].Bytes += n.Bytes
		}
	}
	return c, nil
}
