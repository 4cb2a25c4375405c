// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package metrics tells Prometheus and orchestrators how a daemon is doing: a collector that reads a
// snapshot at each scrape, and a server with /metrics, /healthz and /readyz. docs/metrics.md describes
// every metric; a test compares the two.
package metrics

import (
	"context"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Source gives what is shown at a scrape. It may be called from several goroutines.
type Source interface {
	// Snapshot is the daemon as it is now. What cannot be read is left out.
	Snapshot(ctx context.Context) Snapshot
}

// Snapshot is what a daemon is and has counted. Parts that are nil are not there: they cannot be read,
// or are not configured.
type Snapshot struct {
	Version    string
	DataPlane  *DataPlane
	Engine     Engine
	Checks     Checks
	NextHops   NextHops
	Watches    []Watch
	Governor   Governor
	BGP        *BGP
	Reloads    Reloads
	Events     map[string]uint64 // by kind
	Interfaces []Interface
}

// DataPlane is what the maps hold.
type DataPlane struct {
	Attached time.Time
	Reasons  [lb.ReasonLen]uint64
	// Removed sums the counters of reals that are gone.
	Removed       Traffic
	FlowEvents    [lb.FlowEventLen]uint64
	Flows, Places int // remembered flows, and for how many there is room
	VIPs          []VIP
	Maps          []Map
}

// Traffic is packets, and bytes of the clients' IP packets.
type Traffic struct{ Packets, Bytes uint64 }

// Interface is where the packet program is attached, and why in this mode.
type Interface struct{ Name, Mode, Reason string }

// Map is how full a map is.
type Map struct {
	Name           string
	Used, Capacity int
}

// VIP is a VIP with its ring and its reals.
type VIP struct {
	lb.VIPEntry
	Digest string
	Slots  [lb.SlotStateLen]int
	Reals  []Real
	// Health is nil if the reals are not checked.
	Health *Health
}

// Health is what the checks of a VIP's reals mean together.
type Health struct{ FailOpen, Servable bool }

// Real is a real with its counters.
type Real struct {
	lb.Real
	Traffic
	// State is what the checks say: one of HealthStates.
	State string
	// Flows are remembered; Active of them had a packet within the last minute.
	Flows, Active int
}

// HealthStates are what the checks may say of a backend.
func HealthStates() []string { return []string{"up", "down", "unknown", "unchecked"} }

// Engine is how the path of a change is doing.
type Engine struct {
	Passes, Failures, Changes uint64
	// LastPass is when the last pass ended, LastApply when one last succeeded; zero if never.
	LastPass, LastApply time.Time
	Failing, Settled    bool
	Problems            int
}

// Checks counts health checks by their result, and measures them.
type Checks struct {
	Results map[string]uint64
	// Durations are those of the probes with a result that says something about the server.
	Durations Histogram
}

// Histogram is a distribution of durations.
type Histogram struct {
	// Bounds are upper bounds in seconds, rising; Counts are how many were at most that, each with those
	// before.
	Bounds []float64
	Counts []uint64
	Count  uint64
	// Sum is in seconds.
	Sum float64
}

// NextHops is how the resolver is doing.
type NextHops struct{ Probes, Resyncs uint64 }

// Watch is one thing that is read from Consul.
type Watch struct {
	Kind, Name string
	Index      uint64
	// Changed is when the index changed last, Answered when the last whole answer came; zero if never.
	Changed, Answered time.Time
	Errors            uint64
	Failing           bool
}

// Governor is what is held back. Refused and Held count since the start, by rule; Ended by outcome.
type Governor struct {
	Refused, Held, Ended map[string]uint64
	// Holding is how many are held now, by rule.
	Holding map[string]int
	// Unusable is how many things sources say now that cannot be used.
	Unusable int
}

// BGP is what is announced, and to whom.
type BGP struct {
	Drained  bool
	Sessions []Session
	VIPs     []Announcement
}

// Session is the session with one router.
type Session struct {
	Peer   netip.Addr
	ASN    uint32
	State  string
	Since  time.Time
	Routes int
	Flaps  uint64
	BFD    string
}

// SessionStates are the states of a session (RFC 4271 section 8.2.2).
func SessionStates() []string {
	return []string{"idle", "connect", "active", "opensent", "openconfirm", "established"}
}

// Announcement is how a VIP stands, and the code that says why.
type Announcement struct {
	VIP         lb.VIP
	State, Code string
	Announced   bool
}

// Reloads is what became of the configuration file since the start.
type Reloads struct {
	Succeeded, Failed uint64
	// LastOK tells that the last one succeeded, or that there was none. At is when one last did, which at
	// first is the start.
	LastOK bool
	At     time.Time
}
