// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// hasAddr tells whether any VIP has the address.
func (t *Tables) hasAddr(addr netip.Addr) bool {
	for vip := range t.VIPs {
		if vip.Addr == addr {
			return true
		}
	}
	return false
}

// findVIP is section 3: the VIP of the destination port, else the one of all ports.
func (t *Tables) findVIP(p *packet) lb.Reason {
	for _, port := range []uint16{p.flow.dport, 0} {
		vip := lb.VIP{Addr: p.flow.dst, Port: port, Protocol: p.flow.protocol}
		if ring, ok := t.VIPs[vip]; ok {
			t.note("vip", "%s, a ring of %d slots", vip, len(ring))
			p.ring, p.hashPort = ring, port
			return undecided
		}
	}
	t.note("vip", "none has %s, %s", netip.AddrPortFrom(p.flow.dst, p.flow.dport), p.flow.protocol)
	return lb.ReasonNotVIP
}

// chooseReal is section 4: from the flow's hash to the slot's current real.
func (t *Tables) chooseReal(p *packet) lb.Reason {
	if len(p.ring) == 0 {
		return lb.ReasonRingEmpty
	}
	hash := maglev.FlowHash(p.flow.src, p.flow.sport, p.hashPort)
	index := maglev.SlotIndex(hash, uint32(len(p.ring)))
	p.realID = p.ring[index].Cur()
	t.note("ring", "hash %#08x, slot %d, real %d", hash, index, p.realID)
	if p.realID == 0 {
		return lb.ReasonRingEmpty
	}
	return undecided
}

// checkReal is section 5: whether the real can take the packet.
func (t *Tables) checkReal(p *packet) lb.Reason {
	found, ok := t.Reals[p.realID]
	if !ok {
		return lb.ReasonRealUnknown
	}
	p.real = found
	room := found.NextHop.MTU - found.Tunnel.OuterLen()
	t.note("real", "%s to %s, room for packets of %d bytes", found.Tunnel.Encap, found.Tunnel.Destination, room)
	if !found.NextHop.Resolved() {
		return lb.ReasonNextHopUnknown
	}
	if len(p.ip) > room {
		return lb.ReasonTooBig
	}
	return undecided
}
