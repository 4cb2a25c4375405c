// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/remora-lb/remora/lb"

// teachFlow is the end of section 3.2, server ids: the flow table follows a packet that names its
// server by a TCP id or connection id.
func (t *Tables) teachFlow(p *packet) {
	if p.led == byUDPID {
		return
	}
	s := &p.flowStep
	s.Flow, s.Slot = p.flow, p.slot
	entry, found := p.flows.Get(p.flow)
	right := Entry{Real: p.realID, Generation: t.Reals[p.realID].Generation, Slot: p.slotIndex, Seen: true}
	switch {
	case !found:
		t.rememberLed(p, right)
	case entry.Real != right.Real || entry.Generation != right.Generation:
		s.Events = append(s.Events, lb.FlowRepaired)
		s.Change, s.Entry = ChangeRemember, right
		t.note("flow", "remembered with real %d, now with real %d", entry.Real, right.Real)
	default:
		entry.Slot, entry.Seen, entry.Idle = p.slotIndex, true, 0
		s.Change, s.Entry = ChangeUse, entry
		t.note("flow", "known, real %d", entry.Real)
	}
}

// rememberLed remembers a flow that has no entry, if it is led by a TCP id and the table takes it.
func (t *Tables) rememberLed(p *packet, entry Entry) {
	s := &p.flowStep
	state, _ := t.state(p.slot)
	if p.led != byTCPID || state == lb.SlotLingering || p.silent() {
		t.note("flow", "not known")
		return
	}
	if why, refused := p.flows.refuses(p.flow); refused {
		s.Events = append(s.Events, why)
		t.note("flow", "not known, nor can be remembered (%s)", why)
		return
	}
	entry.Seen = false
	s.Events = append(s.Events, rememberedAs(p, state))
	s.Change, s.Entry = ChangeRemember, entry
	t.note("flow", "not known, remembered with real %d", entry.Real)
}
