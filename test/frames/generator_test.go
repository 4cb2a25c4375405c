// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

func generator(tb testing.TB, tables *model.Tables, seed uint64) *Generator {
	tb.Helper()
	tb.Logf("frames of seed %d", seed)
	return NewGenerator(rand.New(rand.NewPCG(seed, 0)), Targets(tables)...)
}

func TestGeneratorRepeats(t *testing.T) {
	tables := Tables(1)
	a, b, other := generator(t, tables, 7), generator(t, tables, 7), generator(t, tables, 8)
	differ := 0
	for n := range 2000 {
		x, y := a.Next(), b.Next()
		if x.Kind != y.Kind || !bytes.Equal(x.Bytes, y.Bytes) {
			t.Fatalf("frame %d: %s and %s differ for the same seed", n, x.Kind, y.Kind)
		}
		if !bytes.Equal(x.Bytes, other.Next().Bytes) {
			differ++
		}
	}
	if differ < 1900 {
		t.Errorf("only %d of 2000 frames differ for another seed", differ)
	}
}

func TestTablesRepeat(t *testing.T) {
	a, b := Tables(3), Tables(3)
	if !sameTables(a, b) {
		t.Error("two table sets of one seed differ")
	}
}

func TestEveryKindWithinLengths(t *testing.T) {
	g := generator(t, Tables(1), 2)
	seen := map[string]int{}
	shortest, longest := MaxLen, 0
	for range 20000 {
		f := g.Next()
		seen[f.Kind]++
		shortest, longest = min(shortest, len(f.Bytes)), max(longest, len(f.Bytes))
	}
	for _, k := range kinds() {
		if seen[k.name] < 100 {
			t.Errorf("%d frames of kind %q", seen[k.name], k.name)
		}
	}
	if shortest != HeaderLen || longest > MaxLen || longest < 3000 {
		t.Errorf("frames from %d to %d bytes", shortest, longest)
	}
}

func TestEveryReasonOccurs(t *testing.T) {
	const frames, least = 50_000, 100
	for _, seed := range []uint64{1, 2} {
		tables := Tables(seed)
		t.Logf("tables of seed %d", seed)
		g := generator(t, tables, seed)
		var reasons [lb.ReasonLen]int
		forwarded := map[lb.VIP]int{}
		for range frames {
			res := tables.Process(g.Next().Bytes, nil)
			reasons[res.Reason]++
			if res.Reason == lb.ReasonForwarded {
				forwarded[tables.Reals[res.Real].VIP]++
			}
		}
		for reason, n := range reasons {
			r := lb.Reason(reason)
			t.Logf("seed %d: %6d %s", seed, n, r)
			if rare := slices.Contains(onlyInWorlds, r) || r == lb.ReasonNoRoom; rare != (n < least) || rare && n != 0 {
				t.Errorf("seed %d: %d of %d frames end as %s", seed, n, frames, r)
			}
		}
		// All VIPs forward but those that never can: per family an empty ring, unknown reals twice and an MTU of 0.
		if want := len(tables.VIPs) - 8; len(forwarded) < want {
			t.Errorf("seed %d: only %d VIPs forward, want %d", seed, len(forwarded), want)
		}
	}
}

// onlyInWorlds are the reasons that only frames of a World meet; echo_limited only where answers are
// limited.
var onlyInWorlds = []lb.Reason{
	lb.ReasonLocal, lb.ReasonDecapsulated, lb.ReasonDecapSent, lb.ReasonTTLExpired, lb.ReasonFragmentPassed, lb.ReasonEchoLimited,
}

func worldGenerator(tb testing.TB, world *model.Tables, seed uint64) *Generator {
	tb.Helper()
	tb.Logf("frames of seed %d", seed)
	return NewWorldGenerator(rand.New(rand.NewPCG(seed, 0)), world)
}

