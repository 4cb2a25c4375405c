// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// fragmentProtocol marks the protocol of the key that a fragment's VIP is found by.
const fragmentProtocol = 0x80

// vipSet is a set of VIPs as the maps have it.
type vipSet struct {
	v4, v6   vipFamily
	prefixes map[nativeVipPrefix]uint64
	addrs    map[nativeVipAddr]bool // of VIPs that are no prefixes
	infos    map[uint32]nativeVipInfo
	words    map[uint32]uint64 // by their index in the rings map
}

// vipFamily is what the buckets of one family hold.
type vipFamily struct {
	keys   []vipKey
	values []uint64
	again  bool // a VIP may be found by more than address and port
}

func (t *vipFamily) add(k vipKey, value uint64) {
	t.keys, t.values = append(t.keys, k), append(t.values, value)
}

// vipSetOf lays out VIPs whose rings have these places.
func vipSetOf(vips []lb.VIPEntry, places map[lb.RingID]span) *vipSet {
	s := &vipSet{
		prefixes: make(map[nativeVipPrefix]uint64),
		addrs:    make(map[nativeVipAddr]bool),
		infos:    make(map[uint32]nativeVipInfo),
		words:    make(map[uint32]uint64),
	}
	for _, v := range vips {
		place := places[v.RingID]
		s.infos[uint32(v.RingID)] = vipInfo(v, place.slots())
		s.words[place.first] = ringWord(v.RingID, v.Options)
		s.add(v.VIP, vipValue(place.slots(), v))
	}
	s.addFragments(vips, places)
	return s
}

func (s *vipSet) family(a netip.Addr) *vipFamily {
	if a.Is4() {
		return &s.v4
	}
	return &s.v6
}

func (s *vipSet) add(v lb.VIP, value uint64) {
	family := s.family(v.Addr)
	family.again = family.again || v.Port == 0 || v.IsPrefix()
	if !v.IsPrefix() {
		family.add(keyOf(v), value)
		s.addrs[nativeVipAddr{Addr: addrKey(v.Addr)}] = true
		return
	}
	s.prefixes[vipPrefix(v)] = value
	s.prefixes[vipPrefix(lb.VIP{Addr: v.Addr, HostBits: v.HostBits})] = 1 // tells that the addresses have a VIP
}

// addFragments adds what decides on fragments: one entry for an address and protocol.
func (s *vipSet) addFragments(vips []lb.VIPEntry, places map[lb.RingID]span) {
	if !slices.ContainsFunc(vips, func(v lb.VIPEntry) bool { return v.Options.Fragments != lb.FragmentsDrop }) {
		return // as nearly always
	}
	groups := make(map[lb.VIP][]lb.VIPEntry) // by their key
	for _, v := range vips {
		if key := (lb.VIP{Addr: v.VIP.Addr, Protocol: v.VIP.Protocol | fragmentProtocol}); !v.VIP.IsPrefix() {
			groups[key] = append(groups[key], v)
		}
	}
	for key, group := range groups {
		if value := fragmentValue(group, places); value != 0 {
			s.family(key.Addr).add(keyOf(key), value)
		}
	}
}

// fragmentValue is what a fragment to the address and protocol of these VIPs finds; 0, nothing, if it is
// to be dropped. They must agree; one whose fragments go by client must be alone.
func fragmentValue(vips []lb.VIPEntry, places map[lb.RingID]span) uint64 {
	if len(vips) == 1 && vips[0].Options.Fragments == lb.FragmentsByClient {
		v := vips[0]
		value := vipValue(places[v.RingID].slots(), v)
		if v.VIP.Port == 0 {
			value |= vipByPort0 << vipFlagsShift // as its other packets have it
		}
		return value
	}
	for _, v := range vips {
		if v.Options.Fragments != lb.FragmentsPass {
			return 0
		}
	}
	return vipFragmentsPass << vipFlagsShift
}

