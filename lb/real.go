// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

import "strconv"

// RealID names a real in slots, flows and counters. 0 is never valid; ids fit 24 bits.
type RealID uint32

// MaxRealID is the greatest id that a remembered flow has room for.
const MaxRealID RealID = 1<<24 - 1

// Real is a backend of one VIP, as the data path knows it. There is one for each (VIP, backend,
// tunnel), so that counters, health and drains are per service.
type Real struct {
	ID      RealID
	VIP     VIP
	Backend Backend
	Tunnel  Tunnel
	NextHop NextHop
	Use     RealUse
	// Generation tells the holders of one id apart: a flow remembered for an earlier one is not
	// taken for the present one's.
	Generation uint8
}

// RealUse is which packets a real may get.
type RealUse uint8

// Which packets a real may get.
const (
	// RealActive gets new flows and its known ones. The zero value.
	RealActive RealUse = iota
	// RealDraining gets its known flows only.
	RealDraining
	// RealRetired gets nothing: its flows are given to others.
	RealRetired
)

func (u RealUse) String() string {
	switch u {
	case RealActive:
		return "active"
	case RealDraining:
		return "draining"
	case RealRetired:
		return "retired"
	}
	return "use " + strconv.Itoa(int(u))
}

// Receives tells whether packets of known flows may go to the real.
func (u RealUse) Receives() bool { return u != RealRetired }

// RingID names a VIP's ring, from 0.
type RingID uint32

// VIPEntry is a VIP as the data path knows it.
type VIPEntry struct {
	VIP     VIP
	Service string
	RingID  RingID
	Ring    Ring
	Flows   FlowMode
	Options Options
}

// FlowMode is when a VIP's flows are remembered, each with its real.
type FlowMode uint8

// When flows are remembered.
const (
	// FlowTransitions remembers flows while their slot changes. The zero value, for TCP.
	FlowTransitions FlowMode = iota
	// FlowAlways remembers all flows, as Katran does, until they pause for the whole window; those of
	// UDP until they pause for 30 s.
	FlowAlways
	// FlowNever remembers no flow: each packet goes where the present ring says.
	FlowNever
	// FlowQUIC is FlowTransitions for UDP: an Initial or 0-RTT packet begins a flow, as SYN does.
	FlowQUIC
)

func (m FlowMode) String() string {
	switch m {
	case FlowTransitions:
		return "transitions"
	case FlowAlways:
		return "always"
	case FlowNever:
		return "never"
	case FlowQUIC:
		return "quic"
	}
	return "mode " + strconv.Itoa(int(m))
}

// HasTransitions tells whether a change of the ring moves no known flow.
func (m FlowMode) HasTransitions() bool { return m == FlowTransitions || m == FlowQUIC }

// RingHash is the way a ring is filled from weighted backends.
type RingHash uint8

const (
	// MaglevV2 gives exact proportions for any weights. The default.
	MaglevV2 RingHash = iota
	// MaglevV1 honours weights only where their sum is near the ring's size, as Katran's first
	// version does.
	MaglevV1
)

func (h RingHash) String() string {
	if h == MaglevV1 {
		return "maglev-v1"
	}
	return "maglev-v2"
}

// Ring says what a VIP's ring looks like.
type Ring struct {
	// Size is the number of slots, a prime.
	Size uint32
	Hash RingHash
}

// DefaultRingSize is Katran's ring size. A flow's slot is then its hash modulo the size; in a
// ring of any other size it is hash * size >> 32.
const DefaultRingSize = 65537

// MaxRingSize is the greatest prime that the 20 bits for a ring's size in a VIP's record hold.
const MaxRingSize = 1048573

// Slot is one entry of a ring: the real that has it, the real that had it before the changes in
// progress, and the state, in one word that is read and written at once. Bits 0 to 31 hold the
// current real, 32 to 61 the previous one, 62 and 63 the state; so a slot is stable exactly if its
// upper half is zero.
type Slot uint64

// SlotState says what becomes of packets of flows that are not new, and whether flows are
// remembered: docs/packet-path.md, section 5.
type SlotState uint8

// The states of a slot.
const (
	// SlotStable needs no look at the flows.
	SlotStable SlotState = iota
	// SlotMoving had another real at the beginning of the window, which has its flows still.
	SlotMoving
	// SlotSettling had another real for some time within the window.
	SlotSettling
	// SlotLingering had none within the window, but flows of another real may be remembered.
	SlotLingering
	SlotStateLen
)

func (s SlotState) String() string {
	switch s {
	case SlotStable:
		return "stable"
	case SlotMoving:
		return "moving"
	case SlotSettling:
		return "settling"
	case SlotLingering:
		return "lingering"
	}
	return "state " + strconv.Itoa(int(s))
}

const slotStateShift = 62

// StableSlot is a slot that id has, with no change in progress.
func StableSlot(id RealID) Slot { return Slot(id) }

// MovingSlot is a slot whose unknown flows go to prev, all new ones to cur.
func MovingSlot(cur, prev RealID) Slot {
	return Slot(cur) | Slot(prev)<<32 | Slot(SlotMoving)<<slotStateShift
}

// SettlingSlot is a slot that remembers flows, all at cur but those known to be elsewhere.
func SettlingSlot(cur RealID) Slot { return Slot(cur) | Slot(SlotSettling)<<slotStateShift }

// LingeringSlot is a slot that remembers no further flow.
func LingeringSlot(cur RealID) Slot { return Slot(cur) | Slot(SlotLingering)<<slotStateShift }

// Cur is the real that the slot's new flows go to; 0 if none.
func (s Slot) Cur() RealID { return RealID(uint32(s)) }

// Prev is the real that a moving slot's unknown flows go to; 0 in other states.
func (s Slot) Prev() RealID { return RealID(s>>32) & (1<<30 - 1) }

// State is the slot's state.
func (s Slot) State() SlotState { return SlotState(s >> slotStateShift) }

// Stable tells that no packet of the slot needs the flow table.
func (s Slot) Stable() bool { return s>>32 == 0 }
