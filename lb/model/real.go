// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/remora-lb/remora/lb"

// checkReal is section 6: whether the real can take the packet.
func (t *Tables) checkReal(p *packet) lb.Reason {
	found, ok := t.Reals[p.realID]
	if !ok {
		return lb.ReasonRealUnknown
	}
	p.real = found
	if found.Tunnel.Encap == lb.Local {
		t.note("real", "this machine")
		return lb.ReasonLocal
	}
	room := found.NextHop.MTU - found.Tunnel.OuterLen()
	t.note("real", "%s to %s, room for packets of %d bytes", found.Tunnel.Encap, found.Tunnel.Destination, room)
	if !found.NextHop.Resolved() {
		return lb.ReasonNextHopUnknown
	}
	if len(p.ip) > room {
		return t.tellTooBig(p, max(room, 0))
	}
	return undecided
}