// setVIPs makes the maps hold vips. What is new is described before packets meet it, what was there
// before and is gone is cleared after. What an earlier set left that could not be written is cleared
// first, so that there is room.
func (g *generation) setVIPs(vips, before []lb.VIPEntry, places map[lb.RingID]span) error {
	set := vipSetOf(vips, places)
	if err := g.clearOtherVIPs(set, vipSetOf(before, places)); err != nil {
		return err
	}
	for index, word := range set.words {
		atomic.StoreUint64(&g.rings.elems[index], word)
	}
	for addr := range set.addrs {
		if err := g.maps["vip_addrs"].Put(addr, uint32(1)); err != nil {
			return fmt.Errorf("set address of a VIP: %v", err)
		}
	}
	for ring, info := range set.infos {
		if err := g.maps["vip_infos"].Put(ring, info); err != nil {
			return fmt.Errorf("describe VIP of ring %d: %v", ring, err)
		}
	}
	if err := putAll(g.maps["vip_prefixes"], set.prefixes); err != nil {
		return fmt.Errorf("set VIPs of prefixes: %v", err)
	}
	if err := g.setTable4(set.v4); err != nil {
		return err
	}
	if err := g.setTable6(set.v6); err != nil {
		return err
	}
	return g.clearOtherVIPs(set)
}

// clearOtherVIPs removes the descriptions, addresses and prefixes that none of the sets has.
func (g *generation) clearOtherVIPs(sets ...*vipSet) error {
	infos, err := g.otherInfos(sets)
	if err != nil {
		return err
	}
	for _, ring := range infos {
		if err := g.maps["vip_infos"].Put(ring, nativeVipInfo{}); err != nil {
			return fmt.Errorf("clear description of ring %d's VIP: %v", ring, err)
		}
	}
	err = deleteOthers(g.maps["vip_addrs"], func(a nativeVipAddr, _ uint32) bool {
		return anySet(sets, func(s *vipSet) bool { return s.addrs[a] })
	})
	if err != nil {
		return fmt.Errorf("clear address of a VIP: %v", err)
	}
	err = deleteOthers(g.maps["vip_prefixes"], func(p nativeVipPrefix, _ uint64) bool {
		return anySet(sets, func(s *vipSet) bool { return s.prefixes[p] != 0 })
	})
	if err != nil {
		return fmt.Errorf("clear prefix of a VIP: %v", err)
	}
	return nil
}

// otherInfos lists the rings with a description of a VIP, but those of the sets.
func (g *generation) otherInfos(sets []*vipSet) (others []uint32, err error) {
	err = eachElement(g.maps["vip_infos"], func(ring uint32, info nativeVipInfo) {
		wanted := anySet(sets, func(s *vipSet) bool { return s.infos[ring].RingSize != 0 })
		if info.RingSize != 0 && !wanted {
			others = append(others, ring)
		}
	})
	return others, err
}

func anySet(sets []*vipSet, has func(*vipSet) bool) bool {
	for _, s := range sets {
		if has(s) {
			return true
		}
	}
	return false
}

// setTable4 writes the table's idle half and takes it into use by one store; nothing, if the half
// in use says the same already.
func (g *generation) setTable4(t vipFamily) error {
	seed := &g.seeds.elems[0][0]
	if seedAgain(*seed) == t.again && table4Equals(g.vips4.elems, *seed, t.keys, t.values) {
		return nil
	}
	l, err := place(t.keys, t.again, vip4PerBucket, 1-seedHalf(*seed), bitsOfTable(len(g.vips4.elems)), mix4)
	if err != nil {
		return fmt.Errorf("set %d IPv4 VIPs: %w", len(t.keys), err)
	}
	writeTable4(g.vips4.elems, l, t.keys, t.values)
	atomic.StoreUint64(seed, l.seed)
	return nil
}

// setTable6 is setTable4 for IPv6.
func (g *generation) setTable6(t vipFamily) error {
	seed := &g.seeds.elems[0][1]
	if seedAgain(*seed) == t.again && table6Equals(g.vips6.elems, *seed, t.keys, t.values) {
		return nil
	}
	l, err := place(t.keys, t.again, vip6PerBucket, 1-seedHalf(*seed), bitsOfTable(len(g.vips6.elems)), mix6)
	if err != nil {
		return fmt.Errorf("set %d IPv6 VIPs: %w", len(t.keys), err)
	}
	writeTable6(g.vips6.elems, l, t.keys, t.values)
	atomic.StoreUint64(seed, l.seed)
	return nil
}

// putAll adds entries to a hash or trie, and overwrites those that are there.
func putAll[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	for k, v := range entries {
		if err := m.Put(k, v); err != nil {
			return err
		}
	}
	return nil
}

// entriesOf reads a hash or trie that nobody else writes.
func entriesOf[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	found := make(map[K]V)
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		found[key] = value
	}
	return found, entries.Err()
}

// deleteOthers removes the entries that keep refuses.
func deleteOthers[K comparable, V any](m *ebpf.Map, keep func(K, V) bool) error {
	found, err := entriesOf[K, V](m)
	if err != nil {
		return err
	}
	for k, v := range found {
		if keep(k, v) {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
