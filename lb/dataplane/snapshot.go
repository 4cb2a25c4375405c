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
	VIPs       []lb.VIPEntry
	Reals      []RealState
	// Removed sums the counters of reals that are gone.
	Removed Counter
	// Reasons counts packets by reason; that of lb.ReasonForwarded is the sum over all reals.
	Reasons [lb.ReasonLen]uint64
}

// RealState is a real and its counters.
type RealState struct {
	lb.Real
	Counter
}

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
	}
	counters, err := readRealCounters(g.maps["real_counters"])
	if err != nil {
		return nil, err
	}
	if s.Reasons, err = readReasonCounters(g.maps["reason_counters"]); err != nil {
		return nil, err
	}
	s.Removed = counters[removedReals]
	for _, c := range counters {
		s.Reasons[lb.ReasonForwarded] += c.Packets
	}
	err = eachRealInfo(g, func(id lb.RealID, ri nativeRealInfo) {
		s.Reals = append(s.Reals, RealState{realOf(id, ri, g.reals.elems[id]), counters[id]})
	})
	if err != nil {
		return nil, err
	}
	err = eachVIPInfo(g, func(vi nativeVipInfo) {
		v, _ := entryOf(vi)
		s.VIPs = append(s.VIPs, v)
	})
	slices.SortFunc(s.VIPs, func(a, b lb.VIPEntry) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.VIP.Compare(b.VIP))
	})
	return s, err
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
	return writeInstance(to, info)
}
