// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// hasAddr tells whether any VIP has the address, or any prefix of one holds it.
func (t *Tables) hasAddr(addr netip.Addr) bool {
	for vip := range t.VIPs {
		if vip.Prefix().Contains(addr) {
			return true
		}
	}
	return false
}

// findVIP is section 3: the VIP of the address and destination port, else of the longest prefix and that
// port, else of either with port 0. That of a fragment is known by now.
func (t *Tables) findVIP(p *packet) lb.Reason {
	if p.fragment {
		return undecided
	}
	for _, port := range []uint16{p.flow.DstPort, 0} {
		name, ok := t.longestVIP(p.flow.Dst, port, p.flow.Protocol)
		if !ok {
			continue
		}
		vip := t.VIPs[name]
		t.note("vip", "%s, a ring of %d slots, flow mode %s", name, len(vip.Ring), vip.Flows)
		p.meet(name, vip)
		return undecided
	}
	t.note("vip", "none has %s, %s", netip.AddrPortFrom(p.flow.Dst, p.flow.DstPort), p.flow.Protocol)
	return lb.ReasonNotVIP
}

// longestVIP is the VIP with this port and protocol that has the address, or else the longest prefix that
// holds it.
func (t *Tables) longestVIP(addr netip.Addr, port uint16, protocol lb.Protocol) (lb.VIP, bool) {
	for hostBits := range addr.BitLen() {
		prefix, _ := addr.Prefix(addr.BitLen() - hostBits) // which is as long as can be
		name := lb.VIP{Addr: prefix.Addr(), Port: port, Protocol: protocol, HostBits: uint8(hostBits)}
		if _, ok := t.VIPs[name]; ok {
			return name, true
		}
	}
	return lb.VIP{}, false
}

// meet makes the packet one of the VIP: its flow is named after it, and what chooses the slot and the
// entropy is what it is without options.
func (p *packet) meet(name lb.VIP, vip VIP) {
	p.vip = vip
	p.flow.HostBits = name.HostBits
	p.flow.ByPort0 = name.Port != p.flow.DstPort
	if p.byClient() {
		p.flow.SrcPort, p.flow.DstPort = 0, 0
		p.flow.ByPort0 = false // fragments are found otherwise than whole packets
	}
	p.hash = inputs{src: p.flow.Src, srcPort: p.flow.SrcPort, dstPort: p.flow.DstPort}
	p.entropy = inputs{src: p.flow.Src, srcPort: p.flow.SrcPort}
	if name.Port == 0 || name.IsPrefix() {
		p.hash.dstPort = 0
	}
}
