// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// Counters are read some thousands at a time; none may be missed or taken for another's.
func TestCountersOfManyReals(t *testing.T) {
	d := testOpen(t)
	ids := []lb.RealID{1, countersPerCall - 1, countersPerCall, countersPerCall + 1, 2*countersPerCall - 1, 2 * countersPerCall}
	var services []service
	for i, id := range ids {
		services = append(services, service{
			vip: fmt.Sprintf("203.0.113.%d:443/tcp", i), ring: lb.RingID(i), size: 7, firstID: id, backends: []string{"10.0.0.1"},
		})
	}
	fill(t, d, services...)
	want := counts{Reasons: map[lb.Reason]uint64{}, Reals: map[lb.RealID]Counter{}}
	for i, s := range services {
		vip := testVIP(t, s.vip)
		for range i + 1 {
			send(t, d.Program(), tcpFrame(client, netip.AddrPortFrom(vip.Addr, vip.Port).String()))
		}
		n := uint64(i + 1)
		want.Reals[ids[i]] = Counter{n, 45 * n}
		want.Reasons[lb.ReasonForwarded] += n
	}
	wantCounts(t, d, want)
	for _, entries := range []int{1, countersPerCall - 1, countersPerCall, countersPerCall + 1, 2 * countersPerCall} {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: uint32(entries)})
		require.NoError(t, err)
		seen := make([]int, entries)
		require.NoError(t, eachPerCPU(m, func(i uint32, _ []nativeCounter) { seen[i]++ }))
		m.Close()
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("element %d of %d was read %d times", i, entries, n)
			}
		}
	}
}

// The counts of all CPUs are summed, and none is lost when they are carried over.
func TestCountersOfAllCPUs(t *testing.T) {
	d := testOpen(t)
	fill(t, d, web())
	cpus := ebpf.MustPossibleCPU()
	perCPU, reasons := make([]nativeCounter, cpus), make([]uint64, cpus)
	var want, wantReason uint64
	for i := range perCPU {
		perCPU[i] = nativeCounter{Pkts: 1 << i, Bytes: 100 << i}
		reasons[i] = 3 << i
		want += 1 << i
		wantReason += 3 << i
	}
	require.NoError(t, d.gen.maps["real_counters"].Put(uint32(2), perCPU))
	require.NoError(t, d.gen.maps["reason_counters"].Put(uint32(lb.ReasonTooBig), reasons))
	require.NoError(t, d.Reserve(capacityOf(0, 0, 1000, 0)))
	wantCounts(t, d, counts{
		Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: want, lb.ReasonTooBig: wantReason},
		Reals:   map[lb.RealID]Counter{2: {want, 100 * want}},
	})
	require.NoError(t, d.DeleteReals([]lb.RealID{2}))
	wantCounts(t, d, counts{
		Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: want, lb.ReasonTooBig: wantReason},
		Removed: Counter{want, 100 * want},
	})
}
