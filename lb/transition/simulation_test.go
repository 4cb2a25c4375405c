// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// scenario is a thousand steps of random changes. Flows pause for at most 0.9 of the window, and
// packets of a flow must all go to the real of its first one while that may receive.
type scenario struct {
	name  string
	kinds []changeKind
	// window is in steps. A real that is removed receives known flows for drain steps more.
	window, drain int
	// grain is that of changes that become one; 0 keeps all apart.
	grain     time.Duration
	balancers int
	// shared balancers have one flow table.
	shared bool
	// restart is done to a balancer at random times.
	restart func(*balancer)
	// refused is the share of flows that are not remembered when they begin. If not 0, the second
	// packet of all follows at once, as in a TCP handshake.
	refused float64
	// refusedGoOn leaves out the rule for new flows that are not remembered.
	refusedGoOn bool
}

type changeKind int

const (
	add changeKind = iota
	remove
	weigh
	flap // remove, and soon add again
)

var (
	plain = []changeKind{add, remove, weigh}
	flaps = []changeKind{add, remove, weigh, flap}
)

const (
	steps = 1000
	paths = 16
)

// flow is one connection at a time: its id, slot and path are those of its addresses and ports,
// which a later one may have again.
type flow struct {
	id        int
	slot      uint32
	path      int
	real      lb.RealID
	next, end int
}

// world is all but the balancers: reals, clients, and the router between.
type world struct {
	scenario
	t    *testing.T
	rng  *rand.Rand
	ring lb.Ring
	now  int
	// reals is by id; there is none of id 0.
	reals  []backend
	all    []*balancer
	ecmp   [paths]int
	flows  []*flow
	ended  []*flow
	result result
}

// backend is a real that takes new flows if it has a weight, and its known ones until a step. It
// keeps its id when it returns.
type backend struct {
	weight         uint32
	until, returns int
}

// result counts; lost flows are those whose real may not receive any more.
type result struct {
	flows, broken, lost int
	met                 [lb.SlotStateLen]int
}

func (r *result) add(other result) {
	r.flows, r.broken, r.lost = r.flows+other.flows, r.broken+other.broken, r.lost+other.lost
	for i, n := range other.met {
		r.met[i] += n
	}
}

func (w *world) receives(id lb.RealID) bool { return w.takesNew(id) || w.reals[id].until > w.now }
func (w *world) takesNew(id lb.RealID) bool { return w.reals[id].weight > 0 }
func (w *world) refuses() bool              { return w.refused > 0 && w.rng.Float64() < w.refused }

func (w *world) choice() []lb.Slot {
	var members []maglev.Member
	for id, r := range w.reals[1:] {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(id >> 8), byte(id)})
		members = append(members, maglev.Member{ID: lb.RealID(id + 1), Addr: addr, Weight: r.weight})
	}
	choice, err := maglev.Build(w.ring, members)
	if err != nil {
		w.t.Fatal(err)
	}
	return choice
}

// simulate plays a scenario once. Equal arguments give equal results.
func simulate(t *testing.T, s scenario, size uint32, seed uint64) result {
	w := &world{
		scenario: s, t: t, rng: rand.New(rand.NewPCG(seed, uint64(size))), ring: lb.Ring{Size: size},
		reals: make([]backend, 1),
	}
	for range 6 {
		w.reals = append(w.reals, backend{weight: 10})
	}
	table := make(flowTable, 3*steps)
	for range s.balancers {
		w.all = append(w.all, newBalancer(w, w.choice(), table))
		if !s.shared {
			table = make(flowTable, 3*steps)
		}
	}
	w.spread()
	for w.now = range steps {
		w.step()
	}
	for _, b := range w.all {
		w.result.add(result{met: b.met})
	}
	return w.result
}

func (w *world) step() {
	if w.rng.Float64() < 0.03 {
		w.change(w.kinds[w.rng.IntN(len(w.kinds))])
		w.announce()
	}
	for id, r := range w.reals {
		if r.returns > 0 && r.returns == w.now {
			w.reals[id] = backend{weight: 10}
			w.announce()
		}
	}
	if w.rng.Float64() < 0.01 {
		w.spread()
	}
	for _, b := range w.all {
		b.step()
		if w.restart != nil && w.rng.Float64() < 0.01 {
			w.restart(b)
		}
	}
	for range 3 {
		w.begin()
	}
	w.flows = slices.DeleteFunc(w.flows, w.proceed)
}

func (w *world) change(kind changeKind) {
	var active []*backend
	for id := range w.reals {
		if r := &w.reals[id]; r.weight > 0 {
			active = append(active, r)
		}
	}
	r := active[w.rng.IntN(len(active))]
	switch {
	case kind == add:
		w.reals = append(w.reals, backend{weight: 10})
	case kind == weigh:
		r.weight = []uint32{1, 5, 10, 20}[w.rng.IntN(4)]
	case len(active) > 2:
		*r = backend{until: w.now + w.drain}
		if kind == flap {
			r.returns = w.now + 5 + w.rng.IntN(25)
		}
	}
}

func (w *world) announce() {
	choice := w.choice()
	for _, b := range w.all {
		b.change(choice)
	}
}

// spread gives the flows' paths to balancers.
func (w *world) spread() {
	for i := range w.ecmp {
		w.ecmp[i] = w.rng.IntN(len(w.all))
	}
}

