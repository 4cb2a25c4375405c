// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

func TestRunAppliesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		synctest.Wait()
		b.expectCalls(t, "SweepFlows")

		b.SetServices([]lb.Service{service(t, "web", vip1)})
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		b.SetNextHops(resolved("10.0.0.1"))
		synctest.Wait()
		b.dp.TakeCalls() // how many passes it took depends on the scheduler
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=020000000001 mtu 1500
			real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: 1=10.0.0.1:3 2=10.0.0.2:4`)
		if addrs, _ := b.hops.Wanted(); len(addrs) != 2 {
			t.Errorf("wanted next hops: %v, want 2", addrs)
		}

		b.SetServices([]lb.Service{service(t, "web", vip1, vip2)})
		synctest.Wait()
		b.expectCalls(t, "Reserve vips4=1 vips6=1 reals=4 slots=14", "SetReals 3 4", "SetRing 1", "SetVIPs 2")

		b.SetNextHops(resolved("10.0.0.1", "10.0.0.2"))
		synctest.Wait()
		b.expectCalls(t, "SetReals 2 4")

		b.SetBackends("a", backends("10.0.0.1", "10.0.0.3"))
		synctest.Wait()
		b.expectCalls(t, "Reserve vips4=1 vips6=1 reals=6 slots=14",
			"SetReals 2 4 5 6", "SetRing 0", "SetRing 1", "DeleteReals [2 4]")

		s := service(t, "web", vip1, vip2)
		s.VIPs[0].Ring.Size = 11
		b.SetServices([]lb.Service{s})
		synctest.Wait()
		b.expectCalls(t, "Reserve vips4=1 vips6=1 reals=6 slots=25", "SetRing 0", "SetVIPs 2")

		b.SetBackends("a", nil)
		synctest.Wait()
		b.expectCalls(t, "SetReals 1 3 5 6", "SetRing 0", "SetRing 1", "DeleteReals [1 3 5 6]")
		b.expectDump(t, `
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/11: none:11
			vip [2001:db8::10]:443/tcp service=web ring=1 maglev-v2/7: none:7`)

		b.SetServices(nil)
		synctest.Wait()
		b.expectCalls(t, "SetVIPs 0", "DeleteRing 0", "DeleteRing 1")
		b.expectDump(t, "")
	})
}

func TestUnchangedInputWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		set := func() {
			b.SetServices([]lb.Service{service(t, "web", vip1, vip2)})
			b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
			b.SetNextHops(resolved("10.0.0.1", "10.0.0.2"))
		}
		set()
		synctest.Wait()
		b.dp.TakeCalls()
		writes, changes := b.dp.Writes(), b.Status().Changes
		if writes == 0 || changes == 0 {
			t.Fatalf("%d writes, %d changes: nothing was applied", writes, changes)
		}

		set()
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.1")) // the order means nothing
		synctest.Wait()
		b.expectCalls(t)

		time.Sleep(time.Minute + time.Second) // a repair repeats, and writes nothing either
		if calls := b.dp.TakeCalls(); len(calls) == 0 {
			t.Error("no repair was made")
		}
		if n := b.dp.Writes(); n != writes {
			t.Errorf("%d things were written again", n-writes)
		}
		set()
		synctest.Wait()
		b.expectCalls(t)
		if got := b.Status().Changes; got != changes {
			t.Errorf("%d changes, want %d", got, changes)
		}
		if _, asked := b.hops.Wanted(); asked > 3 {
			t.Errorf("next hops were wanted %d times", asked)
		}
		if b.log.count("WARN") != 0 {
			t.Error("a warning was logged")
		}
	})
}

func TestRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		b.SetServices([]lb.Service{service(t, "web", vip1)})
		b.SetBackends("a", backends("10.0.0.1"))
		synctest.Wait()
		good := b.dp.Dump()

		b.dp.Corrupt(service(t, "web", vip1).VIPs[0].VIP, 3, 0)
		b.dp.FailWith(func(verb string) error { // the repair itself must be retried
			if verb == "Reserve" {
				b.dp.FailWith(nil)
				return errors.New("once")
			}
			return nil
		})
		time.Sleep(30 * time.Second)
		if b.dp.Dump() == good {
			t.Fatal("the slot was repaired too early, or never broken")
		}
		time.Sleep(31 * time.Second)
		if diff := cmp.Diff(good, b.dp.Dump()); diff != "" {
			t.Errorf("after repair (-want +got):\n%s", diff)
		}
		if n := b.log.count("WARN msg=\"repaired a ring"); n != 1 {
			t.Errorf("%d warnings about the repair, want 1", n)
		}
	})
}

func TestRunRetries(t *testing.T) {
	for _, verb := range []string{"Reserve", "SetReals", "SetRing", "SetVIPs", "DeleteRing", "DeleteReals"} {
		t.Run(verb, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = 0 }).run(t)
				b.SetServices([]lb.Service{service(t, "web", vip1)})
				b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
				synctest.Wait()

				failures := 0
				b.dp.FailWith(func(v string) error {
					if v != verb {
						return nil
					}
					failures++
					return errors.New("no memory")
				})
				b.SetServices([]lb.Service{service(t, "web", vip2)})
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if s := b.Status(); !strings.Contains(s.LastError, "no memory") {
					t.Errorf("last error: %q", s.LastError)
				}
				// Delays of 0.1, 0.2, 0.4, ... seconds, each shortened by up to a half.
				if failures < 5 || failures > 10 {
					t.Errorf("%d attempts in 10 s", failures)
				}
				b.dp.FailWith(nil)
				time.Sleep(30 * time.Second)
				if s := b.Status(); s.LastError != "" {
					t.Errorf("last error: %q, want none", s.LastError)
				}
				b.expectDump(t, `
					real [2001:db8::10]:443/tcp 3=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
					real [2001:db8::10]:443/tcp 4=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
					vip [2001:db8::10]:443/tcp service=web ring=1 maglev-v2/7: 3=10.0.0.1:3 4=10.0.0.2:4`)

				// A later failure is retried as fast as the first was.
				b.dp.FailWith(failTimes(3))
				b.SetServices(nil)
				time.Sleep(time.Second)
				b.expectDump(t, "")
			})
		})
	}
}

// TestGoBackAfterFailure takes changes back that were written in part.
func TestGoBackAfterFailure(t *testing.T) {
	replace := func(t *testing.T, b *fixture) {
		longer := service(t, "web", vip2)
		longer.VIPs[0].Ring.Size = 11
		b.SetServices([]lb.Service{longer})
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
	}
	remove := func(_ *testing.T, b *fixture) { b.SetServices(nil) }
	tests := []struct {
		verb   string
		change func(t *testing.T, b *fixture)
	}{
		{"SetReals", replace}, {"SetRing", replace}, {"SetVIPs", replace}, {"DeleteRing", replace}, {"DeleteReals", replace},
		{"SetVIPs", remove}, {"DeleteRing", remove}, {"DeleteReals", remove},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", i, tt.verb), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = 0 }).run(t)
				before := func() {
					b.SetServices([]lb.Service{service(t, "web", vip1)})
					b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
				}
				before()
				synctest.Wait()
				good := b.dp.Content()

				b.dp.FailWith(func(v string) error {
					if v == tt.verb {
						return errors.New("no memory")
					}
					return nil
				})
				tt.change(t, b)
				time.Sleep(time.Second)
				if b.Status().LastError == "" {
					t.Fatal("nothing failed")
				}
				b.dp.FailWith(nil)
				before()
				time.Sleep(time.Minute)
				if diff := cmp.Diff(good, b.dp.Content()); diff != "" {
					t.Errorf("after going back (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// TestMovedRingIsUsedAfterFailure has a ring move there and back before the VIPs are set, which then
// are those that were set before.
func TestMovedRingIsUsedAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, func(c *engine.Config) { c.RepairInterval = 0 }).run(t)
		set := func(size uint32, vips ...string) {
			s := service(t, "web", vips...)
			s.VIPs[0].Ring.Size = size
			b.SetServices([]lb.Service{s})
			synctest.Wait()
		}
		// failFrom lets some calls of SetRing succeed and all later ones fail.
		failFrom := func(n int) {
			b.dp.FailWith(func(verb string) error {
				if verb == "SetRing" {
					if n--; n < 0 {
						return errors.New("no memory")
					}
				}
				return nil
			})
		}
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		set(7, vip1)
		failFrom(0)
		set(11, vip1) // ring 0 may have moved
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		synctest.Wait()
		failFrom(1)
		set(7, vip1, vip2) // ring 0 moved to a third place, ring 1 failed
		b.dp.FailWith(nil)
		set(7, vip1)
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 2=10.0.0.2 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			real 192.0.2.10:80/tcp 3=10.0.0.3 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: 2=10.0.0.2:4 3=10.0.0.3:3`)
	})
}