// TestEveryReasonOccursInWorlds is about one world in four, since that is how many actions others have.
func TestEveryReasonOccursInWorlds(t *testing.T) {
	const frames, least = 20_000, 20
	for seed := range uint64(4) {
		world := World(seed)
		g := worldGenerator(t, world, seed)
		var reasons [lb.ReasonLen]int
		for range frames {
			reasons[world.Process(g.Next().Bytes, nil).Reason]++
		}
		for reason, n := range reasons {
			r := lb.Reason(reason)
			if never := r == lb.ReasonNoRoom || r == lb.ReasonEchoLimited; !never && n < least {
				t.Errorf("world %d: %d of %d frames end as %s", seed, n, frames, r)
			}
		}
	}
}

// TestWorldsRepeat makes equal worlds, frames and changes for one seed, within the lengths.
func TestWorldsRepeat(t *testing.T) {
	a, b := World(5), World(5)
	if !sameTables(a, b) {
		t.Fatal("two worlds of one seed differ")
	}
	x, y := worldGenerator(t, a, 7), worldGenerator(t, b, 7)
	// A generator keeps the world as it was, so what changes is a copy.
	after, same := *a, *b
	after.VIPs, after.Reals = maps.Clone(a.VIPs), maps.Clone(a.Reals)
	same.VIPs, same.Reals = maps.Clone(b.VIPs), maps.Clone(b.Reals)
	gone := false
	for n := range 3000 {
		if f, g := x.Next(), y.Next(); !bytes.Equal(f.Bytes, g.Bytes) || len(f.Bytes) < HeaderLen || len(f.Bytes) > MaxLen {
			t.Fatalf("frame %d: %s and %s differ for the same seed, or are too short or long", n, f.Kind, g.Kind)
		}
		if n%10 == 0 {
			change := x.Change(&after)
			gone = gone || len(change.Gone) > 0
			change.Apply(&after, nil)
			y.Change(&same).Apply(&same, nil)
		}
	}
	if !sameTables(&after, &same) || sameTables(&after, a) || !gone {
		t.Error("changes of one seed differ, change nothing, or take no VIP away")
	}
}

// TestWorldsAreSound holds what a configuration promises, also after changes.
func TestWorldsAreSound(t *testing.T) {
	for seed := range uint64(4) {
		world := World(seed)
		g := worldGenerator(t, world, seed)
		after := *world
		after.VIPs, after.Reals = maps.Clone(world.VIPs), maps.Clone(world.Reals)
		for range 300 {
			g.Change(&after).Apply(&after, nil)
			for a, of := range after.VIPs {
				for b, with := range after.VIPs {
					byClient := of.Options.Fragments == lb.FragmentsByClient || with.Options.Fragments == lb.FragmentsByClient
					if a != b && sameFragments(a, b) && (byClient || of.Options.Fragments != with.Options.Fragments) {
						t.Fatalf("world %d: %s has %s, %s has %s", seed, a, of.Options.Fragments, b, with.Options.Fragments)
					}
				}
			}
		}
	}
}

