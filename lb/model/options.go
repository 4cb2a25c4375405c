// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// chooseInputs is section 3.2, hash inputs: what of the packet chooses slot and entropy. The flow's name
// stays.
func (t *Tables) chooseInputs(p *packet) lb.Reason {
	option := p.vip.Options.Hash
	if option == (lb.HashInput{}) {
		return undecided
	}
	if option.KeepDestinationPort || option.DestinationPortOnly {
		p.hash.dstPort = p.flow.DstPort
	}
	if option.NoSourcePort {
		p.hash.srcPort, p.entropy.srcPort = 0, 0
	}
	if option.DestinationPortOnly {
		nobody := zeroAddr(p.isIPv6())
		p.hash.src, p.hash.srcPort = nobody, p.flow.DstPort
		p.entropy.src = nobody
	}
	t.note("hash", "of %s, ports %d and %d", p.hash.src, p.hash.srcPort, p.hash.dstPort)
	return undecided
}

func zeroAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// routeSource is section 3.2, source routes: the client's prefix may choose the real of a packet that is
// not led, in the slot's place.
func (t *Tables) routeSource(p *packet) lb.Reason {
	if !p.vip.Options.SourceRoutes || p.led != notLed {
		return undecided
	}
	prefix, ok := t.sourceRoute(p.flow.Src)
	if !ok {
		t.note("source route", "none for %s", p.flow.Src)
		return undecided
	}
	backend := t.SourceRoutes[prefix]
	real := p.vip.Routes[backend]
	if r, ok := t.Reals[real]; !ok || r.Use != lb.RealActive {
		t.note("source route", "%s to %s, which is no active real here", prefix, backend)
		return undecided
	}
	t.note("source route", "%s to %s, real %d", prefix, backend, real)
	p.slot = lb.StableSlot(real)
	return undecided
}

// sourceRoute is the longest prefix with a route that holds the client's address.
func (t *Tables) sourceRoute(client netip.Addr) (netip.Prefix, bool) {
	for bits := client.BitLen(); bits >= 0; bits-- {
		prefix, _ := client.Prefix(bits) // which is as long as can be
		if _, ok := t.SourceRoutes[prefix]; ok {
			return prefix, true
		}
	}
	return netip.Prefix{}, false
}
