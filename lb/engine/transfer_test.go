// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// export goes through JSON.
func (b *fixture) export(t *testing.T) *engine.Export {
	t.Helper()
	x, err := b.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var again engine.Export
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	return &again
}

func (b *fixture) expectImport(t *testing.T, x *engine.Export, want engine.Imported) {
	t.Helper()
	got, err := b.Import(t.Context(), x)
	if err != nil || got != want {
		t.Errorf("imported %+v, error %v, want %+v", got, err, want)
	}
	synctest.Wait()
}

// TestExport has the form in which balancers, of several versions perhaps, talk to one another.
func TestExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		time.Sleep(time.Minute)
		b.remove()
		synctest.Wait()
		c := b.clientOf(t, 2, 7)
		slots := b.dp.Slots(webVIP)
		for i, s := range slots {
			if s.State() == lb.SlotMoving {
				c.hash = uint32((uint64(i)<<32 + 1<<31) / 53)
				break
			}
		}
		c.tag = 8
		c.send(false)
		time.Sleep(2 * time.Second)
		text, err := json.MarshalIndent(b.export(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		want := `{
 "vips": [
  {
   "vip": "192.0.2.10:80/tcp",
   "ring_size": 53,
   "ring_hash": "maglev-v2",
   "sets": [
    {
     "since": "2000-01-01T00:00:00Z",
     "members": [
      {
       "backend": "10.0.0.1",
       "weight": 1
      },
      {
       "backend": "10.0.0.2",
       "weight": 1
      },
      {
       "backend": "10.0.0.3",
       "weight": 1
      }
     ]
    },
    {
     "since": "2000-01-01T00:01:00Z",
     "members": [
      {
       "backend": "10.0.0.2",
       "weight": 1
      },
      {
       "backend": "10.0.0.3",
       "weight": 1
      }
     ]
    }
   ],
   "absent": [
    {
     "backend": "10.0.0.1",
     "cause": "removed",
     "since": "2000-01-01T00:01:00Z",
     "until": "2000-01-01T00:11:00Z"
    }
   ]
  }
 ],
 "flows": [
  {
   "vip": "192.0.2.10:80/tcp",
   "backend": "10.0.0.1",
   "tag": 8,
   "slot": SLOT,
   "idle_ns": 2000000000,
   "seen": true
  }
 ]
}`
		want = strings.Replace(want, "SLOT", fmt.Sprint(uint64(c.hash)*53>>32), 1)
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("export (-want +got):\n%s", diff)
		}
	})
}

// TestFlowsMoveToAnotherBalancer has all connections of one balancer go to another one, with what
// the first remembers.
func TestFlowsMoveToAnotherBalancer(t *testing.T) {
	for seed := range uint64(6) {
		for _, fresh := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d fresh %t", seed, fresh), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { moveFlows(t, seed, fresh) })
			})
		}
	}
}

func moveFlows(t *testing.T, seed uint64, fresh bool) {
	w := newWorld(t, seed)
	w.start(0)
	if !fresh {
		w.start(0)
	}
	w.account(knowsAll)
	for range 200 {
		w.step(0.15, 0)
	}
	if fresh {
		w.start(0)
		w.account(lostMemory)
	}
	// Backends that were removed before it began are not there.
	there := make(map[lb.Target]bool)
	for _, s := range w.all[1].Status().Services {
		for _, v := range s.VIPs {
			for _, r := range v.Reals {
				there[lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}] = true
			}
		}
	}
	w.conns = slices.DeleteFunc(w.conns, func(c *conn) bool {
		return !there[lb.Target{VIP: c.real.VIP, Backend: c.real.Backend.Addr}]
	})
	got, err := w.all[1].Import(t.Context(), w.all[0].export(t))
	if err != nil || got.Flows == 0 || got.VIPs == 0 {
		t.Fatalf("imported %+v, error %v", got, err)
	}
	synctest.Wait()
	moved := 0
	for _, c := range w.conns {
		if c.via == 0 {
			c.via = 1
			moved++
		}
	}
	w.via = []int{1}
	for range 200 {
		w.step(0.15, 0)
	}
	w.end()
	t.Logf("%d connections moved to the other balancer, %+v", moved, got)
	if moved < 20 {
		t.Errorf("only %d connections moved", moved)
	}
}

