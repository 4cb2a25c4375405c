// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
)

// optionsService is service web with one VIP that has these options.
func optionsService(t *testing.T, o lb.Options) []lb.Service {
	t.Helper()
	s := service(t, "web", vip1)
	s.VIPs[0].Options, s.VIPs[0].Leave = o, lb.DefaultLeave()
	return []lb.Service{s}
}

// numbered are backends of weight 1 with the server ids 1, 2, 3 and so on.
func numbered(addrs ...string) map[string][]lb.Backend {
	set := backends(addrs...)
	for i := range set["web"] {
		set["web"][i].ServerID = uint32(i + 1)
	}
	return set
}

func route(prefix, backend string) lb.SourceRoute {
	return lb.SourceRoute{Prefix: netip.MustParsePrefix(prefix), Backend: netip.MustParseAddr(backend)}
}

func (b *fixture) sync(t *testing.T) {
	t.Helper()
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// expectLines compares those lines of the dump that begin with one of the words.
func (b *fixture) expectLines(t *testing.T, words []string, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(b.dp.Dump()) {
		for _, w := range words {
			if strings.HasPrefix(line, w+" ") {
				got = append(got, strings.TrimSpace(line))
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("data plane (-want +got):\n%s", diff)
	}
}

// TestTargets: server ids lead to reals before the VIPs that ask for them are there, and are gone before
// those, rings and reals go.
func TestTargets(t *testing.T) {
	b := newFixture(t, nil, nil)
	b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
	b.SetBackends("a", numbered("10.0.0.1", "10.0.0.2"))
	b.sync(t)
	b.expectCalls(t, "SweepFlows", "Reserve vips4=1 vips6=0 reals=2 slots=7 targets=2 options", "SetReals 1 2", "SetRing 0",
		"SetTargets 2 0", "SetVIPs 1")
	b.expectDump(t, `
		real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet server=1
		real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet server=2
		target 192.0.2.10:80/tcp server 1: 1=10.0.0.1
		target 192.0.2.10:80/tcp server 2: 2=10.0.0.2
		vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7 tcp_ids: 1=10.0.0.1:3 2=10.0.0.2:4`)

	b.SetServices(optionsService(t, lb.Options{}))
	b.sync(t)
	b.expectCalls(t, "SetTargets 0 0", "SetVIPs 1")

	b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
	b.sync(t)
	b.expectCalls(t, "SetTargets 2 0", "SetVIPs 1")

	b.SetServices(nil)
	b.sync(t)
	b.expectCalls(t, "SetTargets 0 0", "SetVIPs 0", "DeleteRing 0", "DeleteReals [1 2]")
}

// TestTargetsOfAnEarlierRun are left alone while its VIPs are held, and then written once.
func TestTargetsOfAnEarlierRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := enginetest.NewDataplane(t, 1)
		b := newFixture(t, dp, nil)
		b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
		b.SetBackends("a", numbered("10.0.0.1"))
		b.sync(t)
		dp.TakeCalls()

		b = newFixture(t, dp, func(c *engine.Config) { c.Adopted, c.Sources = adoptedWithoutIDs(dp), []string{"a"} }).run(t)
		b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
		synctest.Wait()
		b.expectLines(t, []string{"target"}, "target 192.0.2.10:80/tcp server 1: 1=10.0.0.1")
		b.SetBackends("a", numbered("10.0.0.2"))
		synctest.Wait()
		b.expectLines(t, []string{"target"}, "target 192.0.2.10:80/tcp server 1: 2=10.0.0.2")
	})
}

// TestSourceRoutesOfAnEarlierRun are left alone for as long as the targets that they lead to.
func TestSourceRoutesOfAnEarlierRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dp := enginetest.NewDataplane(t, 1)
		b := newFixture(t, dp, nil)
		b.SetServices(optionsService(t, lb.Options{SourceRoutes: true}))
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		b.SetSourceRoutes([]lb.SourceRoute{route("198.51.100.0/24", "10.0.0.1")})
		b.sync(t)

		b = newFixture(t, dp, func(c *engine.Config) { c.Adopted, c.Sources = adoptedWithoutIDs(dp), []string{"a"} }).run(t)
		b.SetServices(optionsService(t, lb.Options{SourceRoutes: true}))
		b.SetSourceRoutes([]lb.SourceRoute{route("198.51.100.0/24", "10.0.0.9")})
		synctest.Wait()
		b.expectLines(t, []string{"route", "target"}, "route 198.51.100.0/24: 10.0.0.1", "target 192.0.2.10:80/tcp backend 10.0.0.1: 1=10.0.0.1")
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		synctest.Wait()
		b.expectLines(t, []string{"route", "target"}, "route 198.51.100.0/24: 10.0.0.9", "target 192.0.2.10:80/tcp backend 10.0.0.9: 3=10.0.0.9")
	})
}

