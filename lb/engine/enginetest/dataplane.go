// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package enginetest has a data plane and a resolver in memory, for tests of what writes to them.
package enginetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// TB is the part of testing.TB that the fakes need; that of rapid.T is enough.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
}

// Dataplane keeps in maps what an engine writes. After each verb, and after each part of one that
// failed, it checks the promises that packets rely on, and fails the test if one is broken. Its
// methods may be called from any goroutine; verbs that overlap fail the test.
type Dataplane struct {
	tb TB

	verb sync.Mutex // held during a verb, and only tried

	mu       sync.Mutex // guards what follows
	rng      *rand.Rand
	fault    func(verb string) error
	calls    []string
	writes   int
	reserved engine.Capacity
	reals    map[lb.RealID]lb.Real
	rings    map[lb.RingID]*place // where the next SetRing writes
	vips     map[lb.VIP]vip
	flows    map[uint64]flow // by tag
	targets  map[target]lb.RealID
	routes   map[netip.Prefix]netip.Addr
}

// place is a region of ring slots. A VIP keeps the place that its ring had when it was set.
type place struct{ slots []lb.Slot }

type vip struct {
	lb.VIPEntry
	place *place
}

// NewDataplane is an empty data plane. The seed decides how much of its set a failing verb writes.
func NewDataplane(tb TB, seed uint64) *Dataplane {
	return &Dataplane{
		tb:    tb,
		rng:   rand.New(rand.NewPCG(seed, 1)),
		reals: make(map[lb.RealID]lb.Real),
		rings: make(map[lb.RingID]*place),
		vips:  make(map[lb.VIP]vip),
		flows: make(map[uint64]flow),

		targets: make(map[target]lb.RealID),
		routes:  make(map[netip.Prefix]netip.Addr),
	}
}