func TestIDs(t *testing.T) {
	gue := func(t *testing.T, port uint16, checksum bool) lb.Service {
		s := service(t, "web", vip1)
		s.VIPs[0].Encap = lb.GUE
		s.VIPs[0].Tunnel.GUE4 = netip.MustParseAddr("198.51.100.1")
		s.VIPs[0].Tunnel.GUEPort, s.VIPs[0].Tunnel.GUEChecksum = port, checksum
		return s
	}
	tests := []struct {
		name   string
		before func(t *testing.T) lb.Service
		change func(t *testing.T, b *fixture)
		kept   bool
	}{
		{
			name: "another weight keeps them",
			change: func(t *testing.T, b *fixture) {
				b.SetBackends("a", map[string][]lb.Backend{"web": {{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 7}}})
			},
			kept: true,
		},
		{name: "another next hop keeps them", change: func(t *testing.T, b *fixture) { b.SetNextHops(resolved("10.0.0.1")) }, kept: true},
		{name: "another source of backends keeps them", change: func(t *testing.T, b *fixture) {
			b.SetBackends("b", backends("10.0.0.1"))
			b.SetBackends("a", nil)
		}, kept: true},
		{name: "another ring keeps them", change: func(t *testing.T, b *fixture) {
			s := gue(t, 6080, false)
			s.VIPs[0].Ring = lb.Ring{Size: 13, Hash: lb.MaglevV1}
			b.SetServices([]lb.Service{s})
		}, kept: true},
		{name: "another service of the VIP keeps them", change: func(t *testing.T, b *fixture) {
			s := gue(t, 6080, false)
			s.Name = "new"
			b.SetServices([]lb.Service{s})
			b.SetBackends("a", map[string][]lb.Backend{"new": backends("10.0.0.1")["web"]})
		}, kept: true},
		{name: "another port is another real", change: func(t *testing.T, b *fixture) { b.SetServices([]lb.Service{gue(t, 6081, false)}) }},
		{name: "a checksum is another real", change: func(t *testing.T, b *fixture) { b.SetServices([]lb.Service{gue(t, 6080, true)}) }},
		{name: "another encapsulation is another real", change: func(t *testing.T, b *fixture) { b.SetServices([]lb.Service{service(t, "web", vip1)}) }},
		{name: "another source address is another real", change: func(t *testing.T, b *fixture) {
			s := gue(t, 6080, false)
			s.VIPs[0].Tunnel.GUE4 = netip.MustParseAddr("198.51.100.2")
			b.SetServices([]lb.Service{s})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newFixture(t, nil, nil)
			b.SetServices([]lb.Service{gue(t, 6080, false)})
			b.SetBackends("a", backends("10.0.0.1"))
			if err := b.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := b.dp.Dump()
			tt.change(t, b)
			if err := b.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if b.dp.Dump() == before && tt.name != "another source of backends keeps them" {
				t.Error("the change changed nothing")
			}
			want := lb.RealID(2)
			if tt.kept {
				want = 1
			}
			if id := b.ids()["10.0.0.1"]; id != want {
				t.Errorf("id %d, want %d", id, want)
			}
		})
	}
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, func(c *engine.Config) { c.Quarantine = 15 * time.Minute }).run(t)
		expect := func(addr string, want lb.RealID) {
			t.Helper()
			synctest.Wait()
			if id := b.ids()[addr]; id != want {
				t.Errorf("%s has id %d, want %d", addr, id, want)
			}
		}
		b.SetServices([]lb.Service{service(t, "web", vip1)})
		b.SetBackends("a", backends("10.0.0.1", "10.0.0.2"))
		expect("10.0.0.2", 2)

		b.SetBackends("a", backends("10.0.0.2"))
		synctest.Wait()
		time.Sleep(15*time.Minute - time.Second)
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3"))
		expect("10.0.0.3", 3) // 1 rests still

		time.Sleep(2 * time.Second)
		b.SetBackends("a", backends("10.0.0.2", "10.0.0.3", "10.0.0.4"))
		expect("10.0.0.4", 1)

		// The rest begins with the deletion, not with the wish.
		b.dp.FailWith(func(verb string) error {
			if verb == "DeleteReals" {
				return errors.New("no")
			}
			return nil
		})
		b.SetBackends("a", backends("10.0.0.3", "10.0.0.4"))
		time.Sleep(20 * time.Minute)
		b.dp.FailWith(nil)
		time.Sleep(time.Minute)
		b.SetBackends("a", backends("10.0.0.3", "10.0.0.4", "10.0.0.5"))
		expect("10.0.0.5", 4)
	})
}

