// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Status is what a daemon's data plane has.
type Status struct {
	// Version is that of the daemon's program; Instance, the data plane's name.
	Version, Instance string
	Interfaces        []Interface
	// Settled is false while adopted state is held because a source has not reported.
	Settled bool
	// Changes counts the passes that changed something and succeeded.
	Changes uint64
	// LastApply is when the data plane was last found or made equal to what is wanted; zero if never.
	LastApply time.Time
	// LastError is why the last pass failed; empty if it did not.
	LastError string
	Problems  []Problem
	// Services are by name, those with a VIP in the data plane.
	Services []Service
	// BGP is what is announced; nil if the configuration has no BGP.
	BGP *BGP
	// Metrics is where metrics are served; nil if they are not to be.
	Metrics *MetricsListener
	// Flows is what is remembered of flows, of all VIPs together.
	Flows FlowTable
}

// FlowTable is how many flows there is room for, how many are remembered, and what happened there.
type FlowTable struct {
	Capacity, Flows int
	Events          [lb.FlowEventLen]uint64
}

// MetricsListener is where metrics are served. Error says why they are not; empty if they are.
type MetricsListener struct {
	Listen  string
	Serving bool
	Error   string
}

// BGP is what is announced, to whom, and why.
type BGP struct {
	// Drained tells whether the balancer is taken out; DrainedSince, since when.
	Drained      bool
	DrainedSince time.Time
	// Sessions are in the order of the configuration, VIPs in their own.
	Sessions []BGPSession
	VIPs     []Announcement
}

// BGPSession is the session with one router. Strings are as in package bgp.
type BGPSession struct {
	Peer  netip.Addr
	ASN   uint32
	State string
	Since time.Time
	// LastError is empty if nothing went wrong yet.
	LastError   string
	LastErrorAt time.Time
	Routes      int
	// Flaps counts how often the session was lost after it was established.
	Flaps uint64
	BFD   string
}

// Announcement is how a VIP stands, since when, and why.
type Announcement struct {
	VIP          lb.VIP
	State        AnnounceState
	Since        time.Time
	Code, Reason string
	// Announced tells whether a prefix that holds the VIP is announced.
	Announced bool
}

// AnnounceState is the state of a VIP, by the numbers of lb/announce.
type AnnounceState uint8

// The states.
const (
	AnnounceWithdrawn AnnounceState = iota
	AnnounceWaiting
	AnnounceAnnounced
	AnnounceDegraded
	AnnounceDraining
)

// Interface is where the packet program is attached. ModeReason says why in this mode and in no
// better one.
type Interface struct {
	Name       string
	Mode       Mode
	ModeReason string
}

// Mode is where the packet program runs.
type Mode uint8

// The modes.
const (
	ModeGeneric Mode = iota
	ModeNative
	ModeOffload
)

// Problem is a contradiction in the inputs, and what was left out because of it. Fields that do not
// apply are zero.
type Problem struct {
	Service string
	VIP     lb.VIP
	Backend netip.Addr
	Text    string
}

// Service is a service with its VIPs, in order.
type Service struct {
	Name string
	VIPs []VIP
}

// VIP is a VIP with its ring and its reals, by address.
type VIP struct {
	lb.VIPEntry
	// Held tells that the ring is still that of an earlier daemon, whose slots are not known.
	Held bool
	// Slots counts the ring's slots by state.
	Slots [lb.SlotStateLen]int
	Reals []Real
	// Health is what the checks of all reals mean together; nil if there are none.
	Health *HealthGroup
}

// HealthGroup is what the health checks of a VIP's reals mean together.
type HealthGroup struct {
	// Checked counts the reals that are checked, Healthy those of them that are healthy.
	Checked, Healthy int
	// FailOpen tells that the checks are not believed, Servable that enough are healthy.
	FailOpen, Servable bool
	// Detail says why FailOpen is set or Servable is not; empty otherwise.
	Detail string
}

// Health is what is known of the health of a real.
type Health struct {
	// Local is what our own checks say, Outside what the catalogue says.
	Local, Outside HealthState
	// Since is when Local changed last.
	Since time.Time
	// Reason is how the last probe ended, Detail the same for people; both may be empty.
	Reason, Detail string
	// Percent is the share of its weight that the checks leave to the real.
	Percent int
	// Suppressed tells that it is kept down because it went up and down too often.
	Suppressed bool
	// Fault is the broken part of the path, FaultDetail the same for people; both may be empty.
	Fault, FaultDetail string
}

// HealthState is a verdict on a real, by the numbers of healthcheck.
type HealthState uint8

// The verdicts.
const (
	HealthUnknown HealthState = iota
	HealthUp
	HealthDown
)

// Real is a real with its part of the ring, its flows, and what it got.
type Real struct {
	lb.Real
	Absence Absence
	// Health is nil if it is not checked.
	Health *Health
	// Slots counts those whose new flows it gets; PreviousSlots, the moving ones that it had before.
	Slots, PreviousSlots int
	// Flows counts the remembered ones; Active, those of them that had a packet within ActiveTime.
	Flows, Active int
	// Packets and Bytes were sent to it since it has its id. Bytes are those of the clients' IP
	// packets, without the outer headers.
	Packets, Bytes uint64
}

// Absence is a real's time without new flows: since when, and until when its known flows are its
// own.
type Absence struct {
	Cause        Cause
	Since, Until time.Time
}

// Cause is why a real gets no new flows.
type Cause uint8

// The causes, the one that counts first if there are several.
const (
	// CauseNone is that of an active real.
	CauseNone Cause = iota
	// CauseDown is a check that fails, or a source that says so.
	CauseDown
	// CauseDrain is an operator's drain.
	CauseDrain
	// CauseWeight is a weight of 0.
	CauseWeight
	// CauseRemoved is that no source has the backend any more.
	CauseRemoved
)