// sets are many changes of two sets, a second apart.
func sets(n int, since time.Time, members ...engine.MemberMemory) []engine.SetMemory {
	var all []engine.SetMemory
	for i := range n {
		all = append(all, engine.SetMemory{Since: since.Add(time.Duration(i) * time.Second), Members: members[i%len(members):]})
	}
	return all
}

func TestImportOfGarbage(t *testing.T) {
	member := func(addr string, weight uint32) engine.MemberMemory {
		return engine.MemberMemory{Backend: netip.MustParseAddr(addr), Weight: weight}
	}
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	past := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	good := []engine.MemberMemory{member("10.0.0.1", 1), member("10.0.0.2", 1), member("10.0.0.9", 1)}
	flow := engine.FlowMemory{VIP: webVIP, Backend: netip.MustParseAddr("10.0.0.1"), Tag: 1, Slot: 1}
	with := func(change func(*engine.FlowMemory)) []engine.FlowMemory {
		f := flow
		change(&f)
		return []engine.FlowMemory{f}
	}
	many := func(n int, m engine.VIPMemory) []engine.VIPMemory { return slices.Repeat([]engine.VIPMemory{m}, n) }
	ring := func(sets ...engine.SetMemory) engine.VIPMemory {
		return engine.VIPMemory{VIP: webVIP, Size: 53, Hash: "maglev-v2", Sets: sets}
	}
	other := ring()
	other.Size = 61
	elsewhere := ring()
	elsewhere.VIP.Port = 81
	v1 := ring(sets(2, past, good...)...)
	v1.Hash = "maglev-v1"
	tests := []struct {
		name  string
		vips  []engine.VIPMemory
		flows []engine.FlowMemory
		want  engine.Imported
	}{
		{name: "nothing"},
		{name: "no address", flows: with(func(f *engine.FlowMemory) { f.Backend = netip.Addr{} }), want: engine.Imported{Unknown: 1}},
		{name: "unknown backend", flows: with(func(f *engine.FlowMemory) { f.Backend = netip.MustParseAddr("10.0.0.9") }), want: engine.Imported{Unknown: 1}},
		{name: "unknown VIP", vips: []engine.VIPMemory{elsewhere}, flows: with(func(f *engine.FlowMemory) { f.VIP.Port = 81 }), want: engine.Imported{Unknown: 1}},
		{name: "tag 0", flows: with(func(f *engine.FlowMemory) { f.Tag = 0 }), want: engine.Imported{Unknown: 1}},
		{name: "tag of 56 bits", flows: with(func(f *engine.FlowMemory) { f.Tag = 1 << 55 }), want: engine.Imported{Unknown: 1}},
		{name: "slot out of range", flows: with(func(f *engine.FlowMemory) { f.Slot = 53 }), want: engine.Imported{Unknown: 1}},
		{name: "greatest slot", flows: with(func(f *engine.FlowMemory) { f.Slot = math.MaxUint32 }), want: engine.Imported{Unknown: 1}},
		{name: "idle for ever", flows: with(func(f *engine.FlowMemory) { f.Idle = math.MaxInt64 }), want: engine.Imported{Unknown: 1}},
		{name: "idle for less than nothing", flows: with(func(f *engine.FlowMemory) { f.Idle = math.MinInt64 }), want: engine.Imported{Flows: 1}},
		{name: "a flow twice", flows: []engine.FlowMemory{flow, flow}, want: engine.Imported{Flows: 1, Known: 1}},
		{name: "ring of another size", vips: []engine.VIPMemory{other}, flows: []engine.FlowMemory{flow}, want: engine.Imported{Unknown: 1}},
		{name: "ring of another hash", vips: []engine.VIPMemory{v1}},
		{name: "no members", vips: []engine.VIPMemory{ring(engine.SetMemory{Since: far})}, want: engine.Imported{VIPs: 1}},
		{name: "weights 0", vips: []engine.VIPMemory{ring(engine.SetMemory{Since: far, Members: []engine.MemberMemory{member("10.0.0.1", 0)}})}, want: engine.Imported{VIPs: 1}},
		{name: "greatest weights", vips: []engine.VIPMemory{ring(engine.SetMemory{Since: far, Members: []engine.MemberMemory{
			member("10.0.0.1", math.MaxUint32), member("10.0.0.2", math.MaxUint32)}})}, want: engine.Imported{VIPs: 1}},
		{name: "a member twice", vips: []engine.VIPMemory{ring(engine.SetMemory{Since: far, Members: []engine.MemberMemory{good[0], good[0]}})}},
		{name: "a member without address", vips: []engine.VIPMemory{ring(engine.SetMemory{Since: far, Members: []engine.MemberMemory{{Weight: 1}}})}},
		{name: "of the future", vips: []engine.VIPMemory{ring(sets(5, far, good...)...)}, want: engine.Imported{VIPs: 1}},
		{name: "of the past", vips: []engine.VIPMemory{ring(sets(5, past, good...)...)}, want: engine.Imported{VIPs: 1}},
		{name: "many sets", vips: []engine.VIPMemory{ring(sets(250, far, good...)...)}, want: engine.Imported{VIPs: 1}},
		{name: "a VIP a hundred times", vips: many(100, ring(sets(5, past, good...)...)), want: engine.Imported{VIPs: 1}},
		{name: "thousands of sets", vips: []engine.VIPMemory{ring(sets(5000, past, good...)...)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, lb.FlowTransitions)
				time.Sleep(20 * time.Minute) // its past reaches over the window
				x := &engine.Export{Memory: engine.Memory{VIPs: tt.vips}, Flows: tt.flows}
				if len(tt.vips) == 0 {
					x.VIPs = []engine.VIPMemory{ring()}
				}
				b.expectImport(t, x, tt.want)
				for i, s := range b.dp.Slots(webVIP) {
					if s.State() == lb.SlotMoving {
						t.Fatalf("slot %d sends flows of this balancer elsewhere: %v", i, s)
					}
				}
				if again := b.export(t); len(again.VIPs) > 0 && len(again.VIPs[0].Sets) > 70 {
					t.Errorf("%d sets are kept", len(again.VIPs[0].Sets))
				}
				time.Sleep(16 * time.Minute)
				synctest.Wait()
				if got := b.states()[lb.SlotStable]; got != 53 || len(b.dp.Flows()) > 0 {
					t.Errorf("after the window: states %v, flows %v", b.states(), b.dp.Flows())
				}
			})
		})
	}
}

