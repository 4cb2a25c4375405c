// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

// FlowEvent is something that happens at the flow table, and is counted. The numbers are those of
// enum flow_event in bpf/types.h; a test compares the two.
type FlowEvent uint8

// What happens at the flow table. docs/packet-path.md, section 5, says when.
const (
	// FlowHit is a packet of a known flow.
	FlowHit FlowEvent = iota
	// FlowHitStale is a packet of a remembered flow whose real may not receive any more, or is
	// another by now: the flow is not known.
	FlowHitStale
	// FlowBegan is a flow remembered as it began; with FlowAlways, also one that is met first in
	// its middle.
	FlowBegan
	// FlowTakenOld is an unknown flow of a moving slot, remembered at the previous real.
	FlowTakenOld
	// FlowTakenNew is an unknown flow of another slot, met in its middle and sent to the current
	// real.
	FlowTakenNew
	// FlowRefusedRate is a flow not remembered because too many were in this tick.
	FlowRefusedRate
	// FlowRefusedFull is one not remembered because its places hold flows that were seen again.
	FlowRefusedFull
	// FlowRefusedBusy is one not remembered because another CPU wrote its place this moment.
	FlowRefusedBusy
	// FlowEvicted is a flow forgotten to make room for another.
	FlowEvicted
	// FlowRepaired is a remembered flow that was given the real that its server id names.
	FlowRepaired

	// FlowEventLen is the number of events, not one of them.
	FlowEventLen
)

var flowEventNames = [FlowEventLen]string{
	"hit", "hit_stale", "began", "taken_old", "taken_new",
	"refused_rate", "refused_full", "refused_busy", "evicted", "repaired",
}

func (e FlowEvent) String() string {
	if e < FlowEventLen {
		return flowEventNames[e]
	}
	return "unknown"
}