// adoptedWithoutIDs is what a data plane tells, which keeps no server ids.
func adoptedWithoutIDs(dp *enginetest.Dataplane) engine.Adopted {
	a := dp.Adopted()
	for i := range a.Reals {
		a.Reals[i].Backend.ServerID, a.Reals[i].Backend.Routed = 0, false
	}
	return a
}

// TestDrainingServerKeepsItsID: packets find a server by its id for as long as it may get packets, also
// over a restart, unless an active one has the id.
func TestDrainingServerKeepsItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory *engine.Memory
		remember := func(c *engine.Config) { c.OnMemory = func(m *engine.Memory) { memory = m } }
		dp := enginetest.NewDataplane(t, 1)
		b := newFixture(t, dp, remember)
		b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
		b.SetBackends("a", numbered("10.0.0.1", "10.0.0.2"))
		b.sync(t)
		b.SetBackends("a", numbered("10.0.0.1"))
		b.sync(t)

		b = newFixture(t, dp, func(c *engine.Config) {
			c.Adopted, c.Sources = adoptedWithoutIDs(dp), []string{"a"}
			c.Adopted.Memory = memory
		}).run(t)
		first := "target 192.0.2.10:80/tcp server 1: 1=10.0.0.1"
		b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
		synctest.Wait() // all is held
		b.SetBackends("a", numbered("10.0.0.1"))
		synctest.Wait()
		b.expectLines(t, []string{"target"}, first, "target 192.0.2.10:80/tcp server 2: 2=10.0.0.2")

		b.SetBackends("a", numbered("10.0.0.1", "10.0.0.3"))
		synctest.Wait()
		b.expectLines(t, []string{"target"}, first, "target 192.0.2.10:80/tcp server 2: 3=10.0.0.3")

		b.SetBackends("a", numbered("10.0.0.1"))
		time.Sleep(2 * time.Hour) // longer than a drain
		synctest.Wait()
		b.expectLines(t, []string{"target"}, first)
	})
}