// FailWith makes a verb fail, after having written a part of its set, when fault returns an error
// for its name. nil ends all failing. fault is called during the verb, before it writes.
func (d *Dataplane) FailWith(fault func(verb string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// OneIn is a fault for FailWith: one call in n fails, as the seed decides.
func OneIn(n int, seed uint64) func(string) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	return func(verb string) error {
		if rng.IntN(n) == 0 {
			return errors.New("injected failure of " + verb)
		}
		return nil
	}
}

// begin records a call and decides whether it is to fail. The caller holds mu until end.
func (d *Dataplane) begin(verb, args string) error {
	d.tb.Helper()
	if !d.verb.TryLock() {
		d.tb.Errorf("%s is called while another verb runs", verb)
		d.verb.Lock()
	}
	d.mu.Lock()
	fault := d.fault
	d.mu.Unlock() // so that fault may call other methods
	var err error
	if fault != nil {
		err = fault(verb)
	}
	if err != nil {
		args += " failed"
	}
	d.mu.Lock()
	d.calls = append(d.calls, verb+args)
	return err
}

func (d *Dataplane) end() {
	d.check()
	d.mu.Unlock()
	d.verb.Unlock()
}

// part is how many of n things a verb does: all, or fewer if it is to fail.
func (d *Dataplane) part(n int, fails error) int {
	if fails == nil {
		return n
	}
	return d.rng.IntN(n + 1)
}

// Reserve implements engine.Dataplane.
func (d *Dataplane) Reserve(c engine.Capacity) error {
	err := d.begin("Reserve", " "+c.String())
	defer d.end()
	if err != nil {
		return err
	}
	old := d.reserved
	d.reserved = engine.Capacity{
		VIPs4:     max(old.VIPs4, c.VIPs4),
		VIPs6:     max(old.VIPs6, c.VIPs6),
		Reals:     max(old.Reals, c.Reals),
		RingSlots: max(old.RingSlots, c.RingSlots),

		Prefixes:     max(old.Prefixes, c.Prefixes),
		Targets:      max(old.Targets, c.Targets),
		SourceRoutes: max(old.SourceRoutes, c.SourceRoutes),
		Options:      old.Options || c.Options,
	}
	if d.reserved != old {
		d.writes++
	}
	return nil
}

// SetReals implements engine.Dataplane.
func (d *Dataplane) SetReals(reals []lb.Real) error {
	args := ""
	for _, r := range reals {
		args += fmt.Sprintf(" %d", r.ID)
	}
	err := d.begin("SetReals", args)
	defer d.end()
	for _, r := range reals[:d.part(len(reals), err)] {
		old, ok := d.reals[r.ID]
		if ok && (old.VIP != r.VIP || old.Backend.Addr != r.Backend.Addr || old.Tunnel != r.Tunnel) {
			d.tb.Errorf("real %d becomes another: %+v, was %+v", r.ID, r, old)
		}
		if !ok || old != r {
			d.reals[r.ID] = r
			d.writes++
		}
	}
	return err
}

// DeleteReals implements engine.Dataplane.
func (d *Dataplane) DeleteReals(ids []lb.RealID) error {
	err := d.begin("DeleteReals", fmt.Sprintf(" %d", ids))
	defer d.end()
	for _, id := range ids[:d.part(len(ids), err)] {
		if _, ok := d.reals[id]; ok {
			delete(d.reals, id)
			d.writes++
		}
	}
	return err
}

// SetRing implements engine.Dataplane.
func (d *Dataplane) SetRing(id lb.RingID, slots []lb.Slot) (written int, err error) {
	err = d.begin("SetRing", fmt.Sprintf(" %d", id))
	defer d.end()
	p := d.rings[id]
	fresh := p == nil || len(p.slots) != len(slots)
	if fresh {
		p = &place{slots: make([]lb.Slot, len(slots))}
		d.rings[id] = p
	}
	for i, s := range slots[:d.part(len(slots), err)] {
		if fresh || p.slots[i] != s {
			p.slots[i] = s
			written++
		}
	}
	d.writes += written
	return written, err
}

// DeleteRing implements engine.Dataplane.
func (d *Dataplane) DeleteRing(id lb.RingID) error {
	err := d.begin("DeleteRing", fmt.Sprintf(" %d", id))
	defer d.end()
	if _, ok := d.rings[id]; ok && d.part(1, err) == 1 {
		delete(d.rings, id)
		d.writes++
	}
	return err
}

// SetVIPs implements engine.Dataplane. Failing, it writes some VIPs and not others.
func (d *Dataplane) SetVIPs(vips []lb.VIPEntry) error {
	err := d.begin("SetVIPs", fmt.Sprintf(" %d", len(vips)))
	defer d.end()
	wanted := make(map[lb.VIP]bool)
	for _, v := range vips {
		if wanted[v.VIP] {
			d.tb.Errorf("VIP %s is set twice in one call", v.VIP)
		}
		wanted[v.VIP] = true
	}
	var gone []lb.VIP
	for v := range d.vips {
		if !wanted[v] {
			gone = append(gone, v)
		}
	}
	slices.SortFunc(gone, lb.VIP.Compare)
	n := d.part(len(gone)+len(vips), err)
	for _, v := range gone[:min(n, len(gone))] {
		delete(d.vips, v)
		d.writes++
	}
	for _, v := range vips[:max(0, n-len(gone))] {
		d.setVIP(v)
	}
	return err
}

func (d *Dataplane) setVIP(v lb.VIPEntry) {
	p := d.rings[v.RingID]
	if p == nil {
		d.tb.Errorf("VIP %s is set, but its ring %d is not there", v.VIP, v.RingID)
		return
	}
	if len(p.slots) != int(v.Ring.Size) {
		d.tb.Errorf("VIP %s is set with a ring of %d slots, but ring %d has %d", v.VIP, v.Ring.Size, v.RingID, len(p.slots))
	}
	if now := (vip{v, p}); d.vips[v.VIP] != now {
		d.vips[v.VIP] = now
		d.writes++
	}
}

// Adopted ends one engine and is what the next one finds: rings that no VIP uses are gone.
func (d *Dataplane) Adopted() engine.Adopted {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := engine.Adopted{Slots: d.adoptedSlots}
	for _, id := range slices.Sorted(maps.Keys(d.reals)) {
		a.Reals = append(a.Reals, d.reals[id])
	}
	clear(d.rings)
	for _, v := range slices.SortedFunc(maps.Keys(d.vips), lb.VIP.Compare) {
		a.VIPs = append(a.VIPs, d.vips[v].VIPEntry)
		d.rings[d.vips[v].RingID] = d.vips[v].place
	}
	return a
}

// Corrupt writes one slot of the ring that a VIP uses, as nothing but a test would.
func (d *Dataplane) Corrupt(v lb.VIP, slot int, s lb.Slot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vips[v].place.slots[slot] = s
}

// Writes counts the records, slots and VIPs that verbs changed, and reservations that grew.
func (d *Dataplane) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// TakeCalls returns the calls since it was last called: verb, arguments, and whether it failed.
func (d *Dataplane) TakeCalls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	calls := d.calls
	d.calls = nil
	return calls
}

// adoptedSlots are those that packets of the ring's VIP meet.
func (d *Dataplane) adoptedSlots(id lb.RingID) []lb.Slot {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.vips {
		if v.RingID == id {
			return slices.Clone(v.place.slots)
		}
	}
	return nil
}
