// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// manyFlows are frames of flows that differ in address or port.
func manyFlows(n int, flags uint8) (clients []netip.AddrPort, all [][]byte) {
	for i := range n {
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), uint16(1000+i/3))
		p := frames.IPv4{TTL: 64, Src: client.Addr(), Dst: vipOf(false), Payload: frames.TCP{SrcPort: client.Port(), DstPort: bedPort, Flags: flags}}
		clients, all = append(clients, client), append(all, frameOf(p))
	}
	return clients, all
}

// What packets wrote is what a sweep sees, and what is added is what packets find.
func TestSweepAndAdd(t *testing.T) {
	const n = 500
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	clients, syns := manyFlows(n, frames.SYN)
	_, data := manyFlows(n, frames.ACK)
	for i := range n {
		b.wantSent("SYN", syns[i], cur)
		if i%2 == 0 {
			b.wantSent("data", data[i], cur)
		}
		flows := b.sweep(false)
		if len(flows) != 1 {
			t.Fatalf("flow %d: %d flows, want 1", i, len(flows))
		}
		f := flows[0]
		f.Tag = 0
		if f.Idle > 5*time.Second {
			t.Errorf("flow %d is idle for %v", i, f.Idle)
		}
		f.Idle = 0
		wantEqual(t, "flow", f, lb.Flow{Real: cur, Slot: slotOf(clients[i], bedPort, bedRing), Seen: i%2 == 0})
	}
	wantEqual(t, "flows after all were forgotten", b.flows(), nil)

	for i := range n {
		b.wantSent("SYN", syns[i], cur)
	}
	flows := b.sweep(false)
	if tags := tagsOf(flows); len(tags) != n {
		t.Fatalf("%d tags of %d flows", len(tags), n)
	}
	for i := range flows {
		flows[i].Real, flows[i].Generation = elsewhere, otherGeneration
		flows[i].Idle = time.Duration(i) * time.Minute
	}
	b.add(flows...)
	for i := range n {
		b.wantSent("data of an added flow", data[i], elsewhere)
	}
	if added, err := b.d.AddFlows(flows); added != 0 || err != nil {
		t.Errorf("%d added twice, %v", added, err)
	}
}

func tagsOf(flows []lb.Flow) map[uint64]bool {
	tags := make(map[uint64]bool)
	for _, f := range flows {
		tags[f.Tag] = true
	}
	return tags
}

func TestAddedFlowsComeBack(t *testing.T) {
	b := &flowBed{t, testOpen(t)}
	tick := flowClockOf(t, b.d).tick
	want := []lb.Flow{
		{Tag: 1, Real: 1},
		{Tag: 2, Real: lb.MaxRealID, Generation: 255, Slot: lb.MaxRingSize - 1, Seen: true, Idle: 1000 * tick},
		{Tag: 1<<55 - 1, Real: 7, Generation: 1, Slot: 3, Idle: 24 * time.Hour / tick * tick},
	}
	b.add(want...)
	got := b.flows()
	slices.SortFunc(got, func(f, g lb.Flow) int { return int(int64(f.Tag) - int64(g.Tag)) })
	for i := range got {
		// The next tick may have begun in between.
		if got[i].Idle == want[i].Idle+tick {
			got[i].Idle -= tick
		}
	}
	wantEqual(t, "flows", got, want)
}

func TestAddFlowsRefuses(t *testing.T) {
	b := &flowBed{t, testOpen(t)}
	good := lb.Flow{Tag: 1, Real: 1}
	for says, bad := range map[string]lb.Flow{
		"tags go from 1":   {Real: 1},
		"7fffffffffffff":   {Tag: 1 << 55, Real: 1},
		"real 0":           {Tag: 2},
		"real 16777216":    {Tag: 2, Real: lb.MaxRealID + 1},
		"slot 1048576":     {Tag: 2, Real: 1, Slot: 1 << 20},
		"add flow 3: real": {Tag: 3},
	} {
		added, err := b.d.AddFlows([]lb.Flow{good, bad})
		require.ErrorSays(t, err, says)
		if added != 0 {
			t.Errorf("%s: %d added", says, added)
		}
	}
	wantEqual(t, "flows", b.flows(), nil)
}

