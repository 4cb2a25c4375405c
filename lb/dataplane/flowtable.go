// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Parts of a remembered flow's two words; bpf/types.h says what they are.
const (
	flowPerBucket       = 4
	flowClaimed         = 1
	flowSeen            = 1
	flowGenerationShift = 1
	flowTagShift        = 9
	flowTagBits         = 64 - flowTagShift
	flowSlotShift       = 24
	flowSlotBits        = 20
	flowTickShift       = 44
	flowTickBits        = 64 - flowTickShift
	flowTickMask        = 1<<flowTickBits - 1
)

// flowTable is the flow table as the packet program and all its CPUs have it too: every word is read
// and written by itself, by the protocol of bpf/flow_table.h. The number of buckets is a power of
// two.
type flowTable []nativeFlowBucket

// flowEntry is an entry that was found, and its words as they then were.
type flowEntry struct {
	tagAt, valueAt *uint64
	tag, value     uint64
}

// each calls f with every entry in use. Entries that a CPU writes at the moment are left out.
func (t flowTable) each(f func(flowEntry)) {
	for i := range t {
		b := &t[i]
		if atomic.LoadUint64(&b.Tag[0])|atomic.LoadUint64(&b.Tag[1])|
			atomic.LoadUint64(&b.Tag[2])|atomic.LoadUint64(&b.Tag[3]) == 0 {
			continue // as nearly all are, nearly always
		}
		for place := range flowPerBucket {
			if e, ok := readEntry(b, place); ok {
				f(e)
			}
		}
	}
}

// readEntry reads both words of one flow; not ok if the entry is free, or is being written.
func readEntry(b *nativeFlowBucket, place int) (e flowEntry, ok bool) {
	e = flowEntry{tagAt: &b.Tag[place], valueAt: &b.Value[place]}
	e.tag = atomic.LoadUint64(e.tagAt)
	for e.tag != 0 && e.tag != flowClaimed {
		e.value = atomic.LoadUint64(e.valueAt)
		again := atomic.LoadUint64(e.tagAt)
		if again == e.tag {
			return e, true
		}
		e.tag = again
	}
	return e, false
}

// forget frees the entry, unless a packet met the flow since it was read.
func (e flowEntry) forget() {
	if atomic.LoadUint64(e.valueAt) == e.value {
		atomic.CompareAndSwapUint64(e.tagAt, e.tag, 0)
	}
}

// buckets are the two that may hold a tag, as flow_first_bucket and flow_second_bucket of
// bpf/flow_table.h have them; they may be one.
func (t flowTable) buckets(tag uint64) [2]*nativeFlowBucket {
	mask := uint32(len(t) - 1)
	return [2]*nativeFlowBucket{
		&t[uint32(tag)&mask],
		&t[(uint32(tag)^uint32(tag>>32)*0x9e3779b1)&mask],
	}
}

// has tells whether a tag is in the table.
func (t flowTable) has(tag uint64) bool {
	for _, b := range t.buckets(tag) {
		for i := range b.Tag {
			if atomic.LoadUint64(&b.Tag[i])>>flowTagShift == tag {
				return true
			}
		}
	}
	return false
}

// add puts the two words of a flow that is not there into a free entry; false if there is none.
func (t flowTable) add(tag, value uint64) bool {
	for _, b := range t.buckets(tag >> flowTagShift) {
		for i := range b.Tag {
			if atomic.CompareAndSwapUint64(&b.Tag[i], 0, flowClaimed) {
				atomic.StoreUint64(&b.Value[i], value)
				atomic.StoreUint64(&b.Tag[i], tag)
				return true
			}
		}
	}
	return false
}

// copyFrom adds what another table holds and this one does not, and returns how many flows found no
// place.
func (t flowTable) copyFrom(from flowTable) (lost int) {
	from.each(func(e flowEntry) {
		if !t.has(e.tag>>flowTagShift) && !t.add(e.tag, e.value) {
			lost++
		}
	})
	return lost
}

// flowBits is the number of bits of a bucket's index in the smallest table for n flows.
func flowBits(n int) int { return bits.Len(uint((n+flowPerBucket-1)/flowPerBucket - 1)) }

// flowClock turns ticks of the flow table into times.
type flowClock struct {
	now  uint32        // the present tick
	tick time.Duration // its length
}

// flow is an entry's flow.
func (c flowClock) flow(e flowEntry) lb.Flow {
	return lb.Flow{
		Tag:        e.tag >> flowTagShift,
		Real:       lb.RealID(e.value) & lb.MaxRealID,
		Generation: uint8(e.tag >> flowGenerationShift),
		Slot:       uint32(e.value >> flowSlotShift & (1<<flowSlotBits - 1)),
		Idle:       c.idle(uint32(e.value >> flowTickShift)),
		Seen:       e.tag&flowSeen != 0,
	}
}

// idle is how long ago a tick was. One that began after the clock was read is now.
func (c flowClock) idle(tick uint32) time.Duration {
	ticks := (c.now - tick) & flowTickMask
	if ticks > flowTickMask/2 {
		return 0
	}
	return time.Duration(ticks) * c.tick
}

// words are the two words of a flow's entry.
func (c flowClock) words(f lb.Flow) (tag, value uint64) {
	tag = f.Tag<<flowTagShift | uint64(f.Generation)<<flowGenerationShift
	if f.Seen {
		tag |= flowSeen
	}
	ago := min(max(f.Idle/c.tick, 0), flowTickMask/2)
	tick := (c.now - uint32(ago)) & flowTickMask
	return tag, uint64(f.Real) | uint64(f.Slot)<<flowSlotShift | uint64(tick)<<flowTickShift
}
