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
	// Changes counts the passes that changed something and succeeded.
	Changes uint64
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
	Held  bool
	Reals []RealStatus
}

// RealStatus is a real, with its next hop's problem if it has one, and its part of the ring.
type RealStatus struct {
	lb.Real
	Slots int
}

// Status is the status after the last pass. It does not block.
func (e *Engine) Status() Status { return *e.status.Load() }

// publish makes the realised state the status.
func (e *Engine) publish() {
	s := Status{
		Changes:   e.changes,
		LastApply: e.lastApply,
		LastError: e.lastError,
		Settled:   e.adopted == nil,
		Problems:  slices.Clone(e.problems),
	}
	reals := make(map[lb.VIP][]lb.Real)
	for _, r := range e.have.reals {
		reals[r.VIP] = append(reals[r.VIP], r)
	}
	services := make(map[string][]VIPStatus)
	for _, v := range sortedVIPs(e.have.vips) {
		services[v.Service] = append(services[v.Service], vipStatus(v, e.have.rings[v.RingID], reals[v.VIP]))
	}
	for name, vips := range services {
		s.Services = append(s.Services, ServiceStatus{Name: name, VIPs: vips})
	}
	slices.SortFunc(s.Services, func(a, b ServiceStatus) int { return cmp.Compare(a.Name, b.Name) })
	e.status.Store(&s)
}

func vipStatus(v lb.VIPEntry, r *ring, reals []lb.Real) VIPStatus {
	s := VIPStatus{VIPEntry: v}
	if r != nil {
		s.Members, s.Held = len(r.members), r.slots == nil
	}
	slices.SortFunc(reals, func(a, b lb.Real) int {
		return cmp.Or(a.Backend.Addr.Compare(b.Backend.Addr), cmp.Compare(a.ID, b.ID))
	})
	for _, real := range reals {
		rs := RealStatus{Real: real}
		if r != nil {
			rs.Slots = r.shares[real.ID]
		}
		s.Reals = append(s.Reals, rs)
	}
	return s
}
