// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
	"github.com/remora-lb/remora/test/require"
)

const ringSize = 251

// config is services and backends, as an engine and a plan take them.
type config struct {
	services []lb.Service
	backends map[string][]lb.Backend
}

// world is an engine with a fake data plane.
type world struct {
	*testing.T
	engine *engine.Engine
	dp     *enginetest.Dataplane
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dp := enginetest.NewDataplane(t, 1)
	e, err := engine.New(engine.DefaultConfig(), dp, new(enginetest.NextHops))
	require.NoError(t, err)
	return &world{t, e, dp}
}

func (w *world) apply(c config) {
	w.Helper()
	w.engine.SetServicesAndBackends(c.services, "file", c.backends)
	require.NoError(w.T, w.engine.Sync(w.Context()))
}

// present is what the data plane has.
func (w *world) present() Present {
	a := w.dp.Adopted()
	return Present{VIPs: a.VIPs, Reals: a.Reals, Slots: a.Slots, Flows: func(visit func(lb.Flow)) {
		for _, f := range w.dp.Flows() {
			visit(f)
		}
	}}
}

func (w *world) plan(have Present, c config) *Plan {
	w.Helper()
	p, err := Compute(have, Wanted{Services: c.services, Backends: c.backends})
	require.NoError(w.T, err)
	return p
}

func vipNumber(n int) lb.VIP {
	return lb.VIP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), Port: 80, Protocol: lb.TCP}
}

func server(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 20, 0, byte(n)}) }

// service has a VIP of its number, and these backends.
func (c *config) service(n int, mode lb.FlowMode, leave lb.Leave, backends ...lb.Backend) {
	name := fmt.Sprintf("service %d", n)
	c.services = append(c.services, lb.Service{Name: name, VIPs: []lb.ServiceVIP{{
		VIP: vipNumber(n), Ring: lb.Ring{Size: ringSize}, Tunnel: lb.DefaultTunnelSources(), Flows: mode, Leave: leave,
	}}})
	if c.backends == nil {
		c.backends = make(map[string][]lb.Backend)
	}
	c.backends[name] = backends
}

func weighted(weight uint32, servers ...int) (list []lb.Backend) {
	for _, n := range servers {
		list = append(list, lb.Backend{Addr: server(n), Weight: weight})
	}
	return list
}

// randomConfig has some of four services, each with some of eight servers.
func randomConfig(rng *rand.Rand) (c config) {
	for n := range 4 {
		if rng.IntN(5) == 0 {
			continue
		}
		var backends []lb.Backend
		for s := range 8 {
			if rng.IntN(3) > 0 {
				backends = append(backends, lb.Backend{Addr: server(s), Weight: rng.Uint32N(4)})
			}
		}
		mode := []lb.FlowMode{lb.FlowTransitions, lb.FlowNever, lb.FlowAlways}[rng.IntN(3)]
		c.service(n, mode, lb.Leave{Drain: time.Duration(rng.IntN(2)) * time.Hour}, backends...)
		v := &c.services[len(c.services)-1].VIPs[0]
		v.Ring.Hash = lb.RingHash(rng.IntN(8) / 7)
		if rng.IntN(6) == 0 {
			v.Encap, v.Tunnel.GUE4 = lb.GUE, netip.MustParseAddr("192.0.2.200")
		}
	}
	return c
}

// TestPlannedSlotsMove plans and applies random configurations one after the other: those slots must move
// that the plan counted, whatever else is under way.
func TestPlannedSlotsMove(t *testing.T) {
	const variable = "REMORA_SEED"
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(variable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("read %s: %v", variable, err)
		}
	}
	t.Logf("%s=%d repeats this run", variable, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	moved, changed := 0, 0
	for range 20 {
		w := newWorld(t)
		w.apply(randomConfig(rng))
		for range 5 {
			have, next := w.present(), randomConfig(rng)
			before := slotsOf(have)
			p := w.plan(have, next)
			w.apply(next)
			after := slotsOf(w.present())
			for _, v := range p.VIPs {
				n := 0
				for i := range before[v.VIP] {
					if len(after[v.VIP]) > 0 && before[v.VIP][i].Cur() != after[v.VIP][i].Cur() {
						n++
					}
				}
				if v.Slots.Moved != n || v.Slots.Unavoidable > n || v.Slots.Estimated {
					t.Fatalf("%s: %d slots moved, planned %+v", v.VIP, n, v.Slots)
				}
				if !v.changeFits(before, after) {
					t.Fatalf("%s: %s, but it has %d slots, and had %d", v.VIP, v.Change, len(after[v.VIP]), len(before[v.VIP]))
				}
				moved += n
				if v.Change == Changed {
					changed++
				}
			}
			if again := w.plan(w.present(), next); again.Changes {
				t.Fatalf("what was applied is planned again: %+v", again.VIPs)
			}
		}
	}
	if moved < 1000 || changed < 50 {
		t.Errorf("only %d slots of %d VIPs moved", moved, changed)
	}
}

// changeFits tells whether a VIP came and went as planned.
func (v VIP) changeFits(before, after map[lb.VIP][]lb.Slot) bool {
	had, has := before[v.VIP] != nil, after[v.VIP] != nil
	switch v.Change {
	case Added:
		return !had && has
	case Removed:
		return had && !has
	}
	return had && has
}

func slotsOf(p Present) map[lb.VIP][]lb.Slot {
	all := make(map[lb.VIP][]lb.Slot)
	for _, v := range p.VIPs {
		all[v.VIP] = slices.Clone(p.Slots(v.RingID))
	}
	return all
}

