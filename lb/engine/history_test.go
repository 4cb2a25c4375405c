// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

// history is a random sequence of inputs; the last of each kind is what counts.
type history struct {
	rng      *rand.Rand
	services []lb.Service
	backends map[string]map[string][]lb.Backend
	hops     map[netip.Addr]lb.NextHop
	routes   []lb.SourceRoute
}

var sourceNames = []string{"consul", "static"}

func newHistory(seed uint64) *history {
	return &history{rng: rand.New(rand.NewPCG(seed, 0)), backends: make(map[string]map[string][]lb.Backend)}
}

// step changes one input, at random, and hands it over.
func (h *history) step(e *engine.Engine) {
	switch h.rng.IntN(5) {
	case 0:
		h.services = h.randomServices()
		e.SetServices(h.services)
	case 1:
		h.hops = make(map[netip.Addr]lb.NextHop)
		for i := range 8 {
			switch h.rng.IntN(3) {
			case 0:
				h.hops[server(i)] = lb.NextHop{MAC: [6]byte{2, byte(h.rng.IntN(3))}, MTU: 1500}
			case 1:
				h.hops[server(i)] = lb.NextHop{Problem: "no route"}
			}
		}
		e.SetNextHops(h.hops)
	case 2:
		h.routes = h.randomRoutes()
		e.SetSourceRoutes(h.routes)
	default:
		source := sourceNames[h.rng.IntN(len(sourceNames))]
		h.backends[source] = h.randomBackends()
		e.SetBackends(source, h.backends[source])
	}
}

// all hands over the present inputs.
func (h *history) all(e *engine.Engine) {
	e.SetServices(h.services)
	for _, source := range sourceNames {
		e.SetBackends(source, h.backends[source])
	}
	e.SetNextHops(h.hops)
	e.SetSourceRoutes(h.routes)
}

func (h *history) randomServices() []lb.Service {
	var list []lb.Service
	for i := range 3 {
		if h.rng.IntN(4) == 0 {
			continue
		}
		s := lb.Service{Name: fmt.Sprintf("s%d", i)}
		for v := range 3 {
			if h.rng.IntN(3) == 0 {
				continue
			}
			addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(v)})
			if v == 2 {
				addr = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})
			}
			vip := lb.VIP{Addr: addr, Port: uint16(80 + i/2), Protocol: lb.TCP}
			if v == 1 && h.rng.IntN(2) == 0 {
				vip.Addr, vip.HostBits = netip.AddrFrom4([4]byte{192, 0, 2}), 4
			}
			s.VIPs = append(s.VIPs, lb.ServiceVIP{
				VIP:     vip, // services 0 and 1 may claim the same
				Options: h.randomOptions(),
				Encap:   lb.Encap(h.rng.IntN(2)),
				Ring:    lb.Ring{Size: []uint32{31, 31, 31, 53, 60}[h.rng.IntN(5)], Hash: lb.RingHash(h.rng.IntN(2))},
				Tunnel:  h.randomTunnel(),
			})
		}
		list = append(list, s)
	}
	return list
}

func (h *history) randomOptions() (o lb.Options) {
	o.TCPIDs, o.SourceRoutes = h.rng.IntN(2) == 0, h.rng.IntN(2) == 0
	o.Hash.NoSourcePort = h.rng.IntN(4) == 0
	return o
}

// randomRoutes lead to backends that services have, and to some that none has.
func (h *history) randomRoutes() (routes []lb.SourceRoute) {
	for i := range 4 {
		if h.rng.IntN(2) == 0 {
			prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i)}), 24)
			routes = append(routes, lb.SourceRoute{Prefix: prefix, Backend: server(h.rng.IntN(12))})
		}
	}
	return routes
}

func (h *history) randomTunnel() lb.TunnelSources {
	t := lb.DefaultTunnelSources()
	t.GUE4 = netip.AddrFrom4([4]byte{198, 51, 100, byte(h.rng.IntN(2))})
	t.GUEChecksum = h.rng.IntN(4) == 0
	return t
}

func (h *history) randomBackends() map[string][]lb.Backend {
	all := make(map[string][]lb.Backend)
	for i := range 3 {
		for b := range 8 {
			if h.rng.IntN(2) == 0 {
				name := fmt.Sprintf("s%d", i)
				all[name] = append(all[name], lb.Backend{
					Addr: server(b), Weight: uint32(h.rng.IntN(4)), ServerID: uint32(h.rng.IntN(5)), Local: b == 6 && h.rng.IntN(2) == 0,
				})
			}
		}
	}
	return all
}