// TestServerIDTwice: of two backends with one server id the first has it.
func TestServerIDTwice(t *testing.T) {
	b := newFixture(t, nil, nil)
	set := numbered("10.0.0.1", "10.0.0.2")
	set["web"][1].ServerID = 1
	b.SetServices(optionsService(t, lb.Options{TCPIDs: true}))
	b.SetBackends("a", set)
	b.sync(t)
	b.expectLines(t, []string{"target"}, "target 192.0.2.10:80/tcp server 1: 1=10.0.0.1")
	want := []engine.Problem{{Service: "web", Backend: netip.MustParseAddr("10.0.0.2"),
		Text: "server id 1 is that of backend 10.0.0.1 already: no packet finds this one by it"}}
	if diff := cmp.Diff(want, b.Status().Problems, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// TestSourceRoutes: a backend that only routes name is a real beside the ring, and no longer than they do.
func TestSourceRoutes(t *testing.T) {
	b := newFixture(t, nil, nil)
	b.SetServices(optionsService(t, lb.Options{SourceRoutes: true}))
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
	b.SetSourceRoutes([]lb.SourceRoute{route("198.51.100.0/24", "10.0.0.9"), route("203.0.113.0/24", "10.0.0.2"), route("2001:db8::/32", "10.0.0.9")})
	b.sync(t)
	b.expectCalls(t, "SweepFlows", "Reserve vips4=1 vips6=0 reals=3 slots=7 targets=2 routes=3 options", "SetReals 1 2 3", "SetRing 0",
		"SetTargets 0 2", "SetSourceRoutes 3", "SetVIPs 1")
	b.expectDump(t, `
		real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
		real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet routed
		real 192.0.2.10:80/tcp 3=10.0.0.9 weight=0 ipip from=172.16.0.0/16 port=0 hop=not resolved yet routed
		route 198.51.100.0/24: 10.0.0.9
		route 2001:db8::/32: 10.0.0.9
		route 203.0.113.0/24: 10.0.0.2
		target 192.0.2.10:80/tcp backend 10.0.0.2: 2=10.0.0.2
		target 192.0.2.10:80/tcp backend 10.0.0.9: 3=10.0.0.9
		vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7 source_routes: 1=10.0.0.1:3 2=10.0.0.2:4`)

	// The same routes again are no change.
	b.SetSourceRoutes([]lb.SourceRoute{route("198.51.100.0/24", "10.0.0.9"), route("203.0.113.0/24", "10.0.0.2"), route("2001:db8::/32", "10.0.0.9")})
	b.sync(t)
	b.expectCalls(t)

	// A backend that is down, or drained, gets no packets of routes.
	down := backends("10.0.0.1", "10.0.0.2")
	down["web"][1].Down = true
	b.SetBackends("a", down)
	b.SetDrains(map[lb.Target]engine.Drain{{VIP: service(t, "", vip1).VIPs[0].VIP, Backend: netip.MustParseAddr("10.0.0.9")}: {
		Since: time.Now(), Until: time.Now().Add(time.Hour),
	}})
	b.sync(t)
	b.expectLines(t, []string{"target"})
	b.SetDrains(nil)
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
	b.sync(t)
	b.expectLines(t, []string{"target"}, "target 192.0.2.10:80/tcp backend 10.0.0.2: 2=10.0.0.2", "target 192.0.2.10:80/tcp backend 10.0.0.9: 3=10.0.0.9")

	b.SetSourceRoutes(nil)
	b.sync(t)
	b.expectLines(t, []string{"target", "route"})
}

// TestRoutedBackendOfWeight0 is active, but not in the ring.
func TestRoutedBackendOfWeight0(t *testing.T) {
	b := newFixture(t, nil, nil)
	set := backends("10.0.0.1", "10.0.0.2")
	set["web"][1].Weight = 0
	b.SetServices(optionsService(t, lb.Options{SourceRoutes: true}))
	b.SetBackends("a", set)
	b.SetSourceRoutes([]lb.SourceRoute{route("198.51.100.0/24", "10.0.0.2")})
	b.sync(t)
	for _, r := range b.Status().Services[0].VIPs[0].Reals {
		if r.Use != lb.RealActive || r.Absence.Cause != engine.CauseNone || (r.Slots == 0) != (r.Backend.Weight == 0) {
			t.Errorf("%+v", r)
		}
	}
}

// TestLocalBackend needs no next hop.
func TestLocalBackend(t *testing.T) {
	b := newFixture(t, nil, nil)
	set := backends("10.0.0.1", "10.0.0.2")
	set["web"][1].Local = true
	b.SetServices(optionsService(t, lb.Options{}))
	b.SetBackends("a", set)
	b.sync(t)
	b.expectLines(t, []string{"real"},
		"real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet",
		"real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 local from=invalid Prefix port=0 hop=")
	if got, _ := b.hops.Wanted(); len(got) != 1 || got[0] != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("next hops are wanted for %v", got)
	}
}

// TestOtherHashInput: when other parts of a packet choose the slot, flows that are remembered are found by
// their name in any slot.
func TestOtherHashInput(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, after lb.Options
		lingers       bool
	}{
		{"no source port", lb.Options{}, lb.Options{Hash: lb.HashInput{NoSourcePort: true}}, true},
		{"by client", lb.Options{Fragments: lb.FragmentsByClient}, lb.Options{}, true},
		{"fragments pass", lb.Options{}, lb.Options{Fragments: lb.FragmentsPass}, false},
		{"server ids", lb.Options{}, lb.Options{TCPIDs: true}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newFixture(t, nil, nil)
			b.SetServices(optionsService(t, tc.before))
			b.SetBackends("a", backends("10.0.0.1"))
			b.sync(t)
			b.SetServices(optionsService(t, tc.after))
			b.sync(t)
			v := b.Status().Services[0].VIPs[0]
			want := 0
			if tc.lingers {
				want = 7
			}
			if got := v.States[lb.SlotLingering]; got != want || v.Options != tc.after {
				t.Errorf("%d slots linger, want %d; options %+v", got, want, v.Options)
			}
		})
	}
}

// TestUDPFlowMigration: a remembered UDP flow of a VIP with on_down: rehash goes to another backend as soon
// as its own is down, as with Katran's UDP flow migration. It then is that one's, also when its first one is
// back, until that one is down in turn.
func TestUDPFlowMigration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		vip := lb.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 443, Protocol: lb.UDP}
		s := service(t, "web", vip.String())
		s.VIPs[0].Flows, s.VIPs[0].Leave = lb.FlowAlways, lb.Leave{Drain: time.Hour} // no grace
		b := newFixture(t, nil, nil).run(t)
		b.SetServicesAndBackends([]lb.Service{s}, "a", backends("10.0.0.1", "10.0.0.2"))
		synctest.Wait()
		ask := func() netip.Addr {
			r, _ := b.dp.Send(enginetest.Packet{VIP: vip, Tag: 1})
			return r.Backend.Addr
		}
		down := func(addrs ...netip.Addr) {
			set := make(map[lb.Target]engine.Health)
			for _, a := range addrs {
				set[lb.Target{VIP: vip, Backend: a}] = engine.Health{Down: true}
			}
			b.SetHealth(set)
			synctest.Wait()
		}
		first := ask()
		down(first)
		second := ask()
		if !first.IsValid() || !second.IsValid() || first == second {
			t.Fatalf("the flow goes to %s, and when that is down to %s", first, second)
		}
		down()
		if got := ask(); got != second {
			t.Errorf("when %s is back the flow goes to %s, want %s still", first, got, second)
		}
		down(second)
		if got := ask(); got != first {
			t.Errorf("when %s is down the flow goes to %s, want %s", second, got, first)
		}
	})
}
