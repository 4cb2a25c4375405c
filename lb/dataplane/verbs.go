// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/remora-lb/remora/lb"
)

// SetReals implements engine.Dataplane.
func (d *Dataplane) SetReals(reals []lb.Real) error {
	for _, r := range reals {
		if r.ID == 0 || r.ID > lb.MaxRealID {
			return fmt.Errorf("set real %d: ids go from 1 to %d", r.ID, lb.MaxRealID)
		}
		if err := d.ensure(sizes{reals: int(r.ID) + 1}); err != nil {
			return err
		}
		if err := d.gen.setReal(r); err != nil {
			return err
		}
		d.reals[r.ID] = r
	}
	return nil
}

// setReal writes description and record. Only words that differ are written.
func (g *generation) setReal(r lb.Real) error {
	if err := g.maps["real_infos"].Put(uint32(r.ID), realInfo(r)); err != nil {
		return fmt.Errorf("describe real %d: %v", r.ID, err)
	}
	storeReal(&g.reals.elems[r.ID], realRecord(r))
	return nil
}

// realWords is a record as the words that the program reads one by one.
type realWords = [unsafe.Sizeof(nativeReal{}) / 8]uint64

// limitsWord is the index of the word with max_bytes: 0 there keeps packets from the record.
const limitsWord = unsafe.Offsetof(nativeReal{}.Sum) / 8

// storeReal changes a record under the eyes of the program: while any other word changes, the
// record must not be new and usable at once.
func storeReal(at *nativeReal, rec nativeReal) {
	to, from := (*realWords)(unsafe.Pointer(at)), (*realWords)(unsafe.Pointer(&rec))
	if rec.MaxBytes == 0 {
		atomic.StoreUint64(&to[limitsWord], from[limitsWord])
	}
	for i := range to {
		if i != int(limitsWord) && to[i] != from[i] {
			atomic.StoreUint64(&to[i], from[i])
		}
	}
	if to[limitsWord] != from[limitsWord] {
		atomic.StoreUint64(&to[limitsWord], from[limitsWord])
	}
}

// DeleteReals implements engine.Dataplane. Counts go to those of removed reals.
func (d *Dataplane) DeleteReals(ids []lb.RealID) error {
	if len(ids) == 0 {
		return nil
	}
	// A packet that took the id from its slot before that changed must still find the record.
	if err := d.settler.wait(); err != nil {
		return err
	}
	for _, id := range ids {
		if id == 0 || int(id) >= len(d.gen.reals.elems) {
			continue
		}
		storeReal(&d.gen.reals.elems[id], nativeReal{})
		if err := d.gen.retireCounter(id); err != nil {
			return err
		}
		if err := d.gen.maps["real_infos"].Put(uint32(id), nativeRealInfo{}); err != nil {
			return fmt.Errorf("clear description of real %d: %v", id, err)
		}
		delete(d.reals, id)
	}
	return nil
}

// SetRing implements engine.Dataplane.
func (d *Dataplane) SetRing(id lb.RingID, slots []lb.Slot) (int, error) {
	if len(slots) == 0 || len(slots) > lb.MaxRingSize {
		return 0, fmt.Errorf("set ring %d: %d slots, but a ring has 1 to %d", id, len(slots), lb.MaxRingSize)
	}
	at, ok := d.space.spans[id]
	inUse := ok && at.slots().size == uint32(len(slots))
	if !inUse {
		fresh, err := d.allocRing(uint32(len(slots)) + 1)
		if err != nil {
			return 0, fmt.Errorf("set ring %d: %w", id, err)
		}
		if ok {
			d.retired = append(d.retired, d.space.spans[id])
		}
		at = fresh
		d.space.set(id, at)
		atomic.StoreUint64(&d.gen.rings.elems[at.first], ringWord(id, lb.Options{})) // until a VIP has it
	}
	written := publish(d.gen.slots(at), slots)
	// Nothing is taken out of use by a ring that no VIP names yet: thousands of new rings must not
	// wait for one another.
	d.settler.needed = d.settler.needed || inUse && written > 0
	return written, nil
}

// allocRing finds a place of n words for a ring, in a new generation if there is none in this.
func (d *Dataplane) allocRing(n uint32) (span, error) {
	if err := d.settler.wait(); err != nil {
		return span{}, err
	}
	if at, ok := d.space.alloc(n, d.retired...); ok {
		return at, nil
	}
	// A ring that moves is in its old place and its new one for a while.
	if err := d.ensure(sizes{words: max(len(d.gen.rings.elems)+1, d.space.words()+int(n))}); err != nil {
		return span{}, err
	}
	at, ok := d.space.alloc(n, d.retired...)
	if !ok {
		return span{}, errors.New("no room, and none was made")
	}
	return at, nil
}

// publish writes the slots that differ, one store each, and returns their number. The stores are
// plain: a word is never torn (go.dev/ref/mem, restrictions for programs with races), slots need no
// order among each other, and sync/atomic's would take three times as long.
func publish(ring []uint64, slots []lb.Slot) int {
	written := 0
	for i, s := range slots {
		if ring[i] != uint64(s) {
			ring[i] = uint64(s)
			written++
		}
	}
	return written
}

// DeleteRing implements engine.Dataplane.
func (d *Dataplane) DeleteRing(id lb.RingID) error {
	d.space.remove(id)
	d.settler.needed = true
	return nil
}

// SetVIPs implements engine.Dataplane.
func (d *Dataplane) SetVIPs(vips []lb.VIPEntry) error {
	for _, v := range vips {
		if _, ok := d.space.spans[v.RingID]; !ok {
			return fmt.Errorf("set VIP %v: ring %d is not there", v.VIP, v.RingID)
		}
	}
	if err := d.ensure(d.sizesOf(vips)); err != nil {
		return err
	}
	// Packets under way may still read the half of the tables that was in use before the last change.
	if err := d.settler.wait(); err != nil {
		return err
	}
	d.settler.needed = true // even if it fails half-way: one table may have changed its half
	err := d.gen.setVIPs(vips, d.vips, d.space.spans)
	if errors.Is(err, errTableFull) {
		// The estimate was unlucky: double the tables.
		have := d.gen.sizes()
		if err = d.ensure(sizes{bits4: have.bits4 + 1, bits6: have.bits6 + 1}); err == nil {
			err = d.gen.setVIPs(vips, d.vips, d.space.spans)
		}
	}
	if err != nil {
		return err
	}
	d.vips = slices.Clone(vips)
	d.retired = nil
	return nil
}

// sizesOf is the room that VIPs need while they take the place of those that are there.
func (d *Dataplane) sizesOf(vips []lb.VIPEntry) sizes {
	set, before := vipSetOf(vips, d.space.spans), vipSetOf(d.vips, d.space.spans)
	s := sizes{
		vips:     countBoth(set.addrs, before.addrs),
		bits4:    tableBits(len(set.v4.keys), vip4PerBucket),
		bits6:    tableBits(len(set.v6.keys), vip6PerBucket),
		prefixes: countBoth(set.prefixes, before.prefixes),
		features: d.features(vips),
	}
	for _, v := range vips {
		s.vips = max(s.vips, int(v.RingID)+1)
	}
	return s
}

// countBoth counts the keys of two maps together.
func countBoth[K comparable, V any](a, b map[K]V) int {
	n := len(a)
	for k := range b {
		if _, ok := a[k]; !ok {
			n++
		}
	}
	return n
}
