// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import "github.com/remora-lb/remora/lb"

// Reason is why the program ended for a frame: every frame has exactly one, and each is counted.
// The numbers are those of enum decap_reason in bpf/decap_types.h; a test compares the two.
type Reason uint32

// The reasons, in the order that gives their verdict: decapsulated, passed untouched, dropped.
const (
	// Decapsulated: the outer headers were taken off.
	Decapsulated Reason = iota

	// NotIP: neither IPv4 nor IPv6, with up to two VLAN tags in front.
	NotIP
	// OuterTruncated: the frame ends in the Ethernet, VLAN, outer IP or outer UDP header.
	OuterTruncated
	// OuterMalformed: the outer IP version or IPv4 header length contradicts itself.
	OuterMalformed
	// OuterExtension: an outer IPv6 extension header, which is not looked behind.
	OuterExtension
	// OuterFragment: a fragment that may be one of a tunnelled packet.
	OuterFragment
	// OtherProtocol: not IPIP and not UDP.
	OtherProtocol
	// OtherPort: UDP, but not to the GUE port.
	OtherPort
	// OtherAddress: a tunnel, but not to a tunnel address.
	OtherAddress
	// NotVIP: a tunnel to us, but the inner destination is not a VIP.
	NotVIP

	// OuterLength: the outer IP or UDP length contradicts the frame or its headers.
	OuterLength
	// InnerTruncated: the outer packet ends in the inner IP header.
	InnerTruncated
	// InnerVersion: the inner version is not what the outer protocol says; in GUE neither 4 nor 6.
	InnerVersion
	// InnerMalformed: the inner IPv4 header or total length is shorter than the header.
	InnerMalformed
	// InnerLength: the inner packet is longer than what the outer carries.
	InnerLength
	// ECN: congestion experienced on the way of a packet that cannot say so (RFC 6040).
	ECN
	// NotMoved: the kernel refused to move the frame's start.
	NotMoved

	// ReasonLen is the number of reasons, not one of them.
	ReasonLen
)

var reasonNames = [ReasonLen]string{
	"decapsulated",
	"not_ip", "outer_truncated", "outer_malformed", "outer_extension", "outer_fragment",
	"other_protocol", "other_port", "other_address", "not_vip",
	"outer_length", "inner_truncated", "inner_version", "inner_malformed", "inner_length", "ecn", "not_moved",
}

func (r Reason) String() string {
	if r < ReasonLen {
		return reasonNames[r]
	}
	return "unknown"
}

// Verdict is what becomes of every frame that ends for the reason.
func (r Reason) Verdict() lb.Verdict {
	if r >= OuterLength {
		return lb.Drop
	}
	return lb.Pass
}

// Kind is what was decapsulated: the tunnel, the inner and the outer family. The numbers are those
// of enum decap_kind in bpf/decap_types.h.
type Kind uint32

// The kinds; IPIP6in4 is IPv6 in IPv4.
const (
	IPIP4in4 Kind = iota
	IPIP6in4
	IPIP4in6
	IPIP6in6
	GUE4in4
	GUE6in4
	GUE4in6
	GUE6in6

	// KindLen is the number of kinds, not one of them.
	KindLen
)

var kindNames = [KindLen]string{
	"ipip_4in4", "ipip_6in4", "ipip_4in6", "ipip_6in6",
	"gue_4in4", "gue_6in4", "gue_4in6", "gue_6in6",
}

func (k Kind) String() string {
	if k < KindLen {
		return kindNames[k]
	}
	return "unknown"
}
