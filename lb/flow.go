// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import "time"

// Flow is a connection that the data path remembers, with the real that has it.
type Flow struct {
	// Tag names the connection: a hash of addresses, ports and protocol, and of whether its VIP is
	// one of all ports; 55 bits, never 0. It is the same on every balancer.
	Tag  uint64
	Real RealID
	// Generation is that of the real's id when the flow was remembered.
	Generation uint8
	// Slot is the flow's slot within the ring of its VIP.
	Slot uint32
	// Idle is how long ago its last packet was, to about a second; Seen, whether it was met again
	// after it was remembered, by a packet that does not begin it. What was seen is not pushed out.
	Idle time.Duration
	Seen bool
}
