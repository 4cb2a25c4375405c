// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
)

// ErrNoInstance is returned if nothing is pinned under the instance's name.
var ErrNoInstance = errors.New("no such instance")

// Snapshot is what a data plane is configured to do and what it has counted, read from its maps.
type Snapshot struct {
	Instance   string
	Interface  string
	Mode       attach.Mode
	ModeReason string
	Attached   time.Time
	VIPs       []VIPState
	Reals      []RealState
	// Removed sums the counters of reals that are gone.
	Removed Counter
	// Reasons counts packets by reason; that of lb.ReasonForwarded is the sum over all reals, less what was
	// for reals that are this machine.
	Reasons [lb.ReasonLen]uint64
	// FlowEvents counts what happened at the flow table.
	FlowEvents [lb.FlowEventLen]uint64
	// Decapsulated4 and Decapsulated6 count packets that lost their outer headers, by inner family.
	Decapsulated4, Decapsulated6 uint64
	// Targets is how many ways from server ids, and backends of source routes, to reals there are;
	// SourceRoutes how many prefixes of clients.
	Targets, SourceRoutes int
	// Features are the parts of the program that are in use beside what each packet needs, by name.
	Features []string
	// Flows is how many flows are remembered, FlowCapacity how many there is room for.
	Flows, FlowCapacity int
	// Maps are how full they are, by name.
	Maps []MapFill
}

// VIPState is a VIP and how many slots of its ring are in each state.
type VIPState struct {
	lb.VIPEntry
	SlotStates [lb.SlotStateLen]int
}

// RealState is a real, its counters, and what would still send packets to it beside the slots that
// have it.
type RealState struct {
	lb.Real
	Counter
	// Flows is how many flows are remembered at the real, ActiveFlows how many of them sent a packet
	// within the last minute. Flows of earlier holders of the id do not count.
	Flows, ActiveFlows int
	// PrevSlots is how many moving slots have the real as their previous one.
	PrevSlots int
}

// activeWithin is how lately a flow sent a packet that is called active.
const activeWithin = time.Minute

// ReadSnapshot reads the pinned maps of an instance, whether or not its daemon runs. Errors of
// ErrNoInstance say that there is none.
func ReadSnapshot(bpffs, instance string) (*Snapshot, error) {
	g, err := pinsOf(bpffs, instance).openInUse()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("read instance %q below %s: %w", instance, bpffs, ErrNoInstance)
	case err != nil:
		return nil, fmt.Errorf("read instance %q: %v", instance, err)
	}
	defer g.close()
	return readSnapshot(g, instance)
}

// openInUse opens the generation that maps points to. Errors of os.ErrNotExist say that it points
// nowhere. While we open one pin after the other, the writer may take another generation into use
// and remove this one's pins: then that other is opened.
func (p pins) openInUse() (*generation, error) {
	tried := ""
	for {
		// Read once, so that all maps are of one generation.
		maps, err := os.Readlink(filepath.Join(p.root, "maps"))
		if err != nil {
			return nil, err
		}
		g, err := openGeneration(0, filepath.Dir(filepath.Join(p.root, maps)))
		if err == nil || maps == tried {
			return g, err
		}
		tried = maps
	}
}

func readSnapshot(g *generation, instance string) (*Snapshot, error) {
	info, err := readInstance(g)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		Instance:   instance,
		Interface:  text(info.Interface[:]),
		Mode:       attach.Mode(info.Mode),
		ModeReason: text(info.ModeReason[:]),
		Attached:   time.Unix(int64(info.AttachedSec), 0).UTC(),

		SourceRoutes: int(info.SourceRoutes),
		Features:     g.features.names(),
		FlowCapacity: g.flowCapacity(),
	}
	if err := s.readReals(g); err != nil {
		return nil, err
	}
	if err := s.readVIPs(g); err != nil {
		return nil, err
	}
	if err := readSums(g.maps["flow_counters"], s.FlowEvents[:]); err != nil {
		return nil, err
	}
	if err := s.readRest(g); err != nil {
		return nil, err
	}
	if err := s.countFlows(g); err != nil {
		return nil, err
	}
	s.Maps = s.fills(g)
	return s, nil
}

// readReals reads the reals, and all counters of packets.
func (s *Snapshot) readReals(g *generation) error {
	counters, err := readRealCounters(g.maps["real_counters"])
	if err != nil {
		return err
	}
	if err := readSums(g.maps["reason_counters"], s.Reasons[:]); err != nil {
		return err
	}
	s.Removed = counters[removedReals]
	for _, c := range counters {
		s.Reasons[lb.ReasonForwarded] += c.Packets
	}
	// Counters are read one after the other, under way.
	s.Reasons[lb.ReasonForwarded] -= min(s.Reasons[lb.ReasonLocal], s.Reasons[lb.ReasonForwarded])
	return eachRealInfo(g, func(id lb.RealID, info nativeRealInfo) {
		s.Reals = append(s.Reals, RealState{Real: realOf(id, info, g.reals.elems[id]), Counter: counters[id]})
	})
}

