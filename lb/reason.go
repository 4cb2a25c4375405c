// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

// Verdict is what becomes of a packet, by the numbers of enum xdp_action (linux/bpf.h).
type Verdict uint32

// The verdicts that the packet program gives.
const (
	Drop Verdict = 1
	Pass Verdict = 2
	TX   Verdict = 3
)

func (v Verdict) String() string {
	switch v {
	case Drop:
		return "drop"
	case Pass:
		return "pass"
	case TX:
		return "tx"
	}
	return "aborted"
}

// Reason is why the packet program ended as it did: every packet has exactly one, and each is
// counted. The numbers are those of enum reason in bpf/types.h; a test compares the two.
type Reason uint32

// The reasons, in the order that gives their verdict: sent, dropped, passed, answered.
// docs/packet-path.md says when each is given.
const (
	ReasonForwarded Reason = iota

	ReasonTruncated
	ReasonMalformed
	ReasonFragment
	ReasonRingEmpty
	ReasonRealUnknown
	ReasonNextHopUnknown
	ReasonTooBig
	ReasonNoRoom

	ReasonNotIP
	ReasonNotVIP
	ReasonOtherProtocol
	ReasonICMP
	ReasonIPv6Extension

	ReasonEchoAnswered
	ReasonTooBigTold
	ReasonDecapSent

	// Dropped again, and passed: numbers stay when reasons are added.
	ReasonTTLExpired
	ReasonEchoLimited

	ReasonLocal
	ReasonDecapsulated
	ReasonFragmentPassed

	// ReasonLen is the number of reasons, not one of them.
	ReasonLen
)

var reasonNames = [ReasonLen]string{
	"forwarded",
	"truncated", "malformed", "fragment", "ring_empty", "real_unknown", "nexthop_unknown", "too_big", "no_room",
	"not_ip", "not_vip", "other_protocol", "icmp", "ipv6_extension",
	"echo_answered", "too_big_told", "decap_sent",
	"ttl_expired", "echo_limited",
	"local", "decapsulated", "fragment_passed",
}

func (r Reason) String() string {
	if r < ReasonLen {
		return reasonNames[r]
	}
	return "unknown"
}

// Verdict is what becomes of every packet that ends for the reason.
func (r Reason) Verdict() Verdict {
	switch {
	case r == ReasonForwarded, r >= ReasonEchoAnswered && r <= ReasonDecapSent:
		return TX
	case r >= ReasonNotIP && r < ReasonEchoAnswered, r >= ReasonLocal:
		return Pass
	}
	return Drop
}
