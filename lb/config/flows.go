// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"time"

	"github.com/remora-lb/remora/lb"
)

// FlowTable is how flows are remembered, for all VIPs together.
type FlowTable struct {
	// Window is for how long a change of a ring is remembered: a flow that pauses for longer is taken
	// for new. 1 minute to 1 day; default 15 minutes.
	Window time.Duration
	// Size is how many flows are remembered at most. 1024 to 1<<28; default 1<<20. One takes 16 bytes.
	Size int
	// NewPerSecond is how many flows each CPU remembers anew in a second, to about a fifth more or
	// less. 1 to 1<<30; default 125 000.
	NewPerSecond int
	// UDPIdle is the pause after which a UDP flow of a VIP that remembers all flows is new. 1 second
	// to 1 day; default 30 seconds.
	UDPIdle time.Duration
}

// DefaultFlowTable is the one with all defaults.
func DefaultFlowTable() FlowTable {
	return FlowTable{Window: 15 * time.Minute, Size: 1 << 20, NewPerSecond: 125_000, UDPIdle: 30 * time.Second}
}

func checkFlowTable(s flowTableSection, r *report) FlowTable {
	def := DefaultFlowTable()
	return FlowTable{
		Window:       duration(r, s.window, time.Minute, 24*time.Hour, def.Window),
		Size:         int(within(r, s.size, 1024, 1<<28, int64(def.Size))),
		NewPerSecond: int(within(r, s.newPerTick, 1, 1<<30, int64(def.NewPerSecond))),
		UDPIdle:      duration(r, s.udpIdle, time.Second, 24*time.Hour, def.UDPIdle),
	}
}

// flowRules are what becomes of flows when rings change, for VIPs of either protocol.
type flowRules struct {
	tcp, udp lb.FlowMode
	drain    time.Duration
	rehash   bool
	grace    time.Duration
}

func defaultFlowRules() flowRules {
	leave := lb.DefaultLeave()
	return flowRules{tcp: lb.FlowTransitions, udp: lb.FlowNever, drain: leave.Drain, grace: leave.Grace}
}

// of is what the rules say for a VIP of the protocol.
func (f flowRules) of(p lb.Protocol) (lb.FlowMode, lb.Leave) {
	leave := lb.Leave{Drain: f.drain, Grace: f.grace}
	if f.rehash {
		leave.Grace = 0
	}
	if p == lb.UDP {
		return f.udp, leave
	}
	return f.tcp, leave
}

// maxLeave is the longest that a backend may keep its flows.
const maxLeave = 30 * 24 * time.Hour

// checkFlows reads rules; what the section does not say is as in def.
func checkFlows(s flowsSection, def flowRules, r *report) flowRules {
	return flowRules{
		tcp: choose(r, s.tcp, def.tcp, choice[lb.FlowMode]{"transitions", lb.FlowTransitions},
			choice[lb.FlowMode]{"always", lb.FlowAlways}, choice[lb.FlowMode]{"never", lb.FlowNever}),
		udp: choose(r, s.udp, def.udp, choice[lb.FlowMode]{"stateless", lb.FlowNever},
			choice[lb.FlowMode]{"sticky", lb.FlowAlways}, choice[lb.FlowMode]{"quic", lb.FlowQUIC}),
		drain:  duration(r, s.drain, 0, maxLeave, def.drain),
		rehash: choose(r, s.onDown, def.rehash, choice[bool]{"keep", false}, choice[bool]{"rehash", true}),
		grace:  duration(r, s.grace, 0, maxLeave, def.grace),
	}
}
