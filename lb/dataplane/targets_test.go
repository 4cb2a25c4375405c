// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// targetsIn are the entries of the map, by ring, number and address.
func targetsIn(t *testing.T, d *Dataplane) map[nativeTarget]uint32 {
	t.Helper()
	found, err := entriesOf[nativeTarget, uint32](d.gen.maps["targets"])
	require.NoError(t, err)
	return found
}

func TestSetTargets(t *testing.T) {
	d := testOpen(t)
	backend := netip.MustParseAddr("fc00::1")
	byID := func(ring, id uint32) nativeTarget { return nativeTarget{Ring: ring, ServerId: id} }
	byAddr := nativeTarget{Ring: 2, Addr: addrKey(backend)}
	routes := []lb.RouteTarget{{Ring: 2, Backend: backend, Real: 9}}
	for _, step := range []struct {
		name    string
		servers []lb.ServerTarget
		routes  []lb.RouteTarget
		want    map[nativeTarget]uint32
	}{
		{"some", []lb.ServerTarget{{Ring: 1, ServerID: 5, Real: 7}, {Ring: 2, ServerID: 5, Real: 8}}, routes,
			map[nativeTarget]uint32{byID(1, 5): 7, byID(2, 5): 8, byAddr: 9}},
		{"the same", []lb.ServerTarget{{Ring: 1, ServerID: 5, Real: 7}, {Ring: 2, ServerID: 5, Real: 8}}, routes,
			map[nativeTarget]uint32{byID(1, 5): 7, byID(2, 5): 8, byAddr: 9}},
		{"others", []lb.ServerTarget{{Ring: 1, ServerID: 5, Real: 6}, {Ring: 3, ServerID: 1<<32 - 1, Real: 1}}, nil,
			map[nativeTarget]uint32{byID(1, 5): 6, byID(3, 1<<32-1): 1}},
		{"none", nil, nil, nil},
	} {
		require.NoError(t, d.SetTargets(step.servers, step.routes))
		wantEqual(t, step.name, targetsIn(t, d), step.want)
	}
}

func TestTargetsRefused(t *testing.T) {
	d := testOpen(t)
	kept := []lb.ServerTarget{{Ring: 1, ServerID: 5, Real: 7}}
	require.NoError(t, d.SetTargets(kept, nil))
	for name, err := range map[string]error{
		"server 0":     d.SetTargets([]lb.ServerTarget{{Real: 1}}, nil),
		"real 0":       d.SetTargets([]lb.ServerTarget{{ServerID: 1}}, nil),
		"real too big": d.SetTargets([]lb.ServerTarget{{ServerID: 1, Real: lb.MaxRealID + 1}}, nil),
		"no backend":   d.SetTargets(nil, []lb.RouteTarget{{Real: 1}}),
		"backend ::":   d.SetTargets(nil, []lb.RouteTarget{{Real: 1, Backend: netip.IPv6Unspecified()}}),
	} {
		if err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	wantEqual(t, "targets", targetsIn(t, d), map[nativeTarget]uint32{{Ring: 1, ServerId: 5}: 7})
}

// routesIn are the entries of the map, in order.
func routesIn(t *testing.T, d *Dataplane) []sourceRoute {
	t.Helper()
	routes, err := readRoutes(d.gen.maps["source_routes"])
	require.NoError(t, err)
	return routes
}

// Random sets, one after the other: the map has what was set last, also across growth and a restart
// of what is remembered of it.
func TestSetSourceRoutes(t *testing.T) {
	random := seeded(t)
	d := testOpen(t)
	for step := range 30 {
		routes := make(map[netip.Prefix]netip.Addr)
		for range random.IntN(60) {
			addr := netip.AddrFrom4([4]byte{10, byte(random.IntN(3)), byte(random.IntN(256)), 0})
			if random.IntN(2) == 0 {
				addr = netip.AddrFrom16([16]byte{0x20, 1, byte(random.IntN(3)), byte(random.IntN(256))})
			}
			routes[netip.PrefixFrom(addr, random.IntN(addr.BitLen()+1)).Masked()] = bedAddr(lb.RealID(1 + random.IntN(3)))
		}
		var set []lb.SourceRoute
		for p, b := range routes {
			set = append(set, lb.SourceRoute{Prefix: p, Backend: b})
		}
		if step%5 == 0 {
			d.routes = nil
		}
		require.NoError(t, d.SetSourceRoutes(set))
		want, err := sourceRoutesOf(set)
		require.NoError(t, err)
		if got := routesIn(t, d); !slices.Equal(got, want) {
			t.Fatalf("step %d: %d routes, want %d", step, len(got), len(want))
		}
		s, err := d.Snapshot()
		require.NoError(t, err)
		if s.SourceRoutes != len(want) {
			t.Errorf("step %d: the snapshot has %d routes, want %d", step, s.SourceRoutes, len(want))
		}
	}
}

func TestSourceRoutesRefused(t *testing.T) {
	d := testOpen(t)
	p := netip.MustParsePrefix("10.0.0.0/8")
	for name, routes := range map[string][]lb.SourceRoute{
		"no prefix":    {{Backend: bedAddr(1)}},
		"host bits":    {{Prefix: netip.MustParsePrefix("10.0.0.1/8"), Backend: bedAddr(1)}},
		"no backend":   {{Prefix: p}},
		"two backends": {{Prefix: p, Backend: bedAddr(1)}, {Prefix: p, Backend: bedAddr(2)}},
	} {
		if d.SetSourceRoutes(routes) == nil {
			t.Errorf("%s: not refused", name)
		}
	}
	require.NoError(t, d.SetSourceRoutes([]lb.SourceRoute{{Prefix: p, Backend: bedAddr(1)}, {Prefix: p, Backend: bedAddr(1)}}))
}

// What is set stays while maps grow, whichever do.
func TestTargetsAndRoutesOutliveGrowth(t *testing.T) {
	for name, c := range map[string]engine.Capacity{
		"targets": {Targets: 1000}, "routes": {SourceRoutes: 1000}, "both": {Targets: 1000, SourceRoutes: 1000}, "reals": {Reals: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			d := testOpen(t)
			require.NoError(t, d.SetTargets([]lb.ServerTarget{{Ring: 1, ServerID: 5, Real: 7}}, nil))
			require.NoError(t, d.SetSourceRoutes([]lb.SourceRoute{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Backend: bedAddr(1)}}))
			targets, routes, number := targetsIn(t, d), routesIn(t, d), d.gen.number
			require.NoError(t, d.Reserve(c))
			if d.gen.number == number {
				t.Error("nothing was replaced")
			}
			wantEqual(t, "targets", targetsIn(t, d), targets)
			if got := routesIn(t, d); !slices.Equal(got, routes) || len(got) != 1 {
				t.Errorf("routes %v, want %v", got, routes)
			}
		})
	}
}