func TestAddFlowsNeverEvicts(t *testing.T) {
	b := &flowBed{t, testOpen(t)}
	const tag = 0x12_3456_789a_bcde
	b.fillPlaces(tag, func(int) lb.Flow { return lb.Flow{Real: 1, Idle: time.Hour} })
	before := b.flows()
	added, err := b.d.AddFlows([]lb.Flow{{Tag: tag, Real: 2}, {Tag: 1, Real: 3}})
	require.NoError(t, err)
	if added != 1 {
		t.Errorf("%d added, want the one that has a place", added)
	}
	if after := b.flows(); len(after) != len(before)+1 {
		t.Errorf("%d flows after %d", len(after), len(before))
	}
}

// A sweep forgets what it is told to, and nothing that a packet meets meanwhile.
func TestSweepForgets(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	_, syns := manyFlows(3, frames.SYN)
	_, data := manyFlows(3, frames.ACK)
	for _, syn := range syns {
		b.wantSent("SYN", syn, cur)
	}
	b.age(time.Hour)
	tag := b.flows()[1].Tag
	met := false
	require.NoError(t, b.d.SweepFlows(func(f lb.Flow) bool {
		if f.Tag == tag {
			for _, frame := range data {
				b.send(frame)
			}
			met = true
		}
		return met && f.Tag != tag
	}))
	// The first was forgotten, and came back as an unknown one of the previous real.
	if flows := b.flows(); len(flows) != 3 || !tagsOf(flows)[tag] {
		t.Errorf("flows %+v, want three, %x among them", flows, tag)
	}
}

// While nothing is done to it, a flow table stays as it is, whatever becomes of the other maps.
func TestFlowsSurvive(t *testing.T) {
	const n = 300
	_, syns := manyFlows(n, frames.SYN)
	_, data := manyFlows(n, frames.ACK)
	for _, tt := range []struct {
		name   string
		change func(d *Dataplane) error
		shared bool
	}{
		{"growth", func(d *Dataplane) error { return d.Reserve(capacityOf(0, 0, 1000, 0)) }, true},
		{"more flows", func(d *Dataplane) error { s := d.gen.sizes(); s.flowBits++; return d.replace(s) }, false},
		{"fewer flows", func(d *Dataplane) error { s := d.gen.sizes(); s.flowBits--; return d.replace(s) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
			for _, syn := range syns {
				b.wantSent("SYN", syn, cur)
			}
			old := b.d.Program()
			events := b.events()
			if tt.shared {
				clone, err := old.Clone()
				require.NoError(t, err)
				t.Cleanup(func() { clone.Close() })
				old = clone
			}
			require.NoError(t, tt.change(b.d))
			wantEqual(t, "events", b.events(), events)
			for _, frame := range data {
				b.wantSent("data", frame, cur)
			}
			if !tt.shared {
				return
			}
			// What a run of the old program remembers late is known to the new one.
			b.sweep(false)
			if _, out := send(t, old, syns[0]); sentTo(out) != cur {
				t.Errorf("SYN by the old program: sent to real %d", sentTo(out))
			}
			b.wantSent("data", data[0], cur)
		})
	}
}

// What is remembered while a table of another size takes its place is carried over.
func TestLateFlowsAreCopied(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	s := b.d.gen.sizes()
	s.flowBits++
	next, _, err := b.d.copyTo(s)
	require.NoError(t, err)
	t.Cleanup(next.close)
	b.wantSent("SYN", tcp4(frames.SYN), cur)
	b.d.copyLateFlows(next)
	if _, out := send(t, next.prog, tcp4(frames.ACK)); sentTo(out) != cur {
		t.Errorf("data by the new program: sent to real %d, want %d", sentTo(out), cur)
	}
}

func TestFlowsSurviveRestart(t *testing.T) {
	for name, flows := range map[string]int{"same size": testFlows, "more": 4 * testFlows, "fewer": testFlows / 4} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			b := &flowBed{t, l.open("lb0", attach.Auto)}
			b.fill(lb.FlowTransitions, lb.MovingSlot(cur, prev))
			require.NoError(t, b.d.Attach())
			_, syns := manyFlows(100, frames.SYN)
			_, data := manyFlows(100, frames.ACK)
			for _, syn := range syns {
				b.wantSent("SYN", syn, cur)
			}
			old, err := b.d.Program().Clone()
			require.NoError(t, err)
			defer old.Close()
			require.NoError(t, b.d.Close())
			// The interface goes on without a daemon.
			if _, out := send(t, old, tcp4(frames.SYN)); sentTo(out) != cur {
				t.Errorf("without a daemon: sent to real %d", sentTo(out))
			}
			config := l.config("lb0", attach.Auto)
			config.Flows = flows
			d, err := Open(config)
			require.NoError(t, err)
			defer d.Close()
			b = &flowBed{t, d}
			for _, frame := range append(data, tcp4(frames.ACK)) {
				b.wantSent("data after the restart", frame, cur)
			}
			if got := l.snapshot(); got.Flows != 101 || got.FlowCapacity != flows {
				t.Errorf("%d flows of %d, want 101 of %d", got.Flows, got.FlowCapacity, flows)
			}
		})
	}
}

