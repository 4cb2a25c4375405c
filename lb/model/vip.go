// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
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
	for _, port := range []uint16{p.flow.DstPort, 0} {
		name := lb.VIP{Addr: p.flow.Dst, Port: port, Protocol: p.flow.Protocol}
		if vip, ok := t.VIPs[name]; ok {
			t.note("vip", "%s, a ring of %d slots, flow mode %s", name, len(vip.Ring), vip.Flows)
			p.vip, p.hashPort = vip, port
			return undecided
		}
	}
	t.note("vip", "none has %s, %s", netip.AddrPortFrom(p.flow.Dst, p.flow.DstPort), p.flow.Protocol)
	return lb.ReasonNotVIP
}