func TestEmptyServiceHasZeroSlots(t *testing.T) {
	b := newFixture(t, nil, nil)
	b.SetServices([]lb.Service{service(t, "web", vip1)})
	b.SetBackends("a", map[string][]lb.Backend{"web": {{Addr: netip.MustParseAddr("10.0.0.1")}}})
	if err := b.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The real of weight 0 keeps its record, for flows that know it.
	b.expectDump(t, `
		real 192.0.2.10:80/tcp 1=10.0.0.1 weight=0 ipip from=172.16.0.0/16 port=0 hop=not resolved yet retired
		vip 192.0.2.10:80/tcp service=web ring=0 maglev-v2/7: none:7`)
	if v := b.Status().Services[0].VIPs[0]; v.Members != 0 || len(v.Reals) != 1 {
		t.Errorf("%d members of %d reals, want 0 of 1", v.Members, len(v.Reals))
	}
}

func TestRingThatCannotBeLeavesOthersAlone(t *testing.T) {
	b := newFixture(t, nil, nil)
	s := service(t, "web", vip1, vip2)
	s.VIPs[0].Ring.Size = 8
	b.SetServices([]lb.Service{s})
	b.SetBackends("a", backends("10.0.0.1"))
	for range 2 { // ids must not move from pass to pass
		if err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.expectDump(t, `
			real 192.0.2.10:80/tcp 1=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			real [2001:db8::10]:443/tcp 2=10.0.0.1 weight=1 ipip from=172.16.0.0/16 port=0 hop=not resolved yet
			vip [2001:db8::10]:443/tcp service=web ring=1 maglev-v2/7: 2=10.0.0.1:7`)
	}
	problems := b.Status().Problems
	if len(problems) != 1 || !strings.Contains(problems[0].Text, "VIP left out: build ring: ring size 8 is not a prime") {
		t.Errorf("problems: %v", problems)
	}
	if n := b.log.count("VIP left out"); n != 1 {
		t.Errorf("the problem was logged %d times, want once", n)
	}
}

