// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package plan says what a new configuration would change in a data plane, without doing it: VIPs and
// backends, the slots that would get another real, and what that means for connections. It is a pure
// function of what is there and what is wanted; rings are computed as the engine would.
package plan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
)

// Present is what the data plane has.
type Present struct {
	VIPs  []lb.VIPEntry
	Reals []lb.Real
	// Slots are those of a ring; nil if there are none.
	Slots func(lb.RingID) []lb.Slot
	// Flows calls visit with every remembered flow.
	Flows func(visit func(lb.Flow))
}

// Wanted is what a new configuration asks for.
type Wanted struct {
	Services []lb.Service
	// Backends are by service, but of those in Dynamic, whose backends are said to stay as they are.
	Backends map[string][]lb.Backend
	Dynamic  map[string]bool
	// Drains are backends that are to be drained, Weights those that are to get another weight.
	Drains  map[lb.Target]bool
	Weights map[lb.Target]uint32
}

// Check refuses drains and weights of backends that no VIP would have. Those of services in Dynamic are
// not known.
func (w Wanted) Check() error {
	known := make(map[lb.Target]bool)
	for _, s := range w.Services {
		for _, v := range s.VIPs {
			for _, b := range w.Backends[s.Name] {
				known[lb.Target{VIP: v.VIP, Backend: b.Addr}] = true
			}
			if w.Dynamic[s.Name] {
				known[lb.Target{VIP: v.VIP}] = true
			}
		}
	}
	check := func(t lb.Target) error {
		if known[t] || known[lb.Target{VIP: t.VIP}] {
			return nil
		}
		return fmt.Errorf("the configuration has no backend %s", t)
	}
	var problems []error
	for t := range w.Drains {
		problems = append(problems, check(t))
	}
	for t := range w.Weights {
		problems = append(problems, check(t))
	}
	return errors.Join(problems...)
}

// Plan is what would change.
type Plan struct {
	// Changes tells whether anything would.
	Changes bool  `json:"changes"`
	VIPs    []VIP `json:"vips"`
	// Notes are what the plan cannot tell.
	Notes []string `json:"notes,omitempty"`
	// Capacity is what the data plane would be asked to have room for.
	Capacity engine.Capacity `json:"-"`
}

// Change is what would happen to a VIP or a backend.
type Change string

// The changes.
const (
	Same    Change = "same"
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
)

// VIP is what would happen to a VIP.
type VIP struct {
	VIP     lb.VIP `json:"vip"`
	Service string `json:"service"`
	Change  Change `json:"change"`
	// Details are changes of the VIP itself, for people.
	Details  []string  `json:"details,omitempty"`
	Backends []Backend `json:"backends,omitempty"` // that change
	Slots    Slots     `json:"slots"`
	Flows    Flows     `json:"flows"`
	// Active is how many backends would get new connections.
	Active int `json:"active_backends"`
}

// Backend is a backend that changes.
type Backend struct {
	Address netip.Addr `json:"address"`
	Change  Change     `json:"change"`
	Detail  string     `json:"detail,omitempty"`
}

// Slots is how many slots of a ring would get another real for new connections. Unavoidable is the least
// number with which the backends could have their new shares. If the ring's size changes, Moved is an
// estimate for the new size, and Unavoidable is 0.
type Slots struct {
	Total       int  `json:"total"`
	Moved       int  `json:"moved"`
	Unavoidable int  `json:"unavoidable"`
	Estimated   bool `json:"estimated,omitempty"`
}

// Flows is what becomes of connections. Remembered counts the VIP's remembered flows, OnMoved those of
// them on slots that move, Broken those whose backend would not get their packets any more. Others tells
// what becomes of connections that are not remembered.
type Flows struct {
	Remembered int    `json:"remembered"`
	OnMoved    int    `json:"on_moved_slots"`
	Broken     int    `json:"broken"`
	Others     Others `json:"others"`
}

// Others is what becomes of connections that are not remembered.
type Others string

