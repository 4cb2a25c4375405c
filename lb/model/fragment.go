// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import "github.com/remora-lb/remora/lb"

// parseFragment is section 3.1: what becomes of a fragment is up to the VIP of its address and protocol,
// if the address has any. One whose VIP goes by client goes on without ports.
func (t *Tables) parseFragment(p *packet) lb.Reason {
	p.fragment = true
	t.note("parse", "a fragment from %s to %s, protocol %d", p.src, p.dst, p.protocol)
	if !t.hasAddr(p.dst) {
		return lb.ReasonNotVIP
	}
	name, ok := t.vipOfFragment(p)
	switch vip := t.VIPs[name]; {
	case ok && vip.Options.Fragments == lb.FragmentsPass:
		return lb.ReasonFragmentPassed
	case ok && vip.Options.Fragments == lb.FragmentsByClient:
		t.note("vip", "%s, a ring of %d slots, flow mode %s, by client", name, len(vip.Ring), vip.Flows)
		p.flow = Flow{Src: p.src, Dst: p.dst, Protocol: lb.Protocol(p.protocol)}
		p.meet(name, vip)
		return undecided
	}
	return lb.ReasonFragment
}

// vipOfFragment is a VIP with the fragment's address, which is no prefix, and its protocol. There is
// none if there are several that do not all pass fragments: then fragments drop.
func (t *Tables) vipOfFragment(p *packet) (name lb.VIP, ok bool) {
	for of, vip := range t.VIPs {
		if of.IsPrefix() || of.Addr != p.dst || uint8(of.Protocol) != p.protocol {
			continue
		}
		if ok && (t.VIPs[name].Options.Fragments != lb.FragmentsPass || vip.Options.Fragments != lb.FragmentsPass) {
			return lb.VIP{}, false
		}
		name, ok = of, true
	}
	return name, ok
}
