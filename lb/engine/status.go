// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Status is what the data plane has, as of the end of the last pass. It is shared by all who asked
// for it: read it only.
type Status struct {
	// Passes counts the passes, Failures those that failed; Changes, those that changed something and
	// succeeded.
	Passes, Failures, Changes uint64
	// LastPass is when the last pass ended, whatever came of it; zero if there was none.
	LastPass time.Time
	// LastApply is when the data plane was last found or made equal to what is wanted; zero if never.
	LastApply time.Time
	// LastError is why the last pass failed; empty if it did not.
	LastError string
	// Settled is false while adopted state is held because a source has not reported.
	Settled bool
	// Problems are contradictions in the inputs.
	Problems []Problem
	// Services are by name, those with a VIP in the data plane.
	Services []ServiceStatus
	// Swept is when the last look over the flow table began, of those at a time when all was as it
	// was to be written; zero if there was none.
	Swept time.Time
}

// ServiceStatus is a service with its VIPs, by address.
type ServiceStatus struct {
	Name string
	VIPs []VIPStatus
}

// VIPStatus is a VIP with its ring and its reals, by address.
type VIPStatus struct {
	lb.VIPEntry
	// Members counts the backends that have slots.
	Members int
	// Held tells that the ring is still the one of a previous run, whose slots are not known.
	Held bool
	// States counts the ring's slots by state.
	States [lb.SlotStateLen]int
	Reals  []RealStatus
}

// RealStatus is a real, with its next hop's problem if it has one, and its part of the ring.
type RealStatus struct {
	lb.Real
	// Absence says why and for how long it gets no new flows; the zero value if it does.
	Absence Absence
	// Unnamed is since when no slot names the real, if it is absent; zero if one does.
	Unnamed time.Time
	// Led tells that packets may find the real by its server id. The flow table does not have them all.
	Led bool
	// Slots counts those that send it new flows, PrevSlots those that send it unknown older ones.
	Slots, PrevSlots int
	// Flows counts its remembered flows, as of the last look over the flow table; Active, those of
	// them that had a packet in the minute before.
	Flows, Active int
}

// Drained tells whether no packet of any flow goes to the real any more, as far as can be told: not
// before the flow table was looked over since no slot names the real, and if server ids lead to it, not
// before its deadline. Swept is that of the Status.
func (r RealStatus) Drained(swept time.Time) bool {
	if r.Absence.Cause == CauseNone {
		return false
	}
	return r.Use == lb.RealRetired || !r.Led && !r.Unnamed.IsZero() && swept.After(r.Unnamed) && r.Flows == 0
}

// Status is the status after the last pass. It does not block.
func (e *Engine) Status() Status { return *e.status.Load() }

// publish makes the realised state the status.
func (e *Engine) publish() {
	s := Status{
		Passes:    e.passes,
		Failures:  e.failures,
		Changes:   e.changes,
		LastPass:  e.lastPass,
		LastApply: e.lastApply,
		LastError: e.lastError,
		Settled:   e.adopted == nil,
		Problems:  slices.Clone(e.problems),
		Swept:     e.flows.began,
	}
	reals := e.have.realsByVIP()
	services := make(map[string][]VIPStatus)
	for _, v := range sortedVIPs(e.have.vips) {
		services[v.Service] = append(services[v.Service], e.vipStatus(v, reals[v.VIP]))
	}
	for name, vips := range services {
		s.Services = append(s.Services, ServiceStatus{Name: name, VIPs: vips})
	}
	slices.SortFunc(s.Services, func(a, b ServiceStatus) int { return cmp.Compare(a.Name, b.Name) })
	e.status.Store(&s)
}

func (e *Engine) vipStatus(v lb.VIPEntry, reals []lb.Real) VIPStatus {
	s := VIPStatus{VIPEntry: v}
	r := e.have.rings[v.RingID]
	if r != nil {
		s.Members, s.Held, s.States = len(r.members), r.slots == nil, r.states
	}
	slices.SortFunc(reals, func(a, b lb.Real) int {
		return cmp.Or(a.Backend.Addr.Compare(b.Backend.Addr), cmp.Compare(a.ID, b.ID))
	})
	for _, real := range reals {
		rs := RealStatus{Real: real, Absence: e.absences.of[keyOf(real)], Unnamed: e.unnamed[real.ID],
			Led: isLedTo(v.Options, real), Flows: e.flows.of[real.ID], Active: e.flows.active[real.ID]}
		if r != nil {
			rs.Slots, rs.PrevSlots = r.shares[real.ID], r.prevs[real.ID]
		}
		s.Reals = append(s.Reals, rs)
	}
	return s
}

// publishCounts makes what the last look over the flow table found part of the status, which is right
// for the rest. Of thousands of VIPs only those are copied whose counts changed.
func (e *Engine) publishCounts() {
	s := e.Status()
	s.Passes, s.LastPass, s.Swept = e.passes, e.lastPass, e.flows.began
	s.Services = slices.Clone(s.Services)
	for i := range s.Services {
		vips := &s.Services[i].VIPs
		own := false // vips is a copy already
		for n, v := range *vips {
			if !slices.ContainsFunc(v.Reals, e.isCountedAnew) {
				continue
			}
			if !own {
				*vips, own = slices.Clone(*vips), true
			}
			(*vips)[n].Reals = slices.Clone(v.Reals)
			for j := range v.Reals {
				real := &(*vips)[n].Reals[j]
				real.Flows, real.Active = e.flows.of[real.ID], e.flows.active[real.ID]
			}
		}
	}
	e.status.Store(&s)
}

func (e *Engine) isCountedAnew(r RealStatus) bool {
	return r.Flows != e.flows.of[r.ID] || r.Active != e.flows.active[r.ID]
}