// What becomes of connections that are not remembered.
const (
	// Stay: where they are, since no slot moves, or moving slots send them to the real they had.
	Stay Others = "stay"
	// BreakOnMoved: those on slots that move get to another server.
	BreakOnMoved Others = "break_on_moved_slots"
	// BreakOfRemoved: those of backends that get no packets any more get to another server.
	BreakOfRemoved Others = "break_of_removed_backends"
	// Break: all of them, the VIP is gone.
	Break Others = "break"
	// None: there are none, the VIP is new.
	None Others = "none"
)

// Compute makes the plan. The error says which ring cannot be built.
func Compute(have Present, want Wanted) (*Plan, error) {
	c := newComputation(have, want)
	for _, s := range want.Services {
		for _, v := range s.VIPs {
			if err := c.addVIP(s, v); err != nil {
				return nil, fmt.Errorf("plan %s: %v", v.VIP, err)
			}
		}
	}
	for _, v := range have.VIPs {
		if !c.wanted[v.VIP] {
			c.removeVIP(v)
		}
	}
	c.countFlows()
	slices.SortFunc(c.plan.VIPs, func(a, b VIP) int { return a.VIP.Compare(b.VIP) })
	for i := range c.plan.VIPs {
		c.plan.Changes = c.plan.Changes || c.plan.VIPs[i].Change != Same
	}
	c.plan.Capacity = c.capacity()
	return c.plan, nil
}

// realKey is what makes a real the same one, as in the engine.
type realKey struct {
	vip    lb.VIP
	addr   netip.Addr
	tunnel lb.Tunnel
}

// computation is a plan in the making.
type computation struct {
	have   Present
	want   Wanted
	plan   *Plan
	vips   map[lb.VIP]lb.VIPEntry
	reals  map[lb.VIP][]lb.Real
	byID   map[lb.RealID]lb.Real
	ids    map[realKey]lb.RealID // of reals that are there, and of new ones
	lastID lb.RealID
	wanted map[lb.VIP]bool
	// moved are the slots of VIPs that get another real; gone the reals that get no packets any more.
	moved map[lb.VIP][]bool
	gone  map[lb.RealID]bool
	slots map[lb.VIP][2]uint32 // of rings, before and after
	room  engine.Capacity
}

func newComputation(have Present, want Wanted) *computation {
	c := &computation{
		have: have, want: want, plan: &Plan{VIPs: []VIP{}},
		vips: make(map[lb.VIP]lb.VIPEntry), reals: make(map[lb.VIP][]lb.Real),
		byID: make(map[lb.RealID]lb.Real), ids: make(map[realKey]lb.RealID),
		wanted: make(map[lb.VIP]bool), moved: make(map[lb.VIP][]bool), gone: make(map[lb.RealID]bool),
		slots: make(map[lb.VIP][2]uint32),
	}
	for _, v := range have.VIPs {
		c.vips[v.VIP] = v
		c.slots[v.VIP] = [2]uint32{v.Ring.Size}
	}
	for _, r := range have.Reals {
		c.reals[r.VIP] = append(c.reals[r.VIP], r)
		c.byID[r.ID] = r
		c.ids[keyOf(r)] = r.ID
		c.lastID = max(c.lastID, r.ID)
	}
	return c
}

func keyOf(r lb.Real) realKey { return realKey{r.VIP, r.Backend.Addr, r.Tunnel} }

// member is a backend that is wanted on a VIP.
type member struct {
	id     lb.RealID
	addr   netip.Addr
	weight uint32 // as configured
	share  uint32 // 0: it gets no new connections
}