// TestWithin is of both families, with and without bits that are free.
func TestWithin(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 16)
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.255", "192.0.2.8/29": "192.0.2.15", "192.0.2.8/32": "192.0.2.8", "0.0.0.0/0": "255.255.255.255",
		"10.0.0.0/9": "10.127.255.255", "2001:db8::/64": "2001:db8::ffff:ffff:ffff:ffff", "2001:db8::8/125": "2001:db8::f",
	} {
		if got := within(netip.MustParsePrefix(prefix), ones); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

// TestTablesAreVaried counts what the tables promise, among the reals that records exist of.
func TestTablesAreVaried(t *testing.T) {
	type variety struct {
		v6, realV6 bool
		encap      lb.Encap
		checksum   bool
		size       int
		anyPort    bool
	}
	tables := Tables(1)
	seen := map[variety]bool{}
	for id, real := range tables.Reals {
		if real.ID != id || real.Backend.Addr != real.Tunnel.Destination {
			t.Errorf("real %d contradicts itself: %+v", id, real)
		}
		vip, ok := tables.VIPs[real.VIP]
		if !ok {
			t.Errorf("real %d belongs to %s, which is not there", id, real.VIP)
		}
		seen[variety{
			real.VIP.Addr.Is6(), real.Tunnel.Destination.Is6(), real.Tunnel.Encap, real.Tunnel.Checksum,
			len(vip.Ring), real.VIP.Port == 0,
		}] = true
	}
	if want := 2 * 2 * 3 * 2 * 2; len(seen) < want {
		t.Errorf("%d combinations, want %d", len(seen), want)
	}
}

// TestTablesHaveAllStates counts by flow mode and state of the slot, and reals by use.
func TestTablesHaveAllStates(t *testing.T) {
	tables := Tables(1)
	var slots [4][lb.SlotStateLen]int
	for _, vip := range tables.VIPs {
		for _, slot := range vip.Ring {
			slots[vip.Flows][slot.State()]++
		}
	}
	var uses [3]int
	for _, r := range tables.Reals {
		uses[r.Use]++
	}
	t.Logf("slots %v, reals %v", slots, uses)
	for mode, states := range slots {
		if n := slices.Min(states[:]); n < 1000 {
			t.Errorf("%d slots of a state in VIPs with flow mode %s: %v", n, lb.FlowMode(mode), states)
		}
	}
	if n := slices.Min(uses[:]); n < 10 {
		t.Errorf("%d reals of a use: %v", n, uses)
	}
}

// TestChangesRepeat makes the same changes of equal tables, and sees that they reach no ring and no
// map that was there before.
func TestChangesRepeat(t *testing.T) {
	const changes = 300
	untouched, a, b := Tables(3), Tables(3), Tables(3)
	earlier := *a
	a.VIPs, a.Reals = maps.Clone(a.VIPs), maps.Clone(a.Reals)
	x, y := generator(t, a, 7), generator(t, b, 7)
	for range changes {
		x.Change(a).Apply(a, nil)
		y.Change(b).Apply(b, nil)
	}
	if !sameTables(a, b) {
		t.Error("changes of one seed differ")
	}
	if sameTables(a, untouched) || !sameTables(&earlier, untouched) {
		t.Error("changes change nothing, or too much")
	}
	for vip, entry := range a.VIPs {
		if len(entry.Ring) != len(earlier.VIPs[vip].Ring) {
			t.Errorf("the ring of %s has another length", vip)
		}
	}
}

func sameTables(a, b *model.Tables) bool {
	return maps.EqualFunc(a.VIPs, b.VIPs, sameVIP) && maps.Equal(a.Reals, b.Reals) && maps.Equal(a.SourceRoutes, b.SourceRoutes)
}

func sameVIP(a, b model.VIP) bool {
	return a.Flows == b.Flows && a.Options == b.Options && slices.Equal(a.Ring, b.Ring) &&
		maps.Equal(a.Servers, b.Servers) && maps.Equal(a.Routes, b.Routes)
}

// TestFlowsAreMetAgain counts the flows that are met, and how often, in a row of frames that a test
// may run with one flow table.
func TestFlowsAreMetAgain(t *testing.T) {
	tables := Tables(1)
	g := generator(t, tables, 5)
	const frames, rows = 1000, 50
	flows, packets := 0, 0
	for range rows {
		met := map[model.Flow]bool{}
		for range frames {
			if res := tables.Process(g.Next().Bytes, nil); res.Flow.Flow != (model.Flow{}) {
				met[res.Flow.Flow] = true
				packets++
			}
		}
		flows += len(met)
	}
	t.Logf("of %d frames, %.0f need the flow table; they are of %.0f flows", frames, float64(packets)/rows, float64(flows)/rows)
	if packets < 2*flows || flows < 20*rows {
		t.Errorf("%d packets of %d flows", packets, flows)
	}
}
