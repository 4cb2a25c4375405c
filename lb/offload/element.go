// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
)

// Element is one element of a card's map.
type Element struct {
	Map        string
	Key, Value []byte
}

// The layouts are those of bpf/card_types.h. Words are little-endian, as the program reads them, also
// where they are made of a packet's bytes.
var order = binary.LittleEndian

// realBytes is CARD_REAL_BYTES.
const realBytes = 56

// RealElement is the record of a real. That of one that a card cannot send to, as of one with nothing but
// an id, is all zero, so that its packets pass up to the host.
func RealElement(r lb.Real) (Element, error) {
	e := Element{Map: mapReals, Key: order.AppendUint32(nil, uint32(r.ID)), Value: make([]byte, realBytes)}
	if r.ID == 0 || r.ID > lb.MaxRealID {
		return Element{}, fmt.Errorf("lay out real %d: ids are from 1 to %d", r.ID, lb.MaxRealID)
	}
	if !sendable(r) {
		return e, nil
	}
	record, err := dataplane.Record(r)
	copy(e.Value, record[:])
	return e, err
}

// sendable tells whether the card can send to a real: it has a next hop, and no outer checksum to compute.
func sendable(r lb.Real) bool {
	encap := r.Tunnel.Encap == lb.IPIP || r.Tunnel.Encap == lb.GUE && !r.Tunnel.Checksum
	return encap && r.NextHop.Resolved()
}

// RingElements are the slots of a ring, from first on: a multiple of SlotsPerElement. Slots that are not
// stable are written as 0, which passes their packets up to the host.
func RingElements(first uint32, slots []lb.Slot) ([]Element, error) {
	if first%SlotsPerElement != 0 || uint64(first)+uint64(len(slots)) > maxRingSlots {
		return nil, fmt.Errorf("lay out a ring of %d slots at %d: expected a multiple of %d, and an end of at most %d",
			len(slots), first, SlotsPerElement, int64(maxRingSlots))
	}
	elements := make([]Element, 0, (len(slots)+SlotsPerElement-1)/SlotsPerElement)
	for at := 0; at < len(slots); at += SlotsPerElement {
		elements = append(elements, slotsElement(first/SlotsPerElement+uint32(at/SlotsPerElement), slots[at:min(at+SlotsPerElement, len(slots))]))
	}
	return elements, nil
}

func slotsElement(index uint32, slots []lb.Slot) Element {
	value := make([]byte, 4*SlotsPerElement)
	for i, s := range slots {
		if s.Stable() {
			order.PutUint32(value[4*i:], uint32(s.Cur()))
		}
	}
	return Element{Map: mapRings, Key: order.AppendUint32(nil, index), Value: value}
}

// A VIP's word: types.h.
const (
	vipSizeShift  = 32
	vipFlagsShift = 52
	// vipPasses is a flag: the card only wants to know that there is one.
	vipPasses = 1
)

// VIPElement is a VIP whose ring begins at first.
func VIPElement(v lb.VIPEntry, first uint32) (Element, error) {
	if v.Ring.Size == 0 || v.Ring.Size > lb.MaxRingSize {
		return Element{}, fmt.Errorf("lay out VIP %s: its ring has %d slots, expected 1 to %d", v.VIP, v.Ring.Size, lb.MaxRingSize)
	}
	return vipElement(v.VIP, uint64(first)|uint64(v.Ring.Size)<<vipSizeShift), nil
}

// PassingVIPElement is a VIP whose packets pass up to the host. It may not be left out instead, or the VIP
// of all ports of its address would get them.
func PassingVIPElement(v lb.VIP) Element { return vipElement(v, vipPasses<<vipFlagsShift) }

func vipElement(v lb.VIP, word uint64) Element {
	e := Element{Map: mapVIPs6, Key: vipKey(v), Value: order.AppendUint64(nil, word)}
	if v.Addr.Is4() {
		e.Map = mapVIPs4
	}
	return e
}

// vipKey is address, port and protocol as they stand in a packet; of IPv4 in one word, of IPv6 in three.
func vipKey(v lb.VIP) []byte {
	key := v.Addr.AsSlice()
	key = binary.BigEndian.AppendUint16(key, v.Port)
	key = append(key, byte(v.Protocol), 0)
	if v.Addr.Is6() {
		key = append(key, 0, 0, 0, 0)
	}
	return key
}

// OnCard tells whether the card can send packets of a VIP, which is one of all. It cannot if every flow is
// remembered, or if anything is asked for that is not named here; and for all ports of an address, if
// there is a prefix around it with a port, which would come first.
func OnCard(v lb.VIPEntry, all []lb.VIPEntry) bool {
	named := lb.VIPEntry{VIP: v.VIP, Service: v.Service, RingID: v.RingID, Ring: v.Ring, Flows: v.Flows}
	if v.VIP.IsPrefix() || v.Flows == lb.FlowAlways || !reflect.DeepEqual(v, named) {
		return false
	}
	return v.VIP.Port != 0 || !slices.ContainsFunc(all, func(p lb.VIPEntry) bool {
		return p.VIP.IsPrefix() && p.VIP.Port != 0 && p.VIP.Protocol == v.VIP.Protocol && p.VIP.Prefix().Contains(v.VIP.Addr)
	})
}