// addVIP plans a VIP that is wanted.
func (c *computation) addVIP(s lb.Service, v lb.ServiceVIP) error {
	c.wanted[v.VIP] = true
	before, known := c.vips[v.VIP]
	members, notes := c.members(s.Name, v)
	c.plan.Notes = append(c.plan.Notes, notes...)
	p := VIP{VIP: v.VIP, Service: s.Name, Change: Same}
	sizes := c.slots[v.VIP]
	sizes[1] = v.Ring.Size
	c.slots[v.VIP] = sizes
	if known {
		p.Details = details(before, s.Name, v)
	} else {
		p.Change = Added
	}
	p.Backends = c.compareBackends(v, members)
	for _, m := range members {
		if m.share > 0 {
			p.Active++
		}
	}
	if err := c.compareRings(&p, before, v, members); err != nil {
		return err
	}
	p.Flows.Others = c.others(v, p, known)
	if known && (len(p.Details) > 0 || len(p.Backends) > 0 || p.Slots.Moved > 0) {
		p.Change = Changed
	}
	c.plan.VIPs = append(c.plan.VIPs, p)
	c.countRoom(v)
	return nil
}

// removeVIP plans a VIP that is not wanted any more.
func (c *computation) removeVIP(v lb.VIPEntry) {
	p := VIP{VIP: v.VIP, Service: v.Service, Change: Removed, Slots: Slots{Total: int(v.Ring.Size)}, Flows: Flows{Others: Break}}
	for _, r := range c.reals[v.VIP] {
		p.Backends = append(p.Backends, Backend{Address: r.Backend.Addr, Change: Removed})
		c.gone[r.ID] = true
	}
	c.plan.VIPs = append(c.plan.VIPs, p)
}

// members are the backends of a VIP, by address.
func (c *computation) members(service string, v lb.ServiceVIP) (members []member, notes []string) {
	backends := c.want.Backends[service]
	if c.want.Dynamic[service] {
		if _, known := c.vips[v.VIP]; !known {
			notes = append(notes, fmt.Sprintf("%s: its backends come from a dynamic source and are not known yet", v.VIP))
		}
		backends = c.present(v.VIP)
	}
	for _, b := range backends {
		encap := v.Encap
		if b.Local {
			encap = lb.Local
		}
		tunnel, err := v.Tunnel.Tunnel(encap, b.Addr)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s: backend left out: %v", v.VIP, err))
			continue
		}
		members = append(members, c.member(realKey{v.VIP, b.Addr, tunnel}, b))
	}
	slices.SortFunc(members, func(a, b member) int { return a.addr.Compare(b.addr) })
	return members, notes
}

// present are a VIP's backends as they are.
func (c *computation) present(vip lb.VIP) (backends []lb.Backend) {
	for _, r := range c.reals[vip] {
		if r.Use == lb.RealActive || r.Backend.Weight > 0 {
			backends = append(backends, r.Backend)
		}
	}
	return backends
}

// member decides on a backend's share. One that is absent although it has a weight is down or drained,
// which no configuration ends.
func (c *computation) member(key realKey, b lb.Backend) member {
	target := lb.Target{VIP: key.vip, Backend: key.addr}
	m := member{addr: key.addr, weight: b.Weight}
	if w, ok := c.want.Weights[target]; ok {
		m.weight = w
	}
	id, known := c.ids[key]
	if !known {
		c.lastID++
		id = c.lastID
		c.ids[key] = id
	}
	m.id = id
	if !b.Down && !c.want.Drains[target] && !c.isAbsent(id) {
		m.share = m.weight
	}
	return m
}

// isAbsent tells whether a real is down or drained.
func (c *computation) isAbsent(id lb.RealID) bool {
	r, known := c.byID[id]
	return known && r.Use != lb.RealActive && r.Backend.Weight > 0
}

// details are what changes of a VIP itself.
func details(before lb.VIPEntry, service string, v lb.ServiceVIP) (list []string) {
	add := func(what string, from, to any) {
		if from != to {
			list = append(list, fmt.Sprintf("%s from %v to %v", what, from, to))
		}
	}
	add("service", before.Service, service)
	add("ring size", before.Ring.Size, v.Ring.Size)
	add("ring hash", before.Ring.Hash, v.Ring.Hash)
	add("flow mode", before.Flows, flowMode(v))
	if before.Options != v.Options {
		list = append(list, "options")
	}
	return list
}

