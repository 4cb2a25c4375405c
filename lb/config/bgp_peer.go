// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"time"
)

// checkPeer reads a peer.
func checkPeer(s bgpPeerSection, b *BGP, r *report) BGPPeer {
	if !s.address.given {
		r.add(s.field("address"), "missing: expected the address of a router, such as 10.0.0.1")
	}
	address, ok := checkBGPAddress(s.address, r)
	p := BGPPeer{
		Address:         address,
		ASN:             uint32(required(r, s.place, "asn", s.asn, "the AS number of the router", 1, maxASN)),
		Port:            uint16(within(r, s.port, 1, 65535, 179)),
		Passive:         s.passive.value,
		MultihopTTL:     uint8(within(r, s.multihopTTL, 2, 255, 0)),
		TTLSecurityHops: uint8(within(r, s.ttlSecurityHops, 1, 254, 0)),
		PasswordFile:    s.passwordFile.value,
		ConnectRetry:    wholeSeconds(r, s.connectRetry, time.Second, time.Hour, 5*time.Second),
		Idle:            wholeSeconds(r, s.idle, time.Second, time.Hour, 5*time.Second),
		Only:            checkOnly(s.only, r),
		NextHop4:        checkBGPFamily(s.nextHop4, "IPv4", r),
		NextHop6:        checkBGPFamily(s.nextHop6, "IPv6", r),
		ExtendedNextHop: s.extendedNextHop.value,
		BFD:             s.bfd.given,
		BFDInterval:     duration(r, s.bfd.interval, 10*time.Millisecond, time.Minute, 300*time.Millisecond),
		BFDMultiplier:   uint8(within(r, s.bfd.multiplier, 1, 255, 3)),
	}
	p.checkTimers(s, r)
	if s.passwordFile.ok && s.passwordFile.value == "" {
		r.add(s.passwordFile.place, "the path is empty: expected a file that holds the TCP MD5 key")
	}
	if p.Passive && b.Port == 0 {
		r.add(s.passive.place, "nothing listens: expected bgp.listen.port beside it")
	}
	if ok {
		p.checkFamilies(s, r)
		p.checkLink(s, b, r)
	}
	return p
}

func (p *BGPPeer) checkTimers(s bgpPeerSection, r *report) {
	p.Hold = wholeSeconds(r, s.hold, 3*time.Second, 65535*time.Second, 9*time.Second)
	p.Keepalive = wholeSeconds(r, s.keepalive, time.Second, 65534*time.Second, 0)
	if p.Keepalive >= p.Hold {
		r.add(s.keepalive.place, "%s is not less than the hold time of %s", quote(s.keepalive.text), showDuration(p.Hold))
	}
}

func checkOnly(l list[field[string]], r *report) (prefixes []netip.Prefix) {
	for _, f := range l.items {
		if p, ok := checkClaimedPrefix(f, r); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// checkFamilies reads which routes the peer is sent, and whether there are next hops for them.
func (p *BGPPeer) checkFamilies(s bgpPeerSection, r *report) {
	p.IPv4, p.IPv6 = p.Address.Is4() && !s.families.given, p.Address.Is6() && !s.families.given
	for _, f := range s.families.items {
		switch choose(r, f, "", choice[string]{"ipv4", "ipv4"}, choice[string]{"ipv6", "ipv6"}) {
		case "ipv4":
			p.IPv4 = true
		case "ipv6":
			p.IPv6 = true
		}
	}
	if s.families.ok && len(s.families.items) == 0 {
		r.add(s.families.place, "empty: expected ipv4, ipv6 or both")
	}
	if p.Address.Is4() {
		if p.IPv6 && !s.nextHop6.given {
			r.add(s.field("next_hop_ipv6"), "missing: IPv6 routes over an IPv4 session need it")
		}
		if p.ExtendedNextHop {
			r.add(s.extendedNextHop.place, "this is for sessions over IPv6, and %s is an IPv4 address", p.Address)
		}
		return
	}
	if p.IPv4 && !s.nextHop4.given && !p.ExtendedNextHop {
		r.add(s.field("next_hop_ipv4"), "missing: IPv4 routes over an IPv6 session need it, or extended_next_hop: true")
	}
	if s.nextHop4.given && p.ExtendedNextHop {
		r.add(s.extendedNextHop.place, "next_hop_ipv4 (line %d) is there, too: expected one of both", s.nextHop4.line)
	}
}

// checkLink checks what depends on where the peer is.
func (p *BGPPeer) checkLink(s bgpPeerSection, b *BGP, r *report) {
	if p.Source = checkBGPFamily(s.source, family(p.Address), r); p.MultihopTTL == 0 {
		return
	}
	switch at := s.multihopTTL.place; {
	case p.ASN == b.ASN && s.asn.ok:
		r.add(at, "this is for routers of another AS: packets to those of the own pass routers anyway")
	case p.TTLSecurityHops != 0:
		r.add(at, "ttl_security_hops (line %d) is there, too: expected one of both", s.ttlSecurityHops.line)
	case p.BFD:
		r.add(at, "bfd (line %d) is there, too, which works on the link only: expected one of both", s.bfd.line)
	}
}