// Slots, uses and generations are adopted as they are.
func TestAdoptedRing(t *testing.T) {
	l := newLab(t)
	b := &flowBed{t, l.open("lb0", attach.Auto)}
	b.fill(lb.FlowQUIC, lb.StableSlot(cur))
	slots := make([]lb.Slot, bedRing)
	for i := range slots {
		slots[i] = []lb.Slot{
			lb.StableSlot(cur), lb.MovingSlot(cur, draining), lb.SettlingSlot(elsewhere), lb.LingeringSlot(cur), 0,
		}[i%5]
	}
	_, err := b.d.SetRing(2, slots)
	require.NoError(t, err)
	require.NoError(t, b.d.Attach())
	reals, vips := b.d.Adopted()
	require.NoError(t, b.d.Close())

	d := l.open("lb0", attach.Auto)
	gotReals, gotVIPs := d.Adopted()
	wantEqual(t, "reals", gotReals, reals)
	wantEqual(t, "VIPs", gotVIPs, vips)
	if r := gotReals[elsewhere-1]; r.Generation != otherGeneration || gotReals[draining-1].Use != lb.RealDraining || gotReals[retired-1].Use != lb.RealRetired {
		t.Errorf("reals %+v", gotReals)
	}
	wantEqual(t, "ring", d.AdoptedRing(2), slots)
	wantEqual(t, "no ring", d.AdoptedRing(77), nil)
	d.AdoptedRing(2)[0] = 0
	wantEqual(t, "ring after its copy changed", d.AdoptedRing(2), slots)
}

func TestSnapshotOfFlows(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.StableSlot(cur))
	slots := make([]lb.Slot, bedRing)
	for i := range slots {
		slots[i] = []lb.Slot{lb.StableSlot(cur), lb.MovingSlot(cur, prev), lb.MovingSlot(cur, draining), lb.LingeringSlot(cur)}[i%4]
	}
	slots[0] = lb.SettlingSlot(cur)
	slots[1] = lb.MovingSlot(cur, lb.MaxRealID) // no such real
	_, err := b.d.SetRing(0, slots)
	require.NoError(t, err)
	b.add(
		lb.Flow{Tag: 1, Real: cur}, lb.Flow{Tag: 2, Real: cur, Idle: 30 * time.Second}, lb.Flow{Tag: 3, Real: cur, Idle: 2 * time.Minute},
		lb.Flow{Tag: 4, Real: elsewhere, Generation: otherGeneration}, lb.Flow{Tag: 5, Real: elsewhere}, lb.Flow{Tag: 6, Real: 999},
	)
	s, err := b.d.Snapshot()
	require.NoError(t, err)
	if s.Flows != 6 || s.FlowCapacity != testFlows {
		t.Errorf("%d flows of %d, want 6 of %d", s.Flows, s.FlowCapacity, testFlows)
	}
	states := make(map[lb.RingID][lb.SlotStateLen]int)
	for _, v := range s.VIPs {
		states[v.RingID] = v.SlotStates
	}
	stable := [lb.SlotStateLen]int{lb.SlotStable: bedRing}
	mixed := [lb.SlotStateLen]int{lb.SlotStable: 25, lb.SlotMoving: 50, lb.SlotSettling: 1, lb.SlotLingering: 25}
	wantEqual(t, "states", states, map[lb.RingID][lb.SlotStateLen]int{0: mixed, 1: stable, 2: stable, 3: stable})
	type row struct{ Flows, Active, Prev int }
	got := make(map[lb.RealID]row)
	for _, r := range s.Reals {
		got[r.ID] = row{r.Flows, r.ActiveFlows, r.PrevSlots}
	}
	wantEqual(t, "reals", got, map[lb.RealID]row{cur: {3, 2, 0}, prev: {0, 0, 24}, elsewhere: {1, 1, 0}, draining: {0, 0, 25}, retired: {}})
}

func BenchmarkCountSlots(b *testing.B) {
	ring, prev := make([]uint64, 1000*lb.DefaultRingSize), make([]int, 100)
	for i := range ring {
		ring[i] = uint64(lb.StableSlot(lb.RealID(i % 100)))
	}
	for b.Loop() {
		countSlots(ring, prev)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1000, "µs/ring")
}
