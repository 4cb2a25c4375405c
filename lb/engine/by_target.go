// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"time"

	"github.com/remora-lb/remora/lb"
)

// ByTarget are the reals of a status; several of one target are taken together.
func (s Status) ByTarget() map[lb.Target]RealStatus {
	reals := make(map[lb.Target]RealStatus)
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			for _, r := range v.Reals {
				t := lb.Target{VIP: v.VIP, Backend: r.Backend.Addr}
				if other, ok := reals[t]; ok {
					r = together(other, r)
				}
				reals[t] = r
			}
		}
	}
	return reals
}

// together is two reals of one backend, of which one has another tunnel and is on its way out: as absent,
// and as far drained, as the one that is less so, with the flows and slots of both.
func together(a, b RealStatus) RealStatus {
	if b.Absence.Cause < a.Absence.Cause {
		a, b = b, a
	}
	a.Use, a.Led = min(a.Use, b.Use), a.Led || b.Led
	a.Slots, a.PrevSlots = a.Slots+b.Slots, a.PrevSlots+b.PrevSlots
	a.Flows, a.Active = a.Flows+b.Flows, a.Active+b.Active
	switch {
	case a.Unnamed.IsZero(), b.Unnamed.IsZero():
		a.Unnamed = time.Time{}
	case b.Unnamed.After(a.Unnamed):
		a.Unnamed = b.Unnamed
	}
	return a
}
