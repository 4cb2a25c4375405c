// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// why is the reason in a sentence.
func (w *World) why(r *Report, run *run) string {
	switch reason := run.result.Reason; reason {
	case lb.ReasonForwarded, lb.ReasonLocal:
		return r.chosen(run)
	case lb.ReasonNotVIP:
		return r.whyNoVIP()
	case lb.ReasonRingEmpty:
		return fmt.Sprintf("%s has no backend that gets new connections: its ring is empty", r.VIP.VIP)
	case lb.ReasonRealUnknown:
		return fmt.Sprintf("the slot names real %d, which has no record", run.result.Real)
	case lb.ReasonNextHopUnknown:
		return fmt.Sprintf("no link address is known for %s: %s", r.Real.Address, r.Real.NextHopProblem)
	case lb.ReasonTooBig, lb.ReasonTooBigTold:
		told := "nobody is told"
		if reason == lb.ReasonTooBigTold {
			told = "the sender is told"
		}
		return fmt.Sprintf("the packet has %d bytes, and %d fit to %s: an MTU of %d less the outer headers; %s",
			r.Real.Length, r.Real.Room, r.Real.Address, r.Real.MTU, told)
	default:
		return plainWhy[reason]
	}
}

// plainWhy are the sentences that need no names.
var plainWhy = map[lb.Reason]string{
	lb.ReasonTruncated:      "the frame ends before its headers do",
	lb.ReasonMalformed:      "a header contradicts itself",
	lb.ReasonFragment:       "fragments to this VIP are dropped (option fragments)",
	lb.ReasonNotIP:          "the frame is neither IPv4 nor IPv6",
	lb.ReasonOtherProtocol:  "neither TCP nor UDP, so it is left to the host",
	lb.ReasonICMP:           "ICMP that no VIP answers and that is about no connection, so it is left to the host",
	lb.ReasonIPv6Extension:  "IPv6 extension headers that are not read, so it is left to the host",
	lb.ReasonEchoAnswered:   "an echo request to a VIP's address, which the balancer answers",
	lb.ReasonEchoLimited:    "more echo requests than are answered in a second",
	lb.ReasonTTLExpired:     "the inner packet's TTL or hop limit is used up",
	lb.ReasonDecapsulated:   "a tunnelled packet, unwrapped for the host",
	lb.ReasonDecapSent:      "a tunnelled packet, unwrapped and sent back out",
	lb.ReasonFragmentPassed: "fragments to this VIP are left to the host (option fragments)",
}

func (r *Report) whyNoVIP() string {
	if len(r.Nearest) == 0 {
		return "no VIP has this address, port and protocol, so it is left to the host"
	}
	n := r.Nearest[0]
	return fmt.Sprintf("no VIP has this address, port and protocol; the nearest is %s: %s", n.VIP, n.Missed)
}

// chosen says by what the real was chosen.
func (r *Report) chosen(run *run) string {
	to := fmt.Sprintf("%s of %s", r.Real.Address, r.Real.VIP)
	if run.ledBy("server id") {
		return fmt.Sprintf("the packet names its server, which leads to %s", to)
	}
	if run.ledBy("source route") && !r.Flow.Asked {
		return fmt.Sprintf("source route %s leads to %s", run.route.Prefix, to)
	}
	switch f, s := r.Flow, r.Slot; {
	case !f.Asked:
		return fmt.Sprintf("slot %d is stable at %s", s.Slot, to)
	case f.Found && f.Real != nil && f.Change == "use":
		return fmt.Sprintf("the flow is remembered at %s", to)
	case f.Found && f.Real != nil && f.Real.ID == r.Real.ID:
		return fmt.Sprintf("the flow goes to %s, where it is remembered", to)
	case s.Previous != nil && s.Previous.ID == r.Real.ID:
		return fmt.Sprintf("slot %d moves, and a connection that is not known is older than the move: it stays at %s", s.Slot, to)
	case s.State == lb.SlotMoving.String():
		return fmt.Sprintf("slot %d moves, and new connections go to %s already", s.Slot, to)
	case s.Current != nil && s.Current.ID == r.Real.ID:
		return fmt.Sprintf("slot %d is %s, and gives this packet to %s", s.Slot, s.State, to)
	}
	return fmt.Sprintf("the packet goes to %s", to)
}

// ledBy tells whether a step of this name led to a real, and not to none.
func (run *run) ledBy(step string) bool {
	for _, s := range run.steps {
		if s.Name == step && strings.Contains(s.Text, ", real ") {
			return true
		}
	}
	return false
}
