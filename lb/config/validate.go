// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"strings"
	"unicode"

	"github.com/remora-lb/remora/lb"
)

const (
	// maxInterfaceLen is IFNAMSIZ - 1 (linux/if.h).
	maxInterfaceLen = 15
	// minMTU is what every IPv4 host must take (RFC 791); maxMTU what a length field can say.
	minMTU = 576
	maxMTU = 65535
)

// validate makes a Config of a document: it fills in defaults and reports what is missing and
// every value that makes no sense. It depends on the document alone. The Config is of use only if
// nothing was reported.
func validate(doc document, r *report) *Config {
	c := &Config{
		Interface: checkInterface(doc, r),
		Mode: choose(r, doc.mode, ModeAuto,
			choice[Mode]{"auto", ModeAuto}, choice[Mode]{"native", ModeNative}, choice[Mode]{"generic", ModeGeneric}),
		OnExit: choose(r, doc.onExit, OnExitKeep,
			choice[OnExit]{"keep", OnExitKeep}, choice[OnExit]{"detach", OnExitDetach}),
		NextHop:  checkNextHop(doc.nextHop, r),
		Table:    checkFlowTable(doc.table, r),
		Consul:   checkConsul(doc.consul, r),
		Governor: checkGovernor(doc.governor, r),
		BGP:      checkBGP(doc.bgp, r),

		ProbeMarks: checkProbes(doc.probes, r),
		Metrics:    checkMetrics(doc.metrics, r),

		SourceRoutes:     checkSourceRoutes(doc.routes, r),
		Decap:            checkDecap(doc.decap, r),
		QUICLB:           checkQUICLB(doc.quicLB, r),
		AnswersPerSecond: int(within(r, doc.icmp.answers, 1, 1<<30, DefaultAnswersPerSecond)),
	}
	s := newServices(doc, r)
	for _, section := range doc.services.items {
		if section.ok {
			s.gather(section)
		}
	}
	s.placeRoutes(doc.routes)
	s.checkBackendsAreNotVIPs()
	s.checkSources()
	s.checkFragments()
	if !doc.services.given {
		r.add(doc.field("services"), "missing: expected a list of services, or [] for none")
	}
	c.Services, c.Backends, c.Sources, c.Health = s.services, s.backends, s.sources, s.health
	if c.BGP != nil && c.BGP.Announce.FleetGuard && c.Consul.Register == nil {
		r.add(doc.bgp.announce.fleetGuard.place, "consul needs consul.register: that is how balancers know of each other")
	}
	if c.BGP == nil && c.Consul.DrainLimit != nil {
		r.add(doc.consul.drainLimit.place, "needs bgp: without it a balancer cannot be drained")
	}
	if len(c.Consul.Claims) > 0 || c.Consul.Definitions != nil {
		c.Consul.TCP, c.Consul.UDP = s.claimed(lb.TCP), s.claimed(lb.UDP)
	}
	c.doc = &doc
	return c
}

func checkInterface(doc document, r *report) string {
	f := doc.iface
	if !f.given {
		r.add(doc.field("interface"), "missing: expected the network interface where packets come in and go out, such as eth0")
		return ""
	}
	forbidden := func(c rune) bool { return c == '/' || c == ':' || unicode.IsSpace(c) || !unicode.IsPrint(c) }
	bad := f.value == "" || f.value == "." || f.value == ".." || len(f.value) > maxInterfaceLen || strings.ContainsFunc(f.value, forbidden)
	if f.ok && bad {
		r.add(f.place, "%s is not an interface name: expected 1 to %d bytes without spaces, slashes and colons", quote(f.text), maxInterfaceLen)
	}
	return f.value
}

func checkNextHop(s nextHopSection, r *report) *lb.NextHop {
	if !s.given {
		return nil
	}
	h := &lb.NextHop{MTU: int(within(r, s.mtu, minMTU, maxMTU, 0))}
	if !s.mac.given {
		r.add(s.field("mac"), "missing: expected the MAC address of the next hop")
	}
	if s.mac.ok {
		h.MAC = checkMAC(s.mac, r)
	}
	return h
}

func checkMAC(f field[string], r *report) (mac [6]byte) {
	const want = "expected the address of one interface, such as 02:00:00:00:00:fe"
	parsed, err := net.ParseMAC(f.value)
	switch {
	case err != nil || len(parsed) != len(mac):
		r.add(f.place, "%s is not a MAC address: %s", quote(f.text), want)
		return mac
	case [6]byte(parsed) == [6]byte{}:
		r.add(f.place, "the MAC address %s is zero: %s", quote(f.text), want)
	case parsed[0]&1 != 0: // the group bit, IEEE 802
		r.add(f.place, "the MAC address %s is multicast: %s", quote(f.text), want)
	}
	return [6]byte(parsed)
}

// checkTunnel gives the sources of all tunnels and the default encapsulation.
func checkTunnel(s encapSection, r *report) (lb.TunnelSources, lb.Encap) {
	t := lb.DefaultTunnelSources()
	t.IPIP4 = checkPrefix(s.ipip.source4, t.IPIP4, r)
	t.IPIP6 = checkPrefix(s.ipip.source6, t.IPIP6, r)
	t.GUE4 = checkSource(s.gue.source4, "IPv4", r)
	t.GUE6 = checkSource(s.gue.source6, "IPv6", r)
	t.GUEPort = uint16(within(r, s.gue.port, 1, 65535, int64(t.GUEPort)))
	t.GUEChecksum = choose(r, s.gue.checksum, t.GUEChecksum, choice[bool]{"zero", false}, choice[bool]{"katran", true})
	return t, chooseEncap(r, s.kind, lb.IPIP)
}

// checkPrefix reads a prefix of the family and length of def, which is the default.
func checkPrefix(f field[string], def netip.Prefix, r *report) netip.Prefix {
	if !f.ok {
		return def
	}
	p, err := netip.ParsePrefix(f.value)
	if err != nil || p.Addr().Is4() != def.Addr().Is4() || p.Bits() != def.Bits() {
		r.add(f.place, "%s is not an %s prefix of /%d: expected one such as %s", quote(f.text), family(def.Addr()), def.Bits(), def)
		return def
	}
	if p != p.Masked() {
		r.add(f.place, "%s has bits behind the prefix: expected %s", quote(f.text), p.Masked())
		return def
	}
	if _, err := lb.ParseBackendAddr(p.Addr().String()); err != nil {
		r.add(f.place, "%s cannot be a source: %v: expected a unicast prefix such as %s", quote(f.text), err, def)
	}
	return p
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// checkSource reads an outer source address of the wanted family.
func checkSource(f field[string], want string, r *report) netip.Addr {
	if !f.ok {
		return netip.Addr{}
	}
	a, err := lb.ParseBackendAddr(f.value)
	switch {
	case err != nil:
		r.add(f.place, "%v: expected a unicast %s address of this machine", err, want)
	case family(a) != want:
		r.add(f.place, "%s is not an %s address: expected a unicast %s address of this machine", a, want, want)
	}
	return a
}
