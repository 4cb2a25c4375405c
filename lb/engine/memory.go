// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	// Renumbered is when flows got other slots, if that is within the window.
	Renumbered time.Time `json:"renumbered,omitzero"`
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
	// Tunnel tells this real from others that the backend has or had within the VIP; empty if there
	// is none.
	Tunnel string `json:"tunnel,omitempty"`
	// ServerID is the number by which its packets find it; 0 if there is none.
	ServerID uint32 `json:"server_id,omitempty"`
}

// memory is what is to be remembered now. VIPs of which there is nothing to say are in it where also
// is true. Its times are by the wall clock as it is now, however that was set since they were.
func (e *Engine) memory(also map[lb.VIP]bool) *Memory {
	now := time.Now()
	absent := e.rememberAbsences(now)
	m := &Memory{}
	for _, v := range sortedVIPs(e.planned.vips) {
		vm := VIPMemory{VIP: v.VIP, Size: v.Ring.Size, Hash: v.Ring.Hash.String(), Absent: absent[v.VIP]}
		if p := e.pasts.of[v.VIP]; p != nil {
			if len(p.sets) > 1 && p.guessed.IsZero() {
				vm.Sets = p.remember(now)
			}
			if !p.renumbered.IsZero() {
				vm.Renumbered = onWall(now, p.renumbered)
			}
		}
		if len(vm.Sets) > 0 || len(vm.Absent) > 0 || !vm.Renumbered.IsZero() || also[v.VIP] {
			m.VIPs = append(m.VIPs, vm)
		}
	}
	return m
}

// rememberAbsences are all, by VIP, in order.
func (e *Engine) rememberAbsences(now time.Time) map[lb.VIP][]AbsenceMemory {
	reals, serverIDs := make(map[lb.Target]int), make(map[realKey]uint32)
	for _, r := range e.planned.reals {
		reals[lb.Target{VIP: r.VIP, Backend: r.Backend.Addr}]++
		if r.Backend.ServerID != 0 {
			serverIDs[keyOf(r)] = r.Backend.ServerID
		}
	}
	absent := make(map[lb.VIP][]AbsenceMemory)
	for key, a := range e.absences.of {
		m := AbsenceMemory{Backend: key.addr, Cause: a.Cause, Since: onWall(now, a.Since), Until: onWall(now, a.Until),
			ServerID: serverIDs[key]}
		if reals[lb.Target{VIP: key.vip, Backend: key.addr}] > 1 {
			m.Tunnel = tunnelText(key.tunnel)
		}
		absent[key.vip] = append(absent[key.vip], m)
	}
	for _, list := range absent {
		slices.SortFunc(list, func(a, b AbsenceMemory) int {
			return cmp.Or(a.Backend.Compare(b.Backend), cmp.Compare(a.Tunnel, b.Tunnel))
		})
	}
	return absent
}

// tunnelText tells the tunnels to one address apart.
func tunnelText(t lb.Tunnel) string {
	return fmt.Sprintf("%s from %s to port %d, checksum %t", t.Encap, t.Source, t.Port, t.Checksum)
}

func (p *past) remember(now time.Time) (sets []SetMemory) {
	for _, set := range p.sets {
		s := SetMemory{Since: onWall(now, set.since)}
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
	// renumbered is when its flows got their slots; zero if that is more than a window ago.
	renumbered time.Time
}

// restore is the past of the ring, or nil if there is none: it is stable, with this choice. The slots
// as they are say where flows are. What was remembered adds when that came to be, so it counts only if
// what is left of it within the window explains them: it may be older than they are.
func (l leftRing) restore(ctx context.Context, b *budget, now time.Time, window time.Duration, choice []lb.Slot) *past {
	slots := l.slots()
	if len(slots) != int(l.spec.Size) || slices.Equal(slots, choice) {
		return nil
	}
	p := l.remembered(ctx, b, now, window, slots)
	if p != nil {
		p.history.Forget(now.Add(-window))
	}
	if p == nil || !p.explains(slots, receivers(usesOf(l.reals))) {
		return &past{
			spec: l.spec, history: transition.FromSlots(now, slots), due: true,
			sets: []memberSet{{now, activeMembers(l.reals)}}, guessed: now, renumbered: l.renumbered,
		}
	}
	p.history.Linger(func(slot uint32) bool { return !slots[slot].Stable() })
	p.renumbered = l.renumbered
	return p
}

// remembered is the past by the sets, and then by what the slots choose; nil if there are no sets,
// none that could be, or more than there is time for.
func (l leftRing) remembered(ctx context.Context, b *budget, now time.Time, window time.Duration, slots []lb.Slot) *past {
	sets, ok := setsWithin(now, window, l.sets)
	if !ok || len(sets) == 0 {
		return nil
	}
	ids := newRingIDs(l.reals)
	var members []memberSet
	for _, set := range sets {
		members = append(members, memberSet{set.Since, ids.members(set)})
	}
	p, err := b.replay(ctx, l.spec, members)
	if err != nil {
		return nil // also what another version wrote, or what is damaged
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

// setsWithin are the sets that were in force within the window, with times that are anchored to now;
// of neighbours with the same members the first. False if there are too many.
func setsWithin(now time.Time, window time.Duration, sets []SetMemory) ([]SetMemory, bool) {
	if len(sets) > mostSets {
		return nil, false
	}
	var recent []SetMemory
	for _, set := range sets {
		set.Since = anchored(now, set.Since, window)
		if n := len(recent); n > 0 && slices.Equal(recent[n-1].Members, set.Members) {
			continue
		}
		if now.Sub(set.Since) >= window {
			recent = recent[:0] // those before were over when the window began
		}
		recent = append(recent, set)
	}
	return recent, true
}

// budget is how many slots and members of rings of the past may still be computed. A slot costs some
// 40 ns, in great rings up to 70.
type budget struct{ left int }

// mostReplayed is the budget of a start and of an import: some 500 rings of the default size, which is
// one or two seconds. Nothing is applied meanwhile, so it has to be short. What exceeds it is told by
// the slots themselves: it is only remembered for longer.
const mostReplayed = 1 << 25

var errBudget = errors.New("there are too many rings of the past")

// replay is the past of a ring that had these sets, but those that chose nothing else than the one
// before. It fails if no ring can be made of one, if all together exceed the budget, or when ctx ends.
func (b *budget) replay(ctx context.Context, spec lb.Ring, sets []memberSet) (*past, error) {
	cost := 0
	for _, set := range sets {
		cost += int(spec.Size) + len(set.members)
	}
	if cost > b.left {
		return nil, errBudget
	}
	b.left -= cost
	p := &past{spec: spec, due: true}
	for _, set := range sets {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
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
		left := leftRing{spec: v.Ring, reals: reals[v.VIP], slots: func() []lb.Slot { return a.Slots(v.RingID) },
			renumbered: now} // since it may have been, where nothing is known
		if m.Size == v.Ring.Size && m.Hash == v.Ring.Hash.String() {
			left.sets, left.renumbered = m.Sets, time.Time{}
			if !m.Renumbered.IsZero() {
				left.renumbered = anchored(now, m.Renumbered, e.cfg.Window)
			}
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
		if r.Backend.Addr == a.Backend && (a.Tunnel == "" || a.Tunnel == tunnelText(r.Tunnel)) {
			since, until := anchoredSpan(now, a.Since, a.Until)
			e.absences.of[keyOf(r)] = Absence{a.Cause, since, until}
			r.Backend.ServerID = a.ServerID
			e.adopted.reals[r.ID], e.planned.reals[r.ID] = r, r
		}
	}
}
