// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
	"github.com/remora-lb/remora/lb/transition"
)

// Memory is what an engine remembers beside what the data plane holds, with nothing in it that is
// particular to one balancer: how rings changed within the window, and which reals are absent. VIPs
// of which there is nothing to say are not in it. It has a stable form in JSON.
type Memory struct {
	VIPs []VIPMemory `json:"vips"`
}

// VIPMemory is what is remembered of one VIP.
type VIPMemory struct {
	VIP  lb.VIP `json:"vip"`
	Size uint32 `json:"ring_size"`
	Hash string `json:"ring_hash"`
	// Sets are those in force within the window, the oldest first, the last one still is.
	Sets   []SetMemory     `json:"sets,omitempty"`
	Absent []AbsenceMemory `json:"absent,omitempty"`
}

// SetMemory is a set of members of a ring, and since when it was in force.
type SetMemory struct {
	Since   time.Time      `json:"since"`
	Members []MemberMemory `json:"members"`
}

// MemberMemory is a member of a ring; the weight is above 0.
type MemberMemory struct {
	Backend netip.Addr `json:"backend"`
	Weight  uint32     `json:"weight"`
}

// AbsenceMemory is the absence of a VIP's backend.
type AbsenceMemory struct {
	Backend netip.Addr `json:"backend"`
	Cause   Cause      `json:"cause"`
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until"`
}

// memory is what is to be remembered now. VIPs of which there is nothing to say are in it where also
// is true.
func (e *Engine) memory(also map[lb.VIP]bool) *Memory {
	absent := make(map[lb.VIP][]AbsenceMemory)
	for key, a := range e.absences.of {
		absent[key.vip] = append(absent[key.vip], AbsenceMemory{key.addr, a.Cause, a.Since, a.Until})
	}
	m := &Memory{}
	for _, v := range sortedVIPs(e.planned.vips) {
		vm := VIPMemory{VIP: v.VIP, Size: v.Ring.Size, Hash: v.Ring.Hash.String(), Absent: absent[v.VIP]}
		slices.SortFunc(vm.Absent, func(a, b AbsenceMemory) int { return a.Backend.Compare(b.Backend) })
		if p := e.pasts.of[v.VIP]; p != nil && len(p.sets) > 1 && p.guessed.IsZero() {
			vm.Sets = p.remember()
		}
		if len(vm.Sets) > 0 || len(vm.Absent) > 0 || also[v.VIP] {
			m.VIPs = append(m.VIPs, vm)
		}
	}
	return m
}

func (p *past) remember() (sets []SetMemory) {
	for _, set := range p.sets {
		s := SetMemory{Since: set.since}
		for _, m := range set.members {
			s.Members = append(s.Members, MemberMemory{m.Addr, m.Weight})
		}
		slices.SortFunc(s.Members, func(a, b MemberMemory) int { return a.Backend.Compare(b.Backend) })
		sets = append(sets, s)
	}
	return sets
}

// ringIDs are the ids of a VIP's reals by their address, for rings of the past. Members that are not
// among them get ids that no real has.
type ringIDs struct {
	known   map[netip.Addr]lb.RealID
	unknown lb.RealID
}

func newRingIDs(reals []lb.Real) *ringIDs {
	ids := &ringIDs{known: make(map[netip.Addr]lb.RealID), unknown: lb.MaxRealID}
	reals = slices.Clone(reals)
	// Of several with one address, an active one has its flows.
	slices.SortFunc(reals, func(a, b lb.Real) int { return cmp.Or(cmp.Compare(b.Use, a.Use), cmp.Compare(b.ID, a.ID)) })
	for _, r := range reals {
		ids.known[r.Backend.Addr] = r.ID
	}
	return ids
}

func (ids *ringIDs) members(set SetMemory) []maglev.Member {
	members := make([]maglev.Member, 0, len(set.Members))
	for _, m := range set.Members {
		id, ok := ids.known[m.Backend]
		if !ok {
			id = ids.unknown
			ids.known[m.Backend] = id
			ids.unknown--
		}
		members = append(members, maglev.Member{ID: id, Addr: m.Backend, Weight: m.Weight})
	}
	return members
}

// leftRing is a ring that a previous run left, and what is remembered of its past.
type leftRing struct {
	spec  lb.Ring
	slots func() []lb.Slot
	sets  []SetMemory
	reals []lb.Real // of the VIP
}

// restore is the past of the ring, or nil if there is none: it is stable, with this choice. The slots
// as they are say where flows are. What was remembered adds when that came to be, so it counts only if
// what is left of it within the window explains them: it may be older than they are.
func (l leftRing) restore(now time.Time, window time.Duration, choice []lb.Slot) *past {
	slots := l.slots()
	if len(slots) != int(l.spec.Size) || slices.Equal(slots, choice) {
		return nil
	}
	p := l.remembered(now, slots)
	if p != nil {
		p.history.Forget(now.Add(-window))
	}
	if p == nil || !p.explains(slots, receivers(usesOf(l.reals))) {
		return &past{
			spec: l.spec, history: transition.FromSlots(now, slots), due: true,
			sets: []memberSet{{now, activeMembers(l.reals)}}, guessed: now,
		}
	}
	p.history.Linger(func(slot uint32) bool { return !slots[slot].Stable() })
	return p
}