// TestImportEndsWithItsContext: and then has changed nothing.
func TestImportEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		time.Sleep(time.Minute)
		b.remove()
		synctest.Wait()
		x := b.export(t)
		slices.Reverse(x.VIPs[0].Sets)
		x.VIPs[0].Sets[0].Since, x.VIPs[0].Sets[1].Since = x.VIPs[0].Sets[1].Since, x.VIPs[0].Sets[0].Since
		// The engine looks at the context only when it has begun with the import.
		if _, err := b.Import(&lateContext{t.Context()}, x); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if n := len(b.export(t).VIPs[0].Sets); n != 2 {
			t.Errorf("%d sets after an import that was given up", n)
		}
		b.expectImport(t, x, engine.Imported{VIPs: 1})
		if n := len(b.export(t).VIPs[0].Sets); n <= 2 {
			t.Errorf("%d sets after the import", n)
		}
	})
}

// lateContext has ended, but nobody is told before he asks.
type lateContext struct{ context.Context }

func (*lateContext) Done() <-chan struct{} { return nil }
func (*lateContext) Err() error            { return context.Canceled }

// TestTransferNeedsSettledRings: while they are held, nothing is known of them.
func TestTransferNeedsSettledRings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := served(t)
		b = restart(t, b, "a")
		if _, err := b.Export(t.Context()); err == nil || !strings.Contains(err.Error(), "held") {
			t.Errorf("export: error %v", err)
		}
		if _, err := b.Import(t.Context(), &engine.Export{}); err == nil || !strings.Contains(err.Error(), "held") {
			t.Errorf("import: error %v", err)
		}
		b.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Export(ctx); err == nil {
			t.Error("an engine that does not run exports")
		}
	})
}

