// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package transition

import "github.com/remora-lb/remora/lb"

// entry is a remembered flow, by its id in a flowTable; free if its real is 0.
type entry struct {
	real lb.RealID
	slot uint32
	seen int
}

type flowTable []entry

type packetKind int

const (
	syn packetKind = iota
	rst
	other
)

// balancer does with a packet what the packet program does once it has the flow and its slot.
type balancer struct {
	world   *world
	history *History
	// past is what an export of the history would hold: the choices of the window.
	past  []Choice
	table flowTable
	// slots are as written; mark is of when they were derived.
	slots []lb.Slot
	mark  Mark
	look  look
	// Packets met by slots in each state.
	met [lb.SlotStateLen]int
}

// look is one over the whole flow table, done in parts, a step each.
type look struct {
	mark      Mark
	elsewhere map[uint32]bool
}

const lookParts = 8

func newBalancer(w *world, choice []lb.Slot, table flowTable) *balancer {
	return &balancer{
		world: w, history: New(choice), past: []Choice{{Slots: choice}},
		table: table, slots: choice, look: look{elsewhere: make(map[uint32]bool)},
	}
}

func (b *balancer) change(choice []lb.Slot) {
	b.history.Change(at(b.world.now), choice)
	b.past = append(b.past, Choice{Since: at(b.world.now), Slots: choice})
}

// step is what a balancer does beside its packets: it writes the slots anew, and looks over a part
// of the flows that it remembers.
func (b *balancer) step() {
	until := at(b.world.now - b.world.window)
	if b.world.grain > 0 {
		b.history.Coalesce(b.world.grain)
	}
	b.history.Forget(until)
	for len(b.past) > 1 && !b.past[1].Since.After(until) {
		b.past = b.past[1:]
	}
	b.slots, b.mark = b.history.Slots(b.world.receives), b.history.Mark()
	part := b.world.now % lookParts
	if part == 0 {
		b.look = look{mark: b.mark, elsewhere: make(map[uint32]bool)}
	}
	b.sweep(part)
	if part == lookParts-1 {
		b.history.Prove(b.look.mark, func(slot uint32) bool { return b.look.elsewhere[slot] })
	}
}

func (b *balancer) sweep(part int) {
	for i := part; i < len(b.table); i += lookParts {
		switch e := b.table[i]; {
		case e.real == 0:
		case b.world.now-e.seen > b.world.window:
			b.table[i] = entry{}
		case e.real != b.slots[e.slot].Cur():
			b.look.elsewhere[e.slot] = true
		}
	}
}

// crash leaves the balancer with what is in its maps.
func (b *balancer) crash() {
	b.history = FromSlots(at(b.world.now), b.slots)
	b.look = look{elsewhere: make(map[uint32]bool)}
}

// restart leaves it with its maps and the exported history.
func (b *balancer) restart() {
	history, err := Restore(b.past)
	if err != nil {
		b.world.t.Fatal(err)
	}
	history.Linger(func(slot uint32) bool { return !b.slots[slot].Stable() })
	b.history = history
	b.look = look{elsewhere: make(map[uint32]bool)}
}

// restartSetBack is a restart that finds the wall clock set back: all that happened is of this moment.
func (b *balancer) restartSetBack() {
	for i := range b.past {
		b.past[i].Since = at(b.world.now)
	}
	b.restart()
}

// packet returns the real that a packet is sent to, and remembers its flow if need be.
func (b *balancer) packet(f *flow, kind packetKind) lb.RealID {
	s := b.slots[f.slot]
	b.met[s.State()]++
	if s.Stable() {
		return s.Cur()
	}
	state, unknown := s.State(), s.Cur()
	if state == lb.SlotMoving {
		unknown = s.Prev()
		if !b.world.receives(unknown) {
			state, unknown = lb.SlotSettling, s.Cur()
		}
	}
	e := &b.table[f.id]
	if kind != syn && e.real != 0 && b.world.receives(e.real) {
		e.seen = b.world.now
		return e.real
	}
	return b.choose(f, kind, state, s.Cur(), unknown)
}

// choose is for a flow that is not known or begins anew; unknown is where the former go.
func (b *balancer) choose(f *flow, kind packetKind, state lb.SlotState, cur, unknown lb.RealID) lb.RealID {
	id, e := unknown, &b.table[f.id]
	if kind == syn {
		id = cur
	}
	switch {
	case kind == rst:
	case state == lb.SlotLingering:
		*e = entry{}
	case e.real != 0 || kind != syn || !b.world.refuses():
		*e = entry{real: id, slot: f.slot, seen: b.world.now}
	case b.world.takesNew(unknown) && !b.world.refusedGoOn:
		return unknown
	}
	return id
}
