// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS reference bpf/reference.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS rewind bpf/rewind.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS veth bpf/veth.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS churn bpf/churn.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS generator bpf/generator.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang-19 -target bpfel -cflags $BPF_CFLAGS sink bpf/sink.bpf.c -- -O2 -g -Wall -Werror -mcpu=v3

// Unit is the name of the reference program whose cost is 1.
const Unit = "lb_stats"

// UnitTarget is lb_stats: VIP, ring, real, counters, encapsulation, for IPv4 only.
func UnitTarget() Target { return referenceTarget(Unit, balanced4) }

// dropTarget is the baseline of Veth.
func dropTarget() Target {
	return referenceTarget("drop", func(Case) Expectation { return Expectation{lb.Drop, 0} })
}

// Floors are the reference programs other than lb_stats: what a verdict alone, encapsulation
// alone, and balancing without VIPs and counters cost.
func Floors() []Target {
	constant := func(e Expectation) func(Case) Expectation { return func(Case) Expectation { return e } }
	return []Target{
		dropTarget(),
		referenceTarget("tx", constant(Expectation{lb.TX, 0})),
		referenceTarget("encap_const", constant(Expectation{lb.TX, 20})),
		referenceTarget("lb_ring", ringOnly4),
	}
}

// isFloor tells whether a target is a reference program.
func isFloor(name string) bool {
	return name == Unit || slices.ContainsFunc(Floors(), func(t Target) bool { return t.Name == name })
}

func referenceTarget(name string, expect func(Case) Expectation) Target {
	return Target{
		Name:   name,
		Load:   func() (*ebpf.Program, io.Closer, error) { return loadReferenceProgram(name) },
		Expect: expect,
	}
}

// balanced4 is what lb_stats does: it knows the IPv4 VIPs, and IPv4 outer headers only.
func balanced4(c Case) Expectation {
	if c.Name == "not-a-vip" {
		return Expectation{lb.Pass, 0}
	}
	return ringOnly4(c)
}

// ringOnly4 is what lb_ring does: any IPv4 packet of TCP or UDP is for it.
func ringOnly4(c Case) Expectation {
	const proto = etherLen + 9
	if binary.BigEndian.Uint16(c.Frame[12:]) != etherIPv4 || c.Frame[proto] == protoICMP {
		return Expectation{lb.Pass, 0}
	}
	return Expectation{lb.TX, 20}
}

// loadReferenceProgram loads one of the reference programs with the maps that it uses, and fills
// them with the topology's IPv4 VIPs and reals.
func loadReferenceProgram(name string) (*ebpf.Program, io.Closer, error) {
	spec, err := loadReference()
	if err != nil {
		return nil, nil, fmt.Errorf("load reference programs: %w", err)
	}
	if err := keepProgram(spec, name); err != nil {
		return nil, nil, err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, nil, fmt.Errorf("load reference program %s: %w", name, err)
	}
	if err := fillReference(coll.Maps); err != nil {
		coll.Close()
		return nil, nil, fmt.Errorf("fill reference program %s: %w", name, err)
	}
	return coll.Programs[name], collectionCloser{coll}, nil
}

// fillReference writes those of the maps that are there.
func fillReference(maps map[string]*ebpf.Map) error {
	if m := maps["ref_ring"]; m != nil {
		keys, ids := make([]uint32, lb.DefaultRingSize), scrambled(lb.DefaultRingSize, realsByVIP)
		for i := range keys {
			keys[i] = uint32(i)
			ids[i]++ // from 1 on
		}
		if _, err := m.BatchUpdate(keys, ids, nil); err != nil {
			return fmt.Errorf("write ring: %w", err)
		}
	}
	if m := maps["ref_reals"]; m != nil {
		for i := 1; i <= realsByVIP; i++ {
			addr := backend4(i).As4()
			real := referenceReal{Dst: binary.NativeEndian.Uint32(addr[:]), Mac: NextHop().MAC}
			if err := m.Put(uint32(i), real); err != nil {
				return fmt.Errorf("write real %d: %w", i, err)
			}
		}
	}
	if m := maps["ref_vips"]; m != nil {
		plan := addresses()
		for _, v := range []lb.VIP{
			{Addr: plan.vip4, Port: 80, Protocol: lb.TCP},
			{Addr: plan.vip4, Port: 53, Protocol: lb.UDP},
			{Addr: plan.vip4To6, Port: 80, Protocol: lb.TCP},
		} {
			key := append(v.Addr.AsSlice(), byte(v.Port>>8), byte(v.Port), byte(v.Protocol), 0)
			if err := m.Put(key, uint32(1)); err != nil {
				return fmt.Errorf("write VIP %s: %w", v, err)
			}
		}
	}
	return nil
}