// flowMode is the VIP's, as in the engine: UDP has no packet that says that it begins a flow.
func flowMode(v lb.ServiceVIP) lb.FlowMode {
	if v.VIP.Protocol == lb.UDP && v.Flows == lb.FlowTransitions {
		return lb.FlowNever
	}
	return v.Flows
}

// compareBackends lists those that change, and notes which get no packets any more.
func (c *computation) compareBackends(v lb.ServiceVIP, members []member) (list []Backend) {
	stays := make(map[lb.RealID]bool)
	for _, m := range members {
		stays[m.id] = true
		r, known := c.byID[m.id]
		if b := (Backend{Address: m.addr, Change: Added, Detail: fmt.Sprintf("weight %d", m.weight)}); !known {
			list = append(list, b)
		} else if detail := changeOf(r, m); detail != "" {
			list = append(list, Backend{Address: m.addr, Change: Changed, Detail: detail})
		}
	}
	for _, r := range c.reals[v.VIP] {
		isLeaving := r.Use != lb.RealActive && r.Backend.Weight == 0 // removed already, or by weight
		if stays[r.ID] || isLeaving {
			continue
		}
		detail := fmt.Sprintf("its connections have %v more", v.Leave.Drain)
		if v.Leave.Drain == 0 || flowMode(v) == lb.FlowNever {
			detail = "at once"
			c.gone[r.ID] = true
		}
		list = append(list, Backend{Address: r.Backend.Addr, Change: Removed, Detail: detail})
	}
	slices.SortFunc(list, func(a, b Backend) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Change, b.Change)) })
	return list
}

// changeOf is what changes of a real that stays; empty if nothing does.
func changeOf(r lb.Real, m member) string {
	switch {
	case r.Backend.Weight != m.weight:
		return fmt.Sprintf("weight from %d to %d", r.Backend.Weight, m.weight)
	case r.Use == lb.RealActive && m.share == 0 && m.weight > 0:
		return "gets no new connections"
	}
	return ""
}

// others is what becomes of connections that are not remembered.
func (c *computation) others(v lb.ServiceVIP, p VIP, known bool) Others {
	switch {
	case !known:
		return None
	case p.Slots.Moved == 0:
		return Stay
	case flowMode(v) == lb.FlowNever, flowMode(v) == lb.FlowAlways:
		return BreakOnMoved
	}
	for _, r := range c.reals[v.VIP] {
		if c.gone[r.ID] {
			return BreakOfRemoved
		}
	}
	return Stay
}

// countFlows counts the remembered flows by what becomes of them.
func (c *computation) countFlows() {
	at := make(map[lb.VIP]*VIP)
	for i := range c.plan.VIPs {
		at[c.plan.VIPs[i].VIP] = &c.plan.VIPs[i]
	}
	c.have.Flows(func(f lb.Flow) {
		r, ok := c.byID[f.Real]
		p := at[r.VIP]
		if !ok || r.Generation != f.Generation || p == nil {
			return
		}
		p.Flows.Remembered++
		if moved := c.moved[r.VIP]; int(f.Slot) < len(moved) && moved[f.Slot] {
			p.Flows.OnMoved++
		}
		if c.gone[f.Real] {
			p.Flows.Broken++
		}
	})
}

// countRoom adds what a VIP needs.
func (c *computation) countRoom(v lb.ServiceVIP) {
	if v.VIP.Addr.Is4() {
		c.room.VIPs4++
	} else {
		c.room.VIPs6++
	}
	if v.VIP.IsPrefix() {
		c.room.Prefixes++
	}
	c.room.Options = c.room.Options || v.Options != (lb.Options{})
}

// capacity is what the data plane is asked for: rings of another size are there twice for a while.
func (c *computation) capacity() engine.Capacity {
	room := c.room
	room.Reals = int(c.lastID)
	for _, sizes := range c.slots {
		room.RingSlots += int(sizes[1])
		if sizes[0] != sizes[1] {
			room.RingSlots += int(sizes[0])
		}
	}
	return room
}