// remembered is the past by the sets, and then by what the slots choose; nil if there are no sets, or
// none that could be.
func (l leftRing) remembered(now time.Time, slots []lb.Slot) *past {
	sets, ok := datedBy(now, l.sets)
	if !ok || len(sets) == 0 {
		return nil
	}
	ids := newRingIDs(l.reals)
	var members []memberSet
	for _, set := range sets {
		members = append(members, memberSet{set.Since, ids.members(set)})
	}
	p, err := replay(l.spec, members)
	if err != nil {
		return nil // written by another version, or damaged
	}
	present := make([]lb.Slot, len(slots))
	for i, s := range slots {
		present[i] = lb.StableSlot(s.Cur())
	}
	if p.history.Change(now, present) {
		p.sets = append(p.sets, memberSet{now, activeMembers(l.reals)})
	}
	return p
}

// mostSets is how many sets of one ring are taken from outside; more are never kept here.
const mostSets = 4 * keptApart

// datedBy makes a ring's sets none of the future's; false if there are too many.
func datedBy(now time.Time, sets []SetMemory) ([]SetMemory, bool) {
	sets = slices.Clone(sets)
	for i := range sets {
		if sets[i].Since.After(now) {
			sets[i].Since = now
		}
	}
	return sets, len(sets) <= mostSets
}

// replay is the past of a ring that had these sets, but those that chose nothing else than the one
// before. It fails if no ring can be made of one.
func replay(spec lb.Ring, sets []memberSet) (*past, error) {
	p := &past{spec: spec, due: true}
	for _, set := range sets {
		choice, err := maglev.Build(spec, set.members)
		if err != nil {
			return nil, err
		}
		if p.history == nil {
			p.history = transition.New(choice)
		} else if !p.history.Change(set.since, choice) {
			p.sets[len(p.sets)-1].members = set.members
			continue
		}
		p.sets = append(p.sets, set)
	}
	return p, nil
}

// explains tells whether the past sends each packet to where these slots send it.
func (p *past) explains(slots []lb.Slot, receives func(lb.RealID) bool) bool {
	old := func(s lb.Slot) lb.RealID { // where flows go that are not known
		if s.State() == lb.SlotMoving && receives(s.Prev()) {
			return s.Prev()
		}
		return s.Cur()
	}
	return slices.EqualFunc(p.history.Slots(receives), slots, func(a, b lb.Slot) bool {
		return a.Cur() == b.Cur() && old(a) == old(b)
	})
}

func usesOf(reals []lb.Real) map[lb.RealID]lb.RealUse {
	uses := make(map[lb.RealID]lb.RealUse, len(reals))
	for _, r := range reals {
		uses[r.ID] = r.Use
	}
	return uses
}

func activeMembers(reals []lb.Real) (members []maglev.Member) {
	for _, r := range reals {
		if r.Use == lb.RealActive && r.Backend.Weight > 0 {
			members = append(members, maglev.Member{ID: r.ID, Addr: r.Backend.Addr, Weight: r.Backend.Weight})
		}
	}
	return members
}

// recall takes over what a previous run left: rings with the sets that they were made of, and absences.
func (e *Engine) recall(a Adopted) {
	memory := make(map[lb.VIP]VIPMemory)
	if a.Memory != nil {
		for _, v := range a.Memory.VIPs {
			memory[v.VIP] = v
		}
	}
	now := time.Now()
	reals := e.planned.realsByVIP()
	for _, v := range a.VIPs {
		m := memory[v.VIP]
		left := leftRing{spec: v.Ring, reals: reals[v.VIP], slots: func() []lb.Slot { return a.Slots(v.RingID) }}
		if m.Size == v.Ring.Size && m.Hash == v.Ring.Hash.String() {
			left.sets = m.Sets
		}
		e.pasts.left[v.VIP] = left
		for _, r := range left.reals {
			e.recallAbsence(r, m.Absent, now)
		}
	}
}

// recallAbsence takes over the absence of a real that is absent as it was left. A real that was retired
// stays so, until it gets new flows again.
func (e *Engine) recallAbsence(r lb.Real, remembered []AbsenceMemory, now time.Time) {
	if r.Use == lb.RealActive {
		return
	}
	if r.Use == lb.RealRetired {
		e.absences.of[keyOf(r)] = Absence{CauseRemoved, now, now}
	}
	for _, a := range remembered {
		if r.Backend.Addr == a.Backend {
			e.absences.of[keyOf(r)] = Absence{a.Cause, a.Since, a.Until}
		}
	}
}