func TestPlanOfOneVIP(t *testing.T) {
	hour := lb.Leave{Drain: time.Hour}
	for _, c := range []struct {
		name  string
		next  func(*config)
		mode  lb.FlowMode
		want  func(VIP) bool
		other Others
		says  string
	}{
		{"nothing", func(c *config) { c.service(1, lb.FlowTransitions, hour, weighted(1, 1, 2)...) }, lb.FlowTransitions,
			func(v VIP) bool { return v.Change == Same && v.Slots.Moved == 0 }, Stay, "no VIP changes"},
		{"one more", func(c *config) { c.service(1, lb.FlowTransitions, hour, weighted(1, 1, 2, 3)...) }, lb.FlowTransitions,
			func(v VIP) bool { return v.Backends[0].Change == Added && v.Slots.Moved > 0 && v.Flows.Broken == 0 }, Stay, "backend 10.20.0.3: added, weight 1"},
		{"one less", func(c *config) { c.service(1, lb.FlowTransitions, hour, weighted(1, 1)...) }, lb.FlowTransitions,
			func(v VIP) bool { return v.Backends[0].Change == Removed && v.Flows.Broken == 0 }, Stay, "removed, its connections have 1h0m0s more"},
		{"one less at once", func(c *config) { c.service(1, lb.FlowTransitions, lb.Leave{}, weighted(1, 1)...) }, lb.FlowTransitions,
			func(v VIP) bool { return v.Flows.Broken == 1 }, BreakOfRemoved, "removed, at once"},
		{"not remembered", func(c *config) { c.service(1, lb.FlowNever, hour, weighted(1, 1)...) }, lb.FlowNever,
			func(v VIP) bool { return v.Slots.Moved > 0 }, BreakOnMoved, "those on slots that move break"},
		{"empty", func(c *config) { c.service(1, lb.FlowTransitions, hour) }, lb.FlowTransitions,
			func(v VIP) bool { return v.Active == 0 && v.Slots.Moved == ringSize }, Stay, "packets end as ring_empty"},
		{"weight", func(c *config) {
			c.service(1, lb.FlowTransitions, hour, append(weighted(3, 1), weighted(1, 2)...)...)
		}, lb.FlowTransitions, func(v VIP) bool { return v.Slots.Unavoidable > 0 }, Stay, "weight from 1 to 3"},
		{"another ring", func(c *config) {
			c.service(1, lb.FlowTransitions, hour, weighted(1, 1, 2)...)
			c.services[0].VIPs[0].Ring.Size = 509
		}, lb.FlowTransitions, func(v VIP) bool { return v.Slots.Estimated && v.Slots.Total == 509 }, Stay, "ring size from 251 to 509"},
		{"gone", func(*config) {}, lb.FlowTransitions,
			func(v VIP) bool { return v.Change == Removed && v.Flows.Broken == 2 }, Break, "all break"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			var first, next config
			first.service(1, c.mode, hour, weighted(1, 1, 2)...)
			w.apply(first)
			w.remember()
			c.next(&next)
			p := w.plan(w.present(), next)
			if len(p.VIPs) != 1 || !c.want(p.VIPs[0]) || p.VIPs[0].Flows.Others != c.other {
				t.Errorf("planned %+v", p.VIPs)
			}
			var text strings.Builder
			require.NoError(t, p.Print(&text))
			if !strings.Contains(text.String(), c.says) {
				t.Errorf("printed without %q:\n%s", c.says, text.String())
			}
		})
	}
}

// remember has a flow remembered at each real.
func (w *world) remember() {
	w.Helper()
	var flows []lb.Flow
	for i, r := range w.dp.Adopted().Reals {
		flows = append(flows, lb.Flow{Tag: uint64(i + 1), Real: r.ID, Generation: r.Generation, Slot: uint32(i)})
	}
	if _, err := w.dp.AddFlows(flows); err != nil {
		w.Fatal(err)
	}
}

func TestOverlays(t *testing.T) {
	w := newWorld(t)
	var c config
	c.service(1, lb.FlowTransitions, lb.DefaultLeave(), weighted(1, 1, 2)...)
	w.apply(c)
	target := lb.Target{VIP: vipNumber(1), Backend: server(2)}
	for name, want := range map[string]Wanted{
		"drain":  {Drains: map[lb.Target]bool{target: true}},
		"weight": {Weights: map[lb.Target]uint32{target: 3}},
	} {
		want.Services, want.Backends = c.services, c.backends
		p, err := Compute(w.present(), want)
		require.NoError(t, err)
		if !p.Changes || p.VIPs[0].Slots.Moved == 0 || len(p.VIPs[0].Backends) != 1 || p.VIPs[0].Backends[0].Address != server(2) {
			t.Errorf("%s: planned %+v", name, p.VIPs)
		}
	}
}

func TestDynamicBackendsStay(t *testing.T) {
	w := newWorld(t)
	var c config
	c.service(1, lb.FlowTransitions, lb.DefaultLeave(), weighted(2, 1, 2)...)
	w.apply(c)
	next := config{}
	next.service(1, lb.FlowTransitions, lb.DefaultLeave())
	next.service(2, lb.FlowTransitions, lb.DefaultLeave())
	p, err := Compute(w.present(), Wanted{Services: next.services, Dynamic: map[string]bool{"service 1": true, "service 2": true}})
	require.NoError(t, err)
	if p.VIPs[0].Change != Same || p.VIPs[1].Change != Added || len(p.Notes) != 1 {
		t.Errorf("planned %+v, notes %q", p.VIPs, p.Notes)
	}
}
