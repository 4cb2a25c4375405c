// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Flow is what VIP, real and entropy are chosen by, and the name of a flow in the flow table. That of
// a packet is seen from the client's side: of TCP and UDP it is the packet's own, of an ICMP error
// that of the packet that it quotes.
type Flow struct {
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Protocol         lb.Protocol
	// HostBits is that of the flow's VIP: how many of the address's last bits its prefix leaves free.
	HostBits uint8
	// ByPort0 tells that its VIP was found by port 0, and not by DstPort.
	ByPort0 bool
}

// reversed is the flow as the other side sees it.
func (f Flow) reversed() Flow {
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	return f
}

func (f Flow) String() string {
	return fmt.Sprintf("%s to %s, %s",
		netip.AddrPortFrom(f.Src, f.SrcPort), netip.AddrPortFrom(f.Dst, f.DstPort), f.Protocol)
}

// Entry is what is remembered of a flow.
type Entry struct {
	Real lb.RealID
	// Generation is that of the real's record when the flow was remembered; 0 if it had none.
	Generation uint8
	// Slot is the flow's slot within the ring of its VIP.
	Slot uint32
	// Seen tells that the flow was met again after it was remembered, by a packet that does not
	// begin it.
	Seen bool
	// Idle is how long ago the entry was used last.
	Idle time.Duration
}

// Flows is the flow table: exact, with a place for every flow, and without a clock. The zero value
// remembers no flow yet. Process only reads it; Apply makes the change that a packet calls for. A
// nil table is an empty one that cannot be changed.
type Flows struct {
	// Refuse, if not nil, tells that a flow cannot be remembered now, and why, by one of the events
	// for that. It is not asked for flows that have an entry: a new one takes its place.
	Refuse func(Flow) (why lb.FlowEvent, refused bool)

	entries map[Flow]Entry
}

// Get is the flow's entry, if it has one.
func (f *Flows) Get(flow Flow) (e Entry, ok bool) {
	if f == nil {
		return Entry{}, false
	}
	e, ok = f.entries[flow]
	return e, ok
}

// Set makes e the flow's entry.
func (f *Flows) Set(flow Flow, e Entry) {
	if f.entries == nil {
		f.entries = make(map[Flow]Entry)
	}
	f.entries[flow] = e
}

// Forget removes the flow's entry, if it has one.
func (f *Flows) Forget(flow Flow) { delete(f.entries, flow) }

// All is every flow and its entry, in no order.
func (f *Flows) All() iter.Seq2[Flow, Entry] {
	if f == nil {
		return maps.All(map[Flow]Entry(nil))
	}
	return maps.All(f.entries)
}

// Len is the number of flows.
func (f *Flows) Len() int {
	if f == nil {
		return 0
	}
	return len(f.entries)
}

// Pause lets time pass in which no packet comes.
func (f *Flows) Pause(d time.Duration) {
	for flow, e := range f.All() {
		e.Idle += d
		f.entries[flow] = e
	}
}

// Apply makes the change to the table that a packet calls for.
func (f *Flows) Apply(s FlowStep) {
	switch s.Change {
	case ChangeUse, ChangeRemember:
		f.Set(s.Flow, s.Entry)
	case ChangeForget:
		f.Forget(s.Flow)
	}
}

// refuses tells whether the flow cannot be remembered now.
func (f *Flows) refuses(flow Flow) (why lb.FlowEvent, refused bool) {
	if f == nil || f.Refuse == nil {
		return 0, false
	}
	if _, has := f.entries[flow]; has {
		return 0, false
	}
	return f.Refuse(flow)
}