// readRest reads what few data planes have.
func (s *Snapshot) readRest(g *generation) error {
	var decapsulated [2]uint64
	if err := readSums(g.maps["decap_counters"], decapsulated[:]); err != nil {
		return err
	}
	s.Decapsulated4, s.Decapsulated6 = decapsulated[0], decapsulated[1]
	if g.maps["targets"] == nil {
		return nil
	}
	targets, err := entriesOf[nativeTarget, uint32](g.maps["targets"])
	s.Targets = len(targets)
	if err != nil && !errors.Is(err, ebpf.ErrIterationAborted) { // the daemon deletes some this moment
		return fmt.Errorf("count targets: %v", err)
	}
	return nil
}

// readVIPs reads the VIPs, and the slots of their rings.
func (s *Snapshot) readVIPs(g *generation) error {
	prev := make([]int, len(g.reals.elems)) // moving slots by previous real
	err := eachVIPInfo(g, func(info nativeVipInfo) {
		v, at := entryOf(info)
		state := VIPState{VIPEntry: v}
		if g.hasPlace(at) {
			state.SlotStates = countSlots(g.slots(placeOf(at)), prev)
		}
		s.VIPs = append(s.VIPs, state)
	})
	slices.SortFunc(s.VIPs, func(a, b VIPState) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.VIP.Compare(b.VIP))
	})
	for i := range s.Reals {
		s.Reals[i].PrevSlots = prev[s.Reals[i].ID]
	}
	return err
}

// countSlots counts the slots of a ring by state, and adds the moving ones to prev by their previous
// real. Nearly all are stable, of rings that may be thousands: they cost one comparison.
func countSlots(ring []uint64, prev []int) (states [lb.SlotStateLen]int) {
	states[lb.SlotStable] = len(ring)
	for _, word := range ring {
		slot := lb.Slot(word)
		if slot.Stable() {
			continue
		}
		states[lb.SlotStable]--
		states[slot.State()]++
		if id := int(slot.Prev()); slot.State() == lb.SlotMoving && id < len(prev) {
			prev[id]++
		}
	}
	return states
}

// countFlows counts the remembered flows.
func (s *Snapshot) countFlows(g *generation) error {
	clock, err := g.flowClock()
	if err != nil {
		return err
	}
	reals := make(map[lb.RealID]*RealState, len(s.Reals))
	for i := range s.Reals {
		reals[s.Reals[i].ID] = &s.Reals[i]
	}
	flowTable(g.flows.elems).each(func(e flowEntry) {
		s.Flows++
		f := clock.flow(e)
		r := reals[f.Real]
		if r == nil || r.Generation != f.Generation {
			return
		}
		r.Flows++
		if f.Idle <= activeWithin {
			r.ActiveFlows++
		}
	})
	return nil
}

func eachVIPInfo(g *generation, f func(nativeVipInfo)) error {
	return eachElement(g.maps["vip_infos"], func(_ uint32, info nativeVipInfo) {
		if info.RingSize != 0 {
			f(info)
		}
	})
}

func eachRealInfo(g *generation, f func(lb.RealID, nativeRealInfo)) error {
	return eachElement(g.maps["real_infos"], func(id uint32, info nativeRealInfo) {
		if info.InUse != 0 {
			f(lb.RealID(id), info)
		}
	})
}

// eachElement calls f with every element of an array.
func eachElement[T any](m *ebpf.Map, f func(index uint32, value T)) error {
	n := min(int(m.MaxEntries()), countersPerCall)
	keys, values := make([]uint32, n), make([]T, n)
	var cursor ebpf.MapBatchCursor
	for {
		got, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read map %v: %v", m, err)
		}
		for i := range got {
			f(keys[i], values[i])
		}
		if err != nil {
			return nil
		}
	}
}

func readInstance(g *generation) (info nativeInstanceInfo, err error) {
	if err := g.maps["instance"].Lookup(uint32(0), &info); err != nil {
		return info, fmt.Errorf("read description of the instance: %v", err)
	}
	return info, nil
}

func writeInstance(g *generation, info nativeInstanceInfo) error {
	if err := g.maps["instance"].Put(uint32(0), info); err != nil {
		return fmt.Errorf("describe the instance: %v", err)
	}
	return nil
}

func copyInstance(from, to *generation) error {
	info, err := readInstance(from)
	if err != nil {
		return err
	}
	info.Schema = schemaVersion
	return writeInstance(to, info)
}