// TestBadMemory is one that says other things than the data plane: connections stay where they are.
func TestBadMemory(t *testing.T) {
	hour := -time.Hour
	tests := map[string]func(m *engine.VIPMemory){
		"as it was":    func(*engine.VIPMemory) {},
		"an hour old":  func(m *engine.VIPMemory) { m.Sets = sets(2, time.Now().Add(hour), m.Sets[0].Members...) },
		"another size": func(m *engine.VIPMemory) { m.Size = 61 },
		"others": func(m *engine.VIPMemory) {
			m.Sets[0].Members[0].Weight, m.Sets[1].Members[0].Weight = 40, 30
		},
		"other order":       func(m *engine.VIPMemory) { slices.Reverse(m.Sets) },
		"a member twice":    func(m *engine.VIPMemory) { m.Sets[1].Members[0] = m.Sets[1].Members[1] },
		"thousands of sets": func(m *engine.VIPMemory) { m.Sets = sets(5000, time.Now().Add(hour), m.Sets[0].Members...) },
		"of the future": func(m *engine.VIPMemory) {
			m.Sets = sets(5, time.Now().Add(1000*time.Hour), m.Sets[0].Members...)
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := leaving(t, lb.FlowTransitions)
				clients := make(map[client]lb.RealID)
				for i := range uint64(53) {
					c := client{b: b, tag: i + 1, hash: uint32((i<<32 + 1<<31) / 53)}
					clients[c] = c.send(true)
				}
				time.Sleep(time.Second)
				b.remove()
				synctest.Wait()
				x := b.export(t)
				change(&x.VIPs[0])
				b.stop()
				adopted := b.dp.Adopted()
				adopted.Memory = &x.Memory
				b = newFixture(t, b.dp, func(c *engine.Config) { c.Adopted, c.Sources = adopted, []string{"a"} }).run(t)
				b.SetServices([]lb.Service{leavingService(t, lb.FlowTransitions)})
				b.remove()
				synctest.Wait()
				for c, want := range clients {
					if got := c.send(false); got != want {
						t.Errorf("connection %d goes to real %d, want %d", c.tag, got, want)
					}
				}
			})
		})
	}
}

// TestFlappingIsBounded has a real go and come each second for longer than the window.
func TestFlappingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := leaving(t, lb.FlowTransitions)
		c := b.clientOf(t, 1, 1)
		for i := range 1000 {
			b.SetHealth(map[lb.Target]engine.Health{leavingTarget(): {Down: i%2 == 0}})
			time.Sleep(time.Second)
			if got := c.send(false); got != 1 {
				t.Fatalf("the connection goes to real %d", got)
			}
		}
		synctest.Wait()
		if n := len(b.export(t).VIPs[0].Sets); n < 10 || n > 70 {
			t.Errorf("%d sets are kept", n)
		}
		time.Sleep(16 * time.Minute)
		synctest.Wait()
		if got := b.states()[lb.SlotStable]; got != 53 {
			t.Errorf("states after the window: %v", b.states())
		}
	})
}
