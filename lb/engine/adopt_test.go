// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// restart ends b's engine and starts one that adopts what it left.
func restart(t *testing.T, b *fixture, sources ...string) *fixture {
	t.Helper()
	b.stop()
	return newFixture(t, b.dp, func(c *engine.Config) {
		c.Adopted = b.dp.Adopted()
		c.Sources = sources
	}).run(t)
}

// served is a running engine with two VIPs and two backends whose ids are not those that a fresh
// start would give.
func served(t *testing.T) *fixture {
	t.Helper()
	b := newFixture(t, nil, nil).run(t)
	b.SetNextHops(resolved("10.0.0.2", "10.0.0.3"))
	b.SetBackends("a", backends("10.0.0.1", "10.0.0.3"))
	b.SetServices([]lb.Service{service(t, "web", vip2)})
	synctest.Wait()
	b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
	synctest.Wait() // so that the ids do not depend on the scheduler
	b.SetServices([]lb.Service{service(t, "web", vip1, vip2)})
	synctest.Wait()
	return b
}

func TestRestartWithTheSameInputWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := served(t)
		before, writes := b.dp.Dump(), b.dp.Writes()

		b = restart(t, b, "a")
		b.dp.TakeCalls()
		b.SetServices([]lb.Service{service(t, "web", vip1, vip2)})
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		b.SetNextHops(nil) // the neighbours are not resolved yet
		synctest.Wait()
		if !b.Status().Settled {
			t.Error("not settled, though all sources have reported")
		}
		// What was adopted is compared with the data plane once, whatever it was read to be.
		calls := b.dp.TakeCalls()
		for _, want := range []string{"SetReals 2 3 4 5", "SetRing 0", "SetRing 1", "SetVIPs 2"} {
			if !slices.Contains(calls, want) {
				t.Errorf("no call %q after settling: %q", want, calls)
			}
		}
		b.SetNextHops(resolved("10.0.0.2", "10.0.0.3"))
		time.Sleep(time.Minute)
		if diff := cmp.Diff(before, b.dp.Dump()); diff != "" {
			t.Errorf("after restart (-want +got):\n%s", diff)
		}
		if n := b.dp.Writes(); n != writes {
			t.Errorf("the restart wrote %d things", n-writes)
		}
	})
}

func TestAdoptedStateIsHeld(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, b *fixture)
		wait time.Duration
		held bool
	}{
		{name: "no source has reported", do: func(*testing.T, *fixture) {}, wait: 9 * time.Second, held: true},
		{name: "services are missing", do: func(t *testing.T, b *fixture) {
			b.SetBackends("a", nil)
			b.SetBackends("b", nil)
		}, wait: 9 * time.Second, held: true},
		{name: "one source is missing", do: func(t *testing.T, b *fixture) {
			b.SetServices(nil)
			b.SetBackends("a", nil)
			b.SetBackends("unnamed", nil)
		}, wait: 9 * time.Second, held: true},
		{name: "all have reported", do: func(t *testing.T, b *fixture) {
			b.SetServices(nil)
			b.SetBackends("a", nil)
			b.SetBackends("b", nil)
		}, wait: 0, held: false},
		{name: "the time has passed", do: func(*testing.T, *fixture) {}, wait: 11 * time.Second, held: false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := served(t)
				before := b.dp.Dump()
				b = restart(t, b, "a", "b")
				tt.do(t, b)
				time.Sleep(tt.wait)
				synctest.Wait()
				want := ""
				if tt.held {
					want = before
				}
				if diff := cmp.Diff(want, b.dp.Dump()); diff != "" {
					t.Errorf("after restart (-want +got):\n%s", diff)
				}
				if b.Status().Settled == tt.held {
					t.Errorf("settled: %v", !tt.held)
				}
			})
		})
	}
}

// TestHoldDoesNotHoldUpNewVIPs changes everything while a source is silent.
func TestHoldDoesNotHoldUpNewVIPs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		b.SetServices([]lb.Service{service(t, "web", vip1)})
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		b.SetNextHops(resolved("10.0.0.1", "10.0.0.2"))
		synctest.Wait()

		b = restart(t, b, "a", "b")
		longer := service(t, "web", vip1, vip2)
		longer.VIPs[0].Ring.Size = 11
		b.SetServices([]lb.Service{longer})
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		b.SetNextHops(map[netip.Addr]lb.NextHop{netip.MustParseAddr("10.0.0.1"): {MAC: [6]byte{2, 9}, MTU: 9000}})
		synctest.Wait()
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=020900000000 mtu 9000
			real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
			real [2001:db8::10]:443/tcp 3=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
			real [2001:db8::10]:443/tcp 4=10.0.0.3 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: 1=10.0.0.1:3 2=10.0.0.2:4
			vip [2001:db8::10]:443/tcp service=web ring=1 maglev-v2/7: 3=10.0.0.2:4 4=10.0.0.3:3`)
		if v := b.Status().Services[0].VIPs; !v[0].Held || v[1].Held {
			t.Errorf("held: %v and %v, want the first alone", v[0].Held, v[1].Held)
		}

		// Settled: the adopted ids stay, and the adopted next hops go when the time has passed.
		b.SetBackends("b", nil)
		time.Sleep(11 * time.Second)
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			real 192.0.2.10:80/tcp 5=10.0.0.3 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			real [2001:db8::10]:443/tcp 3=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			real [2001:db8::10]:443/tcp 4=10.0.0.3 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/11: 2=10.0.0.2:6 5=10.0.0.3:5
			vip [2001:db8::10]:443/tcp service=web ring=1 maglev-v2/7: 3=10.0.0.2:4 4=10.0.0.3:3`)
	})
}

// TestAdoptedLeftovers has what a crash between two steps leaves: reals of no VIP, and a slot that
// was not written.
func TestAdoptedLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := served(t)
		before := b.dp.Dump()
		leftover := b.dp.Adopted().Reals[0]
		leftover.ID = 9
		leftover.VIP = service(t, "old", "192.0.2.99:80/tcp").VIPs[0].VIP
		b.stop()
		if err := b.dp.Reserve(engine.Capacity{Reals: 9}); err != nil {
			t.Fatal(err)
		}
		if err := b.dp.SetReals([]lb.Real{leftover}); err != nil {
			t.Fatal(err)
		}
		b.dp.Corrupt(service(t, "web", vip1).VIPs[0].VIP, 2, 0)

		b = restart(t, b, "a")
		b.SetServices([]lb.Service{service(t, "web", vip1, vip2)})
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		b.SetNextHops(resolved("10.0.0.2", "10.0.0.3"))
		time.Sleep(11 * time.Second)
		if diff := cmp.Diff(before, b.dp.Dump()); diff != "" {
			t.Errorf("after restart (-want +got):\n%s", diff)
		}

		// Ids that may have been deleted just before the restart rest like those deleted after it.
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3", "10.0.0.4"))
		synctest.Wait()
		if id := b.ids()["10.0.0.4"]; id <= 9 {
			t.Errorf("id %d was not at rest", id)
		}
	})
}