// begin opens a connection, one in five with the addresses and ports of one that has ended.
func (w *world) begin() {
	f := &flow{id: w.result.flows, slot: w.rng.Uint32N(w.ring.Size), path: w.rng.IntN(paths)}
	if n := len(w.ended); n > 0 && w.rng.IntN(5) == 0 {
		i := w.rng.IntN(n)
		f = w.ended[i]
		w.ended = slices.Delete(w.ended, i, i+1)
	}
	f.end = w.now + 10 + w.rng.IntN(8*w.window)
	f.real = w.packet(f, syn)
	f.next = w.now + w.pause()
	if w.refused > 0 {
		f.next = w.now + 1
	}
	w.flows = append(w.flows, f)
	w.result.flows++
}

// pause is how long a flow is silent between two packets.
func (w *world) pause() int { return 1 + w.rng.IntN(w.window*9/10) }

func (w *world) packet(f *flow, kind packetKind) lb.RealID {
	id := w.all[w.ecmp[f.path]].packet(f, kind)
	if !w.receives(id) || kind == syn && !w.takesNew(id) {
		w.t.Fatalf("step %d: a packet of slot %d goes to real %d, which may not get it", w.now, f.slot, id)
	}
	return id
}

// proceed sends the flow's next packet, if it is due, and tells whether the flow is over.
func (w *world) proceed(f *flow) bool {
	if w.now < f.next {
		return false
	}
	kind := other
	if w.now > f.end {
		kind = rst
	}
	lost := !w.receives(f.real)
	broken := w.packet(f, kind) != f.real && !lost
	switch {
	case lost:
		w.result.lost++
	case broken:
		w.result.broken++
	}
	if lost || broken || kind == rst {
		w.ended = append(w.ended, f)
		return true
	}
	f.next = w.now + w.pause()
	return false
}

// simulateAll plays a scenario with several seeds, or one on a large ring, and makes sure that it met slots in all states.
func simulateAll(t *testing.T, s scenario, size uint32) result {
	t.Helper()
	var sum result
	seeds := uint64(4)
	if size > 1000 {
		seeds = 1
	}
	for seed := range seeds {
		sum.add(simulate(t, s, size, seed))
	}
	t.Logf("flows %d, broken %d, lost with their real %d, packets by state of their slot %v",
		sum.flows, sum.broken, sum.lost, sum.met)
	if slices.Contains(sum.met[:], 0) {
		t.Error("there was a state that no packet met")
	}
	return sum
}

func eachSize(t *testing.T, name string, test func(*testing.T, uint32)) {
	t.Helper()
	for _, size := range []uint32{251, 4093} {
		t.Run(fmt.Sprintf("%s/slots=%d", name, size), func(t *testing.T) { test(t, size) })
	}
}

// However the reals change, no packet of a flow goes to another real than its first.
func TestNoFlowIsBroken(t *testing.T) {
	for _, s := range []scenario{
		{name: "one balancer", kinds: plain, window: 100, drain: 1000, balancers: 1},
		{name: "flapping reals", kinds: flaps, window: 100, drain: 1000, balancers: 1},
		{name: "long window", kinds: flaps, window: 300, drain: 3000, balancers: 1},
		{name: "changes become one", kinds: flaps, window: 100, grain: 20 * time.Second, drain: 1000, balancers: 1},
		{name: "short drains", kinds: flaps, window: 100, drain: 40, balancers: 1},
		{name: "two balancers share records", kinds: flaps, window: 100, drain: 1000, balancers: 2, shared: true},
		{name: "crashes", kinds: flaps, window: 100, drain: 1000, balancers: 1, restart: (*balancer).crash},
		{name: "restarts", kinds: flaps, window: 100, drain: 1000, balancers: 1, restart: (*balancer).restart},
		{name: "restarts, and the clock is set back", kinds: flaps, window: 100, drain: 1000, balancers: 1, restart: (*balancer).restartSetBack},
	} {
		eachSize(t, s.name, func(t *testing.T, size uint32) {
			sum := simulateAll(t, s, size)
			if sum.broken > 0 {
				t.Errorf("%d of %d flows changed their real", sum.broken, sum.flows)
			}
			if s.drain < s.window && sum.lost == 0 {
				t.Error("no flow outlived its real's drain")
			}
		})
	}
}

// Balancers that do not share records break flows that outlived a change and then move from one to
// another: about one in four. It shows that the simulation can tell.
func TestTablesApartBreakFlows(t *testing.T) {
	s := scenario{kinds: flaps, window: 100, drain: 1000, balancers: 2}
	eachSize(t, "two balancers", func(t *testing.T, size uint32) {
		if sum := simulateAll(t, s, size); sum.broken == 0 {
			t.Error("no flow changed its real")
		}
	})
}

// A flow that is not remembered when it begins goes where its next packets will.
func TestRefusedFlowsBeginAtPrevious(t *testing.T) {
	s := scenario{kinds: []changeKind{add, weigh}, window: 100, drain: 1000, balancers: 1, refused: 0.5}
	eachSize(t, "half refused", func(t *testing.T, size uint32) {
		with := simulateAll(t, s, size).broken
		s := s
		s.refusedGoOn = true
		without := simulateAll(t, s, size).broken
		if with*10 > without {
			t.Errorf("%d flows changed their real, and %d without the rule", with, without)
		}
	})
}
