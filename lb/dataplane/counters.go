// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// Counter is packets, and bytes of inner IP packets with their headers.
type Counter struct{ Packets, Bytes uint64 }

// removedReals is the element that holds the sums of reals that are gone: id 0 is no real.
const removedReals = 0

const countersPerCall = 4096

// readRealCounters sums the counters of all reals over CPUs, by id.
func readRealCounters(m *ebpf.Map) ([]Counter, error) {
	sums := make([]Counter, m.MaxEntries())
	err := eachPerCPU(m, func(id uint32, perCPU []nativeCounter) {
		for _, c := range perCPU {
			sums[id].Packets += c.Pkts
			sums[id].Bytes += c.Bytes
		}
	})
	return sums, err
}

// readSums sums each element of a map of counters over CPUs, of those that there are: an earlier schema
// may count less, or have no such map.
func readSums(m *ebpf.Map, sums []uint64) error {
	if m == nil {
		return nil
	}
	var perCPU []uint64
	for i := range min(len(sums), int(m.MaxEntries())) {
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return fmt.Errorf("read counter %d of %v: %v", i, m, err)
		}
		for _, n := range perCPU {
			sums[i] += n
		}
	}
	return nil
}

// eachPerCPU calls f with the values of every element of a per-CPU array.
func eachPerCPU[T any](m *ebpf.Map, f func(index uint32, perCPU []T)) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count CPUs: %v", err)
	}
	n := min(int(m.MaxEntries()), countersPerCall)
	keys, values := make([]uint32, n), make([]T, n*cpus)
	var cursor ebpf.MapBatchCursor
	for {
		got, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read counters %v: %v", m, err)
		}
		for i := range got {
			f(keys[i], values[i*cpus:(i+1)*cpus])
		}
		if err != nil {
			return nil
		}
	}
}

// sharedNames are the maps that generations share if they have room for as much. What they hold does not
// depend on where rings are.
var sharedNames = []string{
	"real_counters", "reason_counters", "flow_counters", "decap_counters", "flows", "targets", "source_routes",
}

// sharedMaps are those of the shared maps, by name, that a generation of another one's sizes can
// go on using: then nothing that is counted or remembered during the change is lost.
func (g *generation) sharedMaps(next *ebpf.CollectionSpec) map[string]*ebpf.Map {
	shared := make(map[string]*ebpf.Map)
	if g == nil {
		return shared
	}
	for _, name := range sharedNames {
		if m := g.maps[name]; m != nil && m.MaxEntries() == next.Maps[name].MaxEntries {
			shared[name] = m
		}
	}
	return shared
}

// copyCounters carries counters over to a generation that no packet uses yet, if it does not share them.
// What is counted after that is not carried over.
func copyCounters(from, to *generation) error {
	if err := copyPerCPU[nativeCounter](from.maps["real_counters"], to.maps["real_counters"]); err != nil {
		return fmt.Errorf("copy counters of reals: %v", err)
	}
	for _, name := range []string{"reason_counters", "flow_counters"} {
		if err := copyPerCPU[uint64](from.maps[name], to.maps[name]); err != nil {
			return fmt.Errorf("copy %s: %v", name, err)
		}
	}
	return nil
}

// copyPerCPU copies the elements that are not zero, unless both have as many: then the map is shared.
func copyPerCPU[T comparable](source, target *ebpf.Map) error {
	if source.MaxEntries() == target.MaxEntries() {
		return nil
	}
	var zero T
	var failed error
	err := eachPerCPU(source, func(index uint32, perCPU []T) {
		empty := !slices.ContainsFunc(perCPU, func(v T) bool { return v != zero })
		if failed == nil && !empty && index < target.MaxEntries() {
			failed = target.Put(index, perCPU)
		}
	})
	return errors.Join(err, failed)
}

// retireCounter adds a real's counter to those of removed reals and clears it. No packet is counted
// for the id any more.
func (g *generation) retireCounter(id lb.RealID) error {
	m := g.maps["real_counters"]
	var gone, sum []nativeCounter
	if err := m.Lookup(uint32(id), &gone); err != nil {
		return fmt.Errorf("read counter of real %d: %v", id, err)
	}
	if err := m.Lookup(uint32(removedReals), &sum); err != nil {
		return fmt.Errorf("read counter of removed reals: %v", err)
	}
	for i := range gone {
		sum[i].Pkts += gone[i].Pkts
		sum[i].Bytes += gone[i].Bytes
		gone[i] = nativeCounter{}
	}
	// Cleared first: a failure in between loses a count rather than doubling it.
	if err := m.Put(uint32(id), gone); err != nil {
		return fmt.Errorf("clear counter of real %d: %v", id, err)
	}
	if err := m.Put(uint32(removedReals), sum); err != nil {
		return fmt.Errorf("add to counter of removed reals: %v", err)
	}
	return nil
}
