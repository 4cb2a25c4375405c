// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"time"

	"github.com/remora-lb/remora/lb"
)

// defaultUDPIdle is that of Tables.UDPIdle.
const defaultUDPIdle = 30 * time.Second

// Bits that tell what a packet does to its flow.
const (
	tcpFlagsAt = 13
	tcpSYN     = 0x02
	tcpRST     = 0x04

	quicLongHeader = 0x80 // RFC 9000, section 17.2
	quicNotFirst   = 0x20 // in a long header, of the types behind Initial and 0-RTT
)

// Change is what a packet does to its flow's entry.
type Change uint8

// What a packet does to its flow's entry.
const (
	ChangeNone Change = iota
	// ChangeUse marks the entry as used now and, as the entry says, as seen.
	ChangeUse
	// ChangeRemember makes an entry, in place of the flow's own if there is one.
	ChangeRemember
	// ChangeForget removes the entry.
	ChangeForget
)

func (c Change) String() string {
	switch c {
	case ChangeUse:
		return "use"
	case ChangeRemember:
		return "remember"
	case ChangeForget:
		return "forget"
	}
	return "none"
}

// FlowStep is what section 5 did with a packet, or section 3.2 with one that is led. Its zero value means
// that the packet did not get there.
type FlowStep struct {
	Flow Flow
	// Slot is the flow's slot, as the ring has it.
	Slot lb.Slot
	// Change is for Flows.Apply to make. Entry is the entry afterwards, with ChangeUse and
	// ChangeRemember.
	Change Change
	Entry  Entry
	// Events are what is counted for the packet, in the order of their constants. An eviction is
	// none of them: this table has room for all flows.
	Events []lb.FlowEvent
}

// followFlow is section 5: the real that the packet's flow has, or gets.
func (t *Tables) followFlow(p *packet) lb.RealID {
	s := &p.flowStep
	s.Flow, s.Slot = p.flow, p.slot
	entry, found := p.flows.Get(p.flow)
	if found && !(p.begins() && p.flow.Protocol == lb.TCP) {
		if t.knows(p, entry) {
			t.useEntry(p, entry)
			return entry.Real
		}
		if !t.holds(entry) {
			s.Events = append(s.Events, lb.FlowHitStale)
		}
	}
	state, prev := t.state(p.slot)
	choice := prev
	if p.begins() {
		choice = p.slot.Cur()
	}
	switch {
	case p.silent():
		t.note("flow", "not known, real %d", choice)
	case state == lb.SlotLingering:
		t.note("flow", "not known, nor to be remembered, real %d", choice)
		if !p.begins() {
			s.Events = append(s.Events, lb.FlowTakenNew)
		}
		if found {
			s.Change = ChangeForget
		}
	default:
		return t.remember(p, choice, prev, state)
	}
	return choice
}

// useEntry lets the packet use the entry of its flow, which is known. The slot may be another than before
// if the VIP's options changed.
func (t *Tables) useEntry(p *packet, entry Entry) {
	s := &p.flowStep
	s.Events = append(s.Events, lb.FlowHit)
	t.note("flow", "known, real %d", entry.Real)
	if p.isICMP() {
		return
	}
	entry.Idle, entry.Slot = 0, p.slotIndex
	entry.Seen = entry.Seen || !p.begins()
	s.Change, s.Entry = ChangeUse, entry
}

// remember remembers the choice if it can, and returns where the packet goes: a flow that begins and
// cannot be remembered goes where its next packets will go, too.
func (t *Tables) remember(p *packet, choice, prev lb.RealID, state lb.SlotState) lb.RealID {
	s := &p.flowStep
	if _, ok := t.Reals[choice]; !ok {
		return choice
	}
	if why, refused := p.flows.refuses(p.flow); refused {
		s.Events = append(s.Events, why)
		if r, ok := t.Reals[prev]; ok && r.Use == lb.RealActive && p.begins() {
			choice = prev
		}
		t.note("flow", "not known, nor can be remembered (%s), real %d", why, choice)
		return choice
	}
	s.Change = ChangeRemember
	s.Entry = Entry{Real: choice, Generation: t.Reals[choice].Generation, Slot: p.slotIndex}
	s.Events = append(s.Events, rememberedAs(p, state))
	t.note("flow", "not known, remembered with real %d", choice)
	return choice
}

// rememberedAs is the event for a packet whose flow is remembered.
func rememberedAs(p *packet, state lb.SlotState) lb.FlowEvent {
	switch {
	case p.begins(), p.slot.State() == lb.SlotStable:
		return lb.FlowBegan
	case state == lb.SlotMoving:
		return lb.FlowTakenOld
	}
	return lb.FlowTakenNew
}

// state is what the slot's state counts as, and the real of flows that are not known and do not
// begin.
func (t *Tables) state(slot lb.Slot) (state lb.SlotState, prev lb.RealID) {
	state, prev = slot.State(), slot.Prev()
	if state == lb.SlotStable || state == lb.SlotMoving && !t.receives(prev) {
		state = lb.SlotSettling
	}
	if state != lb.SlotMoving {
		prev = slot.Cur()
	}
	return state, prev
}

// knows tells whether the flow of the entry is known.
func (t *Tables) knows(p *packet, entry Entry) bool {
	idle := p.vip.Flows == lb.FlowAlways && p.flow.Protocol == lb.UDP &&
		entry.Idle >= cmp.Or(t.UDPIdle, defaultUDPIdle)
	return t.holds(entry) && !idle
}

// holds tells whether the entry's real still has flows, and is the one that was remembered.
func (t *Tables) holds(entry Entry) bool {
	return t.receives(entry.Real) && t.Reals[entry.Real].Generation == entry.Generation
}

// receives tells whether the real has a record, and packets of known flows may go to it.
func (t *Tables) receives(id lb.RealID) bool {
	r, ok := t.Reals[id]
	return ok && r.Use.Receives()
}

// begins tells whether the packet begins a flow.
func (p *packet) begins() bool {
	switch {
	case p.isICMP(), p.byClient():
		return false
	case p.protocol == protocolTCP:
		return p.tcpFlags()&tcpSYN != 0
	}
	data := p.payload[udpLen:]
	return p.vip.Flows == lb.FlowQUIC && len(data) > 0 && data[0]&quicLongHeader != 0 && data[0]&quicNotFirst == 0
}

// silent tells whether nothing is remembered of the packet's flow.
func (p *packet) silent() bool {
	return p.isICMP() || p.protocol == protocolTCP && p.tcpFlags()&(tcpSYN|tcpRST) == tcpRST
}

// tcpFlags are the flags as they count: none for packets of VIPs whose fragments go by client.
func (p *packet) tcpFlags() byte {
	if p.byClient() {
		return 0
	}
	return p.payload[tcpFlagsAt]
}