// server is the i-th backend's address; one of them is IPv6, which GUE cannot reach here.
func server(i int) netip.Addr {
	if i == 7 {
		return netip.MustParseAddr("2001:db8:1::7")
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
}

// TestHistoriesConverge plays random histories, with one verb in ten failing and restarts in
// between, and compares the end with a fresh start from the last inputs. That no packet ever meets
// an id that is not there is checked by the fake after each verb.
func TestHistoriesConverge(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playHistory(t, seed) })
		})
	}
}

func playHistory(t *testing.T, seed uint64) {
	h := newHistory(seed)
	dp := enginetest.NewDataplane(t, seed)
	dp.FailWith(enginetest.OneIn(10, seed))
	config := func(c *engine.Config) {
		c.Adopted = dp.Adopted()
		c.Sources = sourceNames
		c.Quarantine = time.Minute
		c.RepairInterval = time.Duration(seed%2) * 5 * time.Second // half of the histories go without
	}
	b := newFixture(t, dp, config).run(t)
	for range 60 {
		h.step(b.Engine)
		if h.rng.IntN(3) > 0 { // otherwise the next input comes before this is applied, or while it is
			time.Sleep(time.Duration(h.rng.IntN(2000)) * time.Millisecond)
		}
		if h.rng.IntN(20) == 0 {
			b.stop()
			b = newFixture(t, dp, config).run(t)
			if h.rng.IntN(2) == 0 {
				h.all(b.Engine)
			}
		}
	}
	dp.FailWith(nil)
	h.all(b.Engine)
	time.Sleep(2 * time.Minute)
	synctest.Wait()
	if s := b.Status(); s.LastError != "" || !s.Settled {
		t.Errorf("status: error %q, settled %v", s.LastError, s.Settled)
	}

	fresh := newFixture(t, nil, nil)
	h.all(fresh.Engine)
	if err := fresh.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh.dp.Content(), dp.Content()); diff != "" {
		t.Errorf("after the history (-fresh start, +got):\n%s", diff)
	}
}

// TestConcurrentUse is for the race detector: inputs, status and Run at once.
func TestConcurrentUse(t *testing.T) {
	b := newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = time.Millisecond }).run(t)
	var users sync.WaitGroup
	for i := range uint64(3) {
		users.Go(func() {
			h := newHistory(i)
			for range 100 {
				h.step(b.Engine)
				for _, s := range b.Status().Services {
					if len(s.VIPs) == 0 {
						t.Errorf("service %q has no VIP", s.Name)
					}
				}
			}
		})
	}
	users.Wait()
	b.stop()
}

func TestStatus(t *testing.T) {
	b := newFixture(t, nil, nil)
	if s := b.Status(); s.Changes != 0 || !s.Settled || !s.LastApply.IsZero() {
		t.Errorf("status before the first pass: %+v", s)
	}
	b.SetServices([]lb.Service{service(t, "web", vip1), service(t, "dns", vip2)})
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
	b.SetNextHops(resolved("10.0.0.2"))
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := b.Status()
	if s.LastApply.IsZero() {
		t.Error("no time of the last apply")
	}
	if s.LastPass.Before(s.LastApply) {
		t.Error("the last pass ended before it succeeded")
	}
	s.LastApply, s.LastPass = time.Time{}, time.Time{}
	web, dns := service(t, "web", vip1).VIPs[0].VIP, service(t, "dns", vip2).VIPs[0].VIP
	real := func(id lb.RealID, addr string, hop lb.NextHop) lb.Real {
		r := lb.Real{ID: id, VIP: web, Backend: lb.Backend{Addr: netip.MustParseAddr(addr), Weight: 1}, NextHop: hop, Generation: 1}
		r.Tunnel = lb.Tunnel{Destination: r.Backend.Addr, Source: netip.MustParsePrefix("172.16.0.0/16")}
		return r
	}
	stable := [lb.SlotStateLen]int{lb.SlotStable: 7}
	want := engine.Status{Passes: 1, Changes: 1, Settled: true, Services: []engine.ServiceStatus{
		{Name: "dns", VIPs: []engine.VIPStatus{
			{VIPEntry: lb.VIPEntry{VIP: dns, Service: "dns", RingID: 1, Ring: lb.Ring{Size: 7}}, States: stable},
		}},
		{Name: "web", VIPs: []engine.VIPStatus{
			{VIPEntry: lb.VIPEntry{VIP: web, Service: "web", RingID: 0, Ring: lb.Ring{Size: 7}}, Members: 2, States: stable, Reals: []engine.RealStatus{
				{Real: real(1, "10.0.0.1", lb.NextHop{Problem: "not resolved yet"}), Slots: 3},
				{Real: real(2, "10.0.0.2", lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}), Slots: 4},
			}},
		}},
	}}
	if diff := cmp.Diff(want, s, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}
