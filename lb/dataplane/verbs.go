// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

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
	inUse := ok && at.size == uint32(len(slots))
	if !inUse {
		fresh, err := d.allocRing(uint32(len(slots)))
		if err != nil {
			return 0, fmt.Errorf("set ring %d: %w", id, err)
		}
		if ok {
			d.retired = append(d.retired, d.space.spans[id])
		}
		at = fresh
		d.space.set(id, at)
	}
	written := publish(d.gen.rings.elems[at.first:at.end()], slots)
	// Nothing is taken out of use by a ring that no VIP names yet: thousands of new rings must not
	// wait for one another.
	d.settler.needed = d.settler.needed || inUse && written > 0
	return written, nil
}

// allocRing finds a place for a ring, in a new generation if there is none in this.
func (d *Dataplane) allocRing(n uint32) (span, error) {
	if err := d.settler.wait(); err != nil {
		return span{}, err
	}
	if at, ok := d.space.alloc(n, d.retired...); ok {
		return at, nil
	}
	// A ring that moves is in its old place and its new one for a while.
	if err := d.ensure(sizes{slots: max(len(d.gen.rings.elems)+1, d.space.slots()+int(n))}); err != nil {
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
	need := sizes{vips: addressCount(vips, d.vips)}
	for _, v := range vips {
		need.vips = max(need.vips, int(v.RingID)+1)
		if _, ok := d.space.spans[v.RingID]; !ok {
			return fmt.Errorf("set VIP %v: ring %d is not there", v.VIP, v.RingID)
		}
	}
	v4, v6 := familySplit(vips)
	need.bits4, need.bits6 = tableBits(len(v4), vip4PerBucket), tableBits(len(v6), vip6PerBucket)
	if err := d.ensure(need); err != nil {
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

// addressCount is the number of addresses of two sets of VIPs together: while one takes the place
// of the other, the addresses of both are there.
func addressCount(a, b []lb.VIPEntry) int {
	addrs := make(map[netip.Addr]bool)
	for _, v := range a {
		addrs[v.VIP.Addr] = true
	}
	for _, v := range b {
		addrs[v.VIP.Addr] = true
	}
	return len(addrs)
}

// setVIPs makes the tables hold vips. What is new is described before packets meet it, what was
// there before and is gone is cleared after. What an earlier set left that could not be written is
// cleared first, so that there is room.
func (g *generation) setVIPs(vips, before []lb.VIPEntry, spans map[lb.RingID]span) error {
	if err := g.clearOtherVIPs(vips, before); err != nil {
		return err
	}
	for _, v := range vips {
		if err := g.maps["vip_addrs"].Put(nativeVipAddr{Addr: addrWords(v.VIP.Addr)}, uint32(1)); err != nil {
			return fmt.Errorf("set VIP %v: %v", v.VIP, err)
		}
		if err := g.maps["vip_infos"].Put(uint32(v.RingID), vipInfo(v, spans[v.RingID])); err != nil {
			return fmt.Errorf("describe VIP %v: %v", v.VIP, err)
		}
	}
	v4, v6 := familySplit(vips)
	if err := g.setTable4(v4, spans); err != nil {
		return err
	}
	if err := g.setTable6(v6, spans); err != nil {
		return err
	}
	return g.clearOtherVIPs(vips)
}

// clearOtherVIPs removes the descriptions and addresses that none of the sets has.
func (g *generation) clearOtherVIPs(sets ...[]lb.VIPEntry) error {
	rings, addrs := make(map[uint32]bool), make(map[nativeVipAddr]bool)
	for _, v := range slices.Concat(sets...) {
		rings[uint32(v.RingID)], addrs[nativeVipAddr{Addr: addrWords(v.VIP.Addr)}] = true, true
	}
	infos, err := g.otherInfos(rings)
	if err != nil {
		return err
	}
	for _, ring := range infos {
		if err := g.maps["vip_infos"].Put(ring, nativeVipInfo{}); err != nil {
			return fmt.Errorf("clear description of ring %d's VIP: %v", ring, err)
		}
	}
	others, err := g.otherAddrs(addrs)
	if err != nil {
		return err
	}
	for _, addr := range others {
		if err := g.maps["vip_addrs"].Delete(addr); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("clear address of a VIP: %v", err)
		}
	}
	return nil
}

// otherInfos lists the rings with a description of a VIP, but these.
func (g *generation) otherInfos(rings map[uint32]bool) (others []uint32, err error) {
	err = eachElement(g.maps["vip_infos"], func(ring uint32, info nativeVipInfo) {
		if info.RingSize != 0 && !rings[ring] {
			others = append(others, ring)
		}
	})
	return others, err
}

// otherAddrs lists the addresses that the program takes for those of VIPs, but these.
func (g *generation) otherAddrs(addrs map[nativeVipAddr]bool) (others []nativeVipAddr, err error) {
	var addr nativeVipAddr
	var value uint32
	entries := g.maps["vip_addrs"].Iterate()
	for entries.Next(&addr, &value) {
		if !addrs[addr] {
			others = append(others, addr)
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("list addresses of VIPs: %v", err)
	}
	return others, nil
}

func keysAndValues(vips []lb.VIPEntry, spans map[lb.RingID]span) (keys []vipKey, values []uint64) {
	for _, v := range vips {
		keys = append(keys, keyOf(v.VIP))
		values = append(values, vipValue(spans[v.RingID], v.Flows))
	}
	return keys, values
}

// setTable4 writes the table's idle half and takes it into use by one store; nothing, if the half
// in use says the same already.
func (g *generation) setTable4(vips []lb.VIPEntry, spans map[lb.RingID]span) error {
	keys, values := keysAndValues(vips, spans)
	seed := &g.seeds.elems[0][0]
	if table4Equals(g.vips4.elems, *seed, keys, values) {
		return nil
	}
	l, err := place(keys, vip4PerBucket, 1-seedHalf(*seed), bitsOfTable(len(g.vips4.elems)), mix4)
	if err != nil {
		return fmt.Errorf("set %d IPv4 VIPs: %w", len(keys), err)
	}
	writeTable4(g.vips4.elems, l, keys, values)
	atomic.StoreUint64(seed, l.seed)
	return nil
}

// setTable6 is setTable4 for IPv6.
func (g *generation) setTable6(vips []lb.VIPEntry, spans map[lb.RingID]span) error {
	keys, values := keysAndValues(vips, spans)
	seed := &g.seeds.elems[0][1]
	if table6Equals(g.vips6.elems, *seed, keys, values) {
		return nil
	}
	l, err := place(keys, vip6PerBucket, 1-seedHalf(*seed), bitsOfTable(len(g.vips6.elems)), mix6)
	if err != nil {
		return fmt.Errorf("set %d IPv6 VIPs: %w", len(keys), err)
	}
	writeTable6(g.vips6.elems, l, keys, values)
	atomic.StoreUint64(seed, l.seed)
	return nil
}