func TestSync(t *testing.T) {
	tests := []struct {
		name    string
		adopted bool // a previous run left something, and source a has not reported
		do      func(b *fixture)
		during  func(b *fixture, cancel func()) // after a second
		took    time.Duration                   // at most
		err     string
	}{
		{name: "converges"},
		{name: "retries", do: func(b *fixture) { b.dp.FailWith(failTimes(3)) }, took: time.Second},
		{name: "gives up", do: func(b *fixture) { b.dp.FailWith(failTimes(1000)) }, took: 2 * time.Second, err: "look over the flow table: injected"},
		{name: "waits for sources", adopted: true, during: func(b *fixture, _ func()) { b.SetBackends("a", nil) }, took: time.Second},
		{name: "waits only so long", adopted: true, took: 10 * time.Second},
		{name: "ends with the context", adopted: true, during: func(_ *fixture, cancel func()) { cancel() }, took: time.Second, err: "sync data plane: context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b := newFixture(t, nil, nil)
				if tt.adopted {
					b = served(t)
					b.stop()
					b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = b.dp.Adopted(), []string{"a"} })
				} else {
					b.SetBackends("a", backends("10.0.0.1"))
				}
				b.SetServices([]lb.Service{service(t, "web", vip1)})
				if tt.do != nil {
					tt.do(b)
				}
				if tt.during != nil {
					time.AfterFunc(time.Second, func() { tt.during(b, cancel) })
				}
				began := time.Now()
				err := b.Sync(ctx)
				if took := time.Since(began); took > tt.took {
					t.Errorf("took %v, want at most %v", took, tt.took)
				}
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				converged := strings.Contains(b.dp.Dump(), "vip "+vip1) && !strings.Contains(b.dp.Dump(), "vip "+vip2)
				if converged != (tt.err == "") {
					t.Errorf("converged: %v", converged)
				}
			})
		})
	}
}

