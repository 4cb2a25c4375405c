// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package announce decides which VIP prefixes are announced, how, and why. It is pure: facts and
// the time go in, the whole set of announcements comes out, with a reason for each VIP.
//
//	withdrawn -> waiting -> announced <-> degraded -> draining -> withdrawn
//
// A VIP that fails while it is announced goes back to waiting at once, and damping may keep it
// there.
package announce

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/remora-lb/remora/lb"
)

// State is the state of a VIP.
type State uint8

const (
	// Withdrawn: it is not announced and shall not be. Nothing is on its way to it any more.
	Withdrawn State = iota
	// Waiting: it shall be announced, and is not yet, or not any more.
	Waiting
	// Announced: it is announced.
	Announced
	// Degraded: it is announced, and routers should prefer other balancers.
	Degraded
	// Draining: it is on its way out: first announced with the request to use other routes, then
	// withdrawn while packets may still come.
	Draining
)

func (s State) String() string {
	switch s {
	case Withdrawn:
		return "withdrawn"
	case Waiting:
		return "waiting"
	case Announced:
		return "announced"
	case Degraded:
		return "degraded"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Class chooses the attributes of an announcement.
type Class uint8

// The classes, the most welcome first.
const (
	ClassNormal Class = iota
	ClassDegraded
	ClassDraining
)

func (c Class) String() string {
	switch c {
	case ClassNormal:
		return "normal"
	case ClassDegraded:
		return "degraded"
	case ClassDraining:
		return "draining"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Code is a reason for programs. It does not change between versions.
type Code string

// The reasons.
const (
	CodeServed        Code = "served"
	CodeLowWeight     Code = "low_weight"
	CodeRecovering    Code = "recovering"
	CodeFleetGuard    Code = "fleet_guard"
	CodeNotAttached   Code = "not_attached"
	CodeSelfTest      Code = "self_test"
	CodeNextHop       Code = "next_hop"
	CodeHealthRound   Code = "health_round"
	CodeLearning      Code = "learning"
	CodeTooFewHealthy Code = "too_few_healthy"
	CodeDamped        Code = "damped"
	CodeShared        Code = "shared"
	CodeDrainVIP      Code = "drain_vip"
	CodeDrainNode     Code = "drain_node"
	CodeRemoved       Code = "removed"
)

// Fleet is what is known of the other balancers.
type Fleet uint8

const (
	// FleetUnknown: there is nobody to ask. Each balancer decides by itself.
	FleetUnknown Fleet = iota
	// FleetOthers: another balancer announces the VIP.
	FleetOthers
	// FleetAlone: no other balancer announces it. This one then does not withdraw it on its own
	// view, and damping does not hold it back.
	FleetAlone
)

// Facts are what is known about one VIP.
type Facts struct {
	// Attached tells that the data plane is attached and has the VIP.
	Attached bool
	// SelfTest tells that a test packet to the VIP came out of the data plane as it must.
	SelfTest bool
	// Untested says why the last self-test could not be made, and that it is not the VIP's fault: then
	// SelfTest is what the one before found. Empty if it was made.
	Untested string
	// NextHop tells that frames can be sent to at least one of its reals.
	NextHop bool
	// HealthKnown tells that each real has been checked once. Until then the health below does
	// not count.
	HealthKnown bool
	// HealthyReals and HealthyWeight are of the reals that get new flows, TotalWeight is of all.
	HealthyReals               int
	HealthyWeight, TotalWeight uint64
	// Unservable says why the VIP's own health checks do not let it be served, however many reals are
	// healthy; empty if they do.
	Unservable string
	// Adopted tells that this balancer announced the VIP before its daemon restarted, and that
	// the data plane went on meanwhile: the VIP does not wait for health and learn time.
	Adopted bool
	// Drain asks to take the VIP out.
	Drain bool
	// Fleet is what the other balancers do.
	Fleet Fleet
}

// Inputs are the whole of what is known.
type Inputs struct {
	// Drain asks to take the balancer out.
	Drain bool
	// VIPs are all that are configured. One that is not there any more is drained, and forgotten
	// when it is withdrawn.
	VIPs map[lb.VIP]Facts
}

// Announcement is a prefix to announce.
type Announcement struct {
	Prefix netip.Prefix
	Class  Class
}

// Status is the state of one VIP.
type Status struct {
	VIP   lb.VIP
	State State
	// Since is when it took its state.
	Since time.Time
	// Code and Reason say why, for programs and as a sentence.
	Code   Code
	Reason string
	// Announced tells whether a prefix that holds it is announced.
	Announced bool
}

// Result is what Step decides.
type Result struct {
	// Announcements are the whole set, in the order of their prefixes.
	Announcements []Announcement
	// VIPs are all configured ones and those on their way out, in their order. A VIP must be
	// served until it is withdrawn and, if it is not configured any more, gone from here.
	VIPs []Status
	// Next is when to call Step again even if no fact changes; zero for never.
	Next time.Time
}

// Withdrawn tells whether all VIPs are withdrawn: a balancer that was drained can stop.
func (r Result) Withdrawn() bool {
	return !slices.ContainsFunc(r.VIPs, func(s Status) bool { return s.State != Withdrawn })
}

// Machine holds the states of all VIPs. It is not safe for concurrent use.
type Machine struct {
	cfg  Config
	vips map[lb.VIP]*vip
	// announced are the prefixes of the last step.
	announced map[netip.Prefix]bool
	// reported is the last Status of each VIP.
	reported map[lb.VIP]Status
}

// New validates the configuration.
func New(cfg Config) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure announcements: %v", err)
	}
	return &Machine{
		cfg:       cfg.withDefaults(),
		vips:      make(map[lb.VIP]*vip),
		announced: make(map[netip.Prefix]bool),
		reported:  make(map[lb.VIP]Status),
	}, nil
}

// Configure changes the configuration from the next step on. What VIPs have been through stays.
func (m *Machine) Configure(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configure announcements: %v", err)
	}
	m.cfg = cfg.withDefaults()
	return nil
}

// Step takes in what is known at a time and decides. Times must not go back.
func (m *Machine) Step(now time.Time, in Inputs) Result {
	m.stepVIPs(now, in)
	groups := m.groups(in)
	decisions := make(map[lb.VIP]decision)
	var r Result
	announced := make(map[netip.Prefix]bool)
	for _, g := range groups {
		d := m.decide(g)
		if d.announced {
			announced[g.prefix] = true
			r.Announcements = append(r.Announcements, Announcement{g.prefix, d.class})
		}
		for _, v := range g.vips {
			decisions[v] = decisions[v].or(d)
		}
	}
	m.announced = announced
	r.VIPs = m.report(now, decisions)
	r.Next = m.next()
	return r
}

// stepVIPs steps each VIP's own machine, and forgets those that are gone.
func (m *Machine) stepVIPs(now time.Time, in Inputs) {
	for key := range in.VIPs {
		if m.vips[key] == nil {
			m.vips[key] = &vip{since: now}
		}
	}
	for key, v := range m.vips {
		facts, configured := in.VIPs[key]
		drain := cause{}
		switch {
		case !configured:
			drain = because(CodeRemoved, "it is not configured any more")
			facts = gone()
		case in.Drain:
			drain = because(CodeDrainNode, "the balancer is being drained")
		case facts.Drain:
			drain = because(CodeDrainVIP, "it is being drained")
		}
		v.step(m.cfg, now, facts, drain)
		if !configured && (v.state == Withdrawn || m.sharesAddress(key, in)) {
			delete(m.vips, key)
			delete(m.reported, key)
		}
	}
}

// gone are the facts of a VIP that is not configured any more: it is served until it is
// withdrawn.
func gone() Facts { return Facts{Attached: true, SelfTest: true, NextHop: true} }

// sharesAddress tells whether a configured VIP has the same address, or prefix: then the removed one can
// leave without a drain, as its address stays.
func (m *Machine) sharesAddress(removed lb.VIP, in Inputs) bool {
	for key := range in.VIPs {
		if key.Prefix() == removed.Prefix() {
			return true
		}
	}
	return false
}

// next is the earliest time that a VIP waits for.
func (m *Machine) next() (next time.Time) {
	for _, v := range m.vips {
		if !v.next.IsZero() && (next.IsZero() || v.next.Before(next)) {
			next = v.next
		}
	}
	return next
}

// report makes the states of all VIPs from their own and those of their prefixes.
func (m *Machine) report(now time.Time, decisions map[lb.VIP]decision) []Status {
	list := make([]Status, 0, len(m.vips))
	for _, key := range slices.SortedFunc(maps.Keys(m.vips), lb.VIP.Compare) {
		v, d := m.vips[key], decisions[key]
		s := Status{VIP: key, State: v.state, Since: v.since, Code: v.cause.code, Reason: v.cause.text, Announced: d.announced}
		if v.announced() && !d.announced && d.reason != "" {
			s.State, s.Code, s.Reason = Waiting, CodeShared, d.reason
			s.Since = now
			if last, ok := m.reported[key]; ok && last.State == s.State {
				s.Since = last.Since
			}
		}
		m.reported[key] = s
		list = append(list, s)
	}
	return list
}

// compareGroups orders groups by their prefixes.
func compareGroups(a, b group) int {
	return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
}
