// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package lb

// RealID names a real in slots and counters. 0 is never valid; ids fit 30 bits.
type RealID uint32

// MaxRealID is the greatest id that a slot has room for.
const MaxRealID RealID = 1<<30 - 1

// Real is a backend of one VIP, as the data path knows it. There is one for each (VIP, backend,
// tunnel), so that counters, health and drains are per service.
type Real struct {
	ID      RealID
	VIP     VIP
	Backend Backend
	Tunnel  Tunnel
	NextHop NextHop
}

// RingID names a VIP's ring, from 0.
type RingID uint32

// VIPEntry is a VIP as the data path knows it.
type VIPEntry struct {
	VIP     VIP
	Service string
	RingID  RingID
	Ring    Ring
}

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

// Slot is one entry of a ring: the real that has it, the real that had it before the change in
// progress, and the state, in one word that is read and written at once. Bits 0 to 31 hold the
// current real, 32 to 61 the previous one, 62 and 63 the state; so a slot is stable exactly if its
// upper half is zero.
type Slot uint64

// StableSlot is a slot that id has, with no change in progress.
func StableSlot(id RealID) Slot { return Slot(id) }

// Cur is the real that the slot's new flows go to; 0 if none.
func (s Slot) Cur() RealID { return RealID(uint32(s)) }

// Stable tells that no packet of the slot needs the flow table.
func (s Slot) Stable() bool { return s>>32 == 0 }