// Three times the table of a border router: go test -run - -bench SourceRoutes -benchtime 100000x ./lb/dataplane.
func BenchmarkSourceRoutes(b *testing.B) {
	const n = 3_000_000
	d, err := Open(Config{Flows: testFlows})
	require.NoError(b, err)
	defer d.Close()
	require.NoError(b, d.Reserve(engine.Capacity{SourceRoutes: n, Options: true}))
	random := seeded(b)
	seen := make(map[netip.Prefix]bool, n)
	routes := make([]lb.SourceRoute, 0, n)
	for len(routes) < n {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], random.Uint32())
		p := netip.PrefixFrom(netip.AddrFrom4(a), 20+random.IntN(9)).Masked()
		if !seen[p] {
			seen[p] = true
			routes = append(routes, lb.SourceRoute{Prefix: p, Backend: bedAddr(1)})
		}
	}
	b.Run("set", func(b *testing.B) {
		before, start := slabKiB(b), time.Now()
		require.NoError(b, d.SetSourceRoutes(routes))
		first := time.Since(start)
		b.ReportMetric(0, "ns/op") // all that follows is said in other units
		b.ReportMetric(first.Seconds(), "s/first")
		b.ReportMetric(float64(slabKiB(b)-before)/1024, "MiB")
		start = time.Now()
		require.NoError(b, d.SetSourceRoutes(routes))
		b.ReportMetric(time.Since(start).Seconds(), "s/again")
		start = time.Now()
		got, err := readRoutes(d.gen.maps["source_routes"])
		require.NoError(b, err)
		b.ReportMetric(time.Since(start).Seconds(), "s/read")
		if len(got) != n {
			b.Errorf("%d routes, want %d", len(got), n)
		}
	})
	b.Run("no route", func(b *testing.B) { benchmarkRouted(b, d, lb.Options{Hash: lb.HashInput{KeepDestinationPort: true}}) })
	b.Run("routed", func(b *testing.B) { benchmarkRouted(b, d, lb.Options{SourceRoutes: true}) })
}

// benchmarkRouted measures packets of random clients to a VIP with options. The program changes the frame,
// so each is run once, and the call costs more than the program: only the difference of two says something.
func benchmarkRouted(b *testing.B, d *Dataplane, o lb.Options) {
	vip := lb.VIPEntry{VIP: lb.VIP{Addr: vipOf(false), Port: bedPort, Protocol: lb.TCP}, Ring: lb.Ring{Size: bedRing}, Options: o}
	real := lb.Real{ID: 1, VIP: vip.VIP, Backend: lb.Backend{Addr: bedAddr(1)}, NextHop: lb.NextHop{MAC: [6]byte{2}, MTU: 1500}}
	real.Tunnel, _ = sources().Tunnel(lb.IPIP, bedAddr(1))
	slots := make([]lb.Slot, bedRing)
	for i := range slots {
		slots[i] = lb.StableSlot(1)
	}
	require.NoError(b, d.SetReals([]lb.Real{real}))
	_, err := d.SetRing(0, slots)
	require.NoError(b, err)
	require.NoError(b, d.SetTargets(nil, []lb.RouteTarget{{Backend: bedAddr(1), Real: 1}}))
	require.NoError(b, d.SetVIPs([]lb.VIPEntry{vip}))
	random := seeded(b)
	frame, ns := tcp4(frames.ACK), 0.0
	for b.Loop() {
		binary.BigEndian.PutUint32(frame[14+12:], random.Uint32())
		_, took, err := d.Program().Benchmark(frame, 1, nil)
		require.NoError(b, err)
		ns += float64(took.Nanoseconds())
	}
	b.ReportMetric(ns/float64(b.N), "ns/packet")
}

// slabKiB is the memory that the kernel has for small things, the entries of maps among them.
func slabKiB(b *testing.B) int {
	b.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(b, err)
	var n int
	_, after, _ := strings.Cut(string(text), "Slab:")
	_, err = fmt.Sscan(after, &n)
	require.NoError(b, err)
	return n
}