// failTimes is a fault that ends after n failures.
func failTimes(n int) func(string) error {
	return func(string) error {
		n--
		if n < 0 {
			return nil
		}
		return errors.New("injected")
	}
}

func TestRunStopsBetweenSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newFixture(t, nil, nil).run(t)
		synctest.Wait()
		b.dp.FailWith(func(verb string) error {
			if verb == "SetReals" {
				b.cancel()
			}
			return nil
		})
		b.SetServices([]lb.Service{service(t, "web", vip1)})
		b.SetBackends("a", backends("10.0.0.1"))
		synctest.Wait()
		calls := b.dp.TakeCalls()
		if last := calls[len(calls)-1]; !strings.HasPrefix(last, "SetReals") {
			t.Errorf("the last call is %q, want SetReals: %q", last, calls)
		}
	})
}

func TestConfigProblemsAreAllReported(t *testing.T) {
	vip := service(t, "web", vip1).VIPs[0].VIP
	cfg := engine.Config{Settle: -1, Window: -1, SweepInterval: -1, Quarantine: -1, RepairInterval: -1, Adopted: engine.Adopted{
		Reals: []lb.Real{{ID: 1}, {ID: 1}, {ID: 0}},
		VIPs:  []lb.VIPEntry{{VIP: vip}, {VIP: vip}},
	}}
	_, err := engine.New(cfg, nil, nil)
	want := `check engine configuration: Settle: -1ns is negative
Window: -1ns is not more than 0
SweepInterval: -1ns is negative
Quarantine: -1ns is negative
RepairInterval: -1ns is negative
Retry.Min: 0s is not more than 0
Retry.Attempts: 0 is less than 1
Adopted.Reals[1].ID: 1 is there twice
Adopted.Reals[2].ID: 0 is not 1 to 16777215
Adopted.Slots: is nil, but there are VIPs
Adopted.VIPs[1].VIP: 192.0.2.10:80/tcp is there twice
Adopted.VIPs[1].RingID: 0 is there twice`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}
