// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package probetunnel

import "fmt"

// Outcome is what became of a packet with a mark of the range: enum probe_outcome of
// bpf/probe_types.h. All but wrapped ones are dropped.
type Outcome uint8

// The outcomes. Their names are stable.
const (
	// Wrapped: sent on, its mark taken off.
	Wrapped Outcome = iota
	// NotIP: neither IPv4 nor IPv6.
	NotIP
	// NoReal: the mark names no real of the set.
	NoReal
	// NoNextHop: the real's link address is not known.
	NoNextHop
	// TooBig: longer than the way to the real takes.
	TooBig
	// NoRoom: the kernel had no room for the outer headers.
	NoRoom

	OutcomeLen
)

var outcomeNames = [OutcomeLen]string{"wrapped", "not_ip", "no_real", "no_next_hop", "too_big", "no_room"}

func (o Outcome) String() string {
	if o < OutcomeLen {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Counters are packets by outcome since New.
type Counters [OutcomeLen]uint64

// Counters reads the counters of all CPUs.
func (t *Tunnel) Counters() (Counters, error) {
	var c Counters
	for o := range OutcomeLen {
		var perCPU []uint64
		if err := t.objects.Outcomes.Lookup(uint32(o), &perCPU); err != nil {
			return Counters{}, fmt.Errorf("read counter of outcome %s: %v", o, err)
		}
		for _, n := range perCPU {
			c[o] += n
		}
	}
	return c, nil
}
