// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BGP is who is told which VIPs are served here, and how.
type BGP struct {
	// ASN is the local AS number. Required; 1 to 4294967294.
	ASN uint32
	// RouterID is an IPv4 address that no other speaker has. Required.
	RouterID netip.Addr
	// Port is the TCP port for sessions that peers open. 1 to 65535; default 0: none.
	Port uint16
	// ListenAddresses are where it listens. Default all.
	ListenAddresses []netip.Addr
	// RestartTime is how long peers keep the routes of a daemon that ended without a goodbye. Whole
	// seconds, 1 s to 4095 s; default 120 s with a section graceful_restart, else 0: not at all.
	RestartTime time.Duration
	// Deferral is how long a restarted daemon waits for its peers' routes before it sends its own.
	// Whole seconds, less than RestartTime. Default 0: 10 s, or half of RestartTime if that is less.
	Deferral time.Duration
	// APISocket is the absolute path of a socket for gobgp. Default none.
	APISocket string
	// Peers are the routers, each address once. Default none.
	Peers []BGPPeer
	// Normal, Degraded and Draining are the attributes of announcements.
	Normal, Degraded, Draining BGPAttributes
	// Announce says which VIPs are announced.
	Announce Announce
}

// BGPPeer is a router.
type BGPPeer struct {
	// Address is where it is. Required.
	Address netip.Addr
	// ASN is its AS number. Required; 1 to 4294967294.
	ASN uint32
	// Port is its TCP port. 1 to 65535; default 179.
	Port uint16
	// Source is the local address, of Address's family. Default: the kernel chooses.
	Source netip.Addr
	// Passive waits for the router to connect. Needs BGP.Port. Default false.
	Passive bool
	// MultihopTTL is for external routers that are not on the link. 2 to 255; default 0: on the link.
	MultihopTTL uint8
	// TTLSecurityHops is the number of hops within which the router must be. 1 to 254; default 0: not
	// checked.
	TTLSecurityHops uint8
	// PasswordFile holds the TCP MD5 key. Default none.
	PasswordFile string
	// Hold is the hold time, Keepalive the time between two signs of life, ConnectRetry the one between
	// two attempts, Idle the pause after a reset. Whole seconds. Defaults 9 s, a third of Hold, 5 s, 5 s;
	// 0 for Keepalive's.
	Hold, Keepalive, ConnectRetry, Idle time.Duration
	// IPv4 and IPv6 tell which routes it is sent. Default that of Address's family.
	IPv4, IPv6 bool
	// Only are the prefixes within which it is sent routes. Default: all.
	Only []netip.Prefix
	// NextHop4 and NextHop6 are the next hops. Default: the session's local address.
	NextHop4, NextHop6 netip.Addr
	// ExtendedNextHop sends IPv4 routes with an IPv6 next hop. Default false.
	ExtendedNextHop bool
	// BFD tells whether there is a BFD session. Default false.
	BFD bool
	// BFDInterval is 10 ms to 60 s; default 300 ms. BFDMultiplier is 1 to 255; default 3.
	BFDInterval   time.Duration
	BFDMultiplier uint8
}

// BGPAttributes are those of an announcement.
type BGPAttributes struct {
	// Communities are ASN:VALUE or names, LargeCommunities ASN:NUMBER:NUMBER. Defaults none, but
	// graceful-shutdown while draining.
	Communities, LargeCommunities []string
	// MED is 0 to 4294967295; default 0, 100 while degraded, 200 while draining.
	MED uint32
	// LocalPref is for routers of the own AS. 1 to 4294967295; default 100, 50 while degraded, 1 while
	// draining.
	LocalPref uint32
	// Prepend is how often the own AS is in front of the path beside the first time. 0 to 10; default
	// 0, 2 while degraded.
	Prepend int
}

// Announce says when a VIP is announced.
type Announce struct {
	// MinReals is the least number of healthy reals. 1 to 1000000; default 1.
	MinReals int
	// MinWeight is the least healthy share of the weight in percent, DegradedBelow the one below which
	// a VIP is degraded. 0 to 100; defaults 0.
	MinWeight, DegradedBelow int
	// DegradedHold is how long a VIP must be well to be normal again. Up to 1 h; default 10 s.
	DegradedHold time.Duration
	// Learn is how long a VIP that is ready waits. Up to 1 h; default 0.
	Learn time.Duration
	// Drain is how long a VIP that is to go is announced with the draining attributes. 1 ms to 24 h;
	// default 60 s.
	Drain time.Duration
	// Withdraw is how long routers may take to follow. 1 ms to 1 h; default 5 s.
	Withdraw time.Duration
	// FleetGuard keeps a VIP announced, as degraded, that no other balancer announces, by what Consul
	// says. It needs Consul.Register. Default false.
	FleetGuard bool
	// ShareAny announces an address while any of its VIPs can be served; else all must. Default false.
	ShareAny bool
	// Aggregates are announced in the place of the addresses within them. They do not overlap. Default
	// none.
	Aggregates []Aggregate
	// Damping keeps a VIP that comes and goes withdrawn.
	Damping AnnounceDamping
}

// Aggregate is a prefix that is announced for the addresses within it, and, with Hosts, beside them.
type Aggregate struct {
	Prefix          netip.Prefix
	ShareAny, Hosts bool
}

// AnnounceDamping holds VIPs back that come and go (RFC 2439).
type AnnounceDamping struct {
	// Penalty is what a withdrawal adds. 1 to 1000000; default 1000.
	Penalty int
	// Suppress is the sum from which on the VIP is held back; default 2500, 0 for never. Reuse is the
	// one below which it is free, less than Suppress; default 800.
	Suppress, Reuse int
	// HalfLife halves the sum; default 60 s. MaxSuppress is the longest that it is held back; default 5
	// min. 1 s to 24 h.
	HalfLife, MaxSuppress time.Duration
}

const (
	maxASN    = 1<<32 - 2
	maxUint32 = 1<<32 - 1
	// maxPrepend is bgp.MaxPrepend; maxSocketPath leaves room for what bgp puts behind the folder.
	maxPrepend    = 10
	maxSocketPath = 90
)

// checkBGP reads the section; nil if there is none.
func checkBGP(s bgpSection, r *report) *BGP {
	if !s.given {
		return nil
	}
	b := &BGP{
		ASN:             uint32(required(r, s.place, "asn", s.asn, "the AS number of this balancer", 1, maxASN)),
		RouterID:        checkRouterID(s, r),
		Port:            uint16(within(r, s.listen.port, 1, 65535, 0)),
		ListenAddresses: checkBGPAddresses(s.listen.addresses, r),
		APISocket:       checkAPISocket(s.apiSocket, r),
		Announce:        checkAnnounce(s.announce, r),
	}
	if len(b.ListenAddresses) > 0 && b.Port == 0 && !s.listen.port.given {
		r.add(s.listen.field("port"), "missing: expected the port to listen on, such as 179")
	}
	checkRestart(s.restart, b, r)
	a := s.attributes
	b.Normal = checkAttributes(a.normal, BGPAttributes{LocalPref: 100}, r)
	b.Degraded = checkAttributes(a.degraded, BGPAttributes{MED: 100, LocalPref: 50, Prepend: 2}, r)
	b.Draining = checkAttributes(a.draining, BGPAttributes{Communities: []string{"graceful-shutdown"}, MED: 200, LocalPref: 1}, r)
	lines := map[netip.Addr]int{}
	for _, item := range s.peers.items {
		if !item.ok {
			continue
		}
		p := checkPeer(item, b, r)
		if line, ok := lines[p.Address]; ok && p.Address.IsValid() {
			r.add(item.address.place, "duplicate peer %s: already on line %d: expected it once", p.Address, line)
		}
		lines[p.Address] = item.address.line
		b.Peers = append(b.Peers, p)
	}
	return b
}

// required reads a number that must be there.
func required(r *report, at place, name string, f field[int64], want string, low, high int64) int64 {
	if !f.given {
		r.add(at.field(name), "missing: expected %s", want)
	}
	return within(r, f, low, high, low)
}

func checkRouterID(s bgpSection, r *report) netip.Addr {
	if !s.routerID.given {
		r.add(s.field("router_id"), "missing: expected an IPv4 address that no other speaker has")
	}
	if !s.routerID.ok {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s.routerID.value)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		r.add(s.routerID.place, "%s is not an IPv4 address: expected one that no other speaker has", quote(s.routerID.text))
	}
	return a
}

func checkBGPAddresses(l list[field[string]], r *report) (addrs []netip.Addr) {
	for _, f := range l.items {
		if a, ok := checkBGPAddress(f, r); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// checkBGPAddress reads an address of one host, which may be loopback.
func checkBGPAddress(f field[string], r *report) (netip.Addr, bool) {
	if !f.ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(f.value)
	if err != nil || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		r.add(f.place, "%s is not the address of one host: expected one such as 10.0.0.1 or 2001:db8::1", quote(f.text))
		return netip.Addr{}, false
	}
	return a, true
}

// checkBGPFamily reads an address of a family.
func checkBGPFamily(f field[string], want string, r *report) netip.Addr {
	a, ok := checkBGPAddress(f, r)
	if ok && family(a) != want {
		r.add(f.place, "%s is not an %s address", a, want)
	}
	return a
}

func checkAPISocket(f field[string], r *report) string {
	if f.ok && (!filepath.IsAbs(f.value) || strings.Contains(f.value, ",") || len(f.value) > maxSocketPath) {
		r.add(f.place, "%s is not a path for a socket: expected an absolute one without commas, of at most %d bytes", quote(f.text), maxSocketPath)
	}
	return f.value
}

func checkRestart(s bgpRestartSection, b *BGP, r *report) {
	if !s.given {
		return
	}
	b.RestartTime = wholeSeconds(r, s.time, time.Second, 4095*time.Second, 120*time.Second)
	b.Deferral = wholeSeconds(r, s.deferral, 0, 4095*time.Second, 0)
	if b.Deferral > 0 && b.Deferral >= b.RestartTime {
		r.add(s.deferral.place, "%s is not less than the restart time of %s", quote(s.deferral.text), showDuration(b.RestartTime))
	}
}

// wholeSeconds reads a time that BGP has in seconds.
func wholeSeconds(r *report, f field[string], low, high, def time.Duration) time.Duration {
	d := duration(r, f, low, high, def)
	if d%time.Second != 0 {
		r.add(f.place, "%s is not a whole number of seconds", quote(f.text))
		return def
	}
	return d
}

func checkAttributes(s bgpClassSection, def BGPAttributes, r *report) BGPAttributes {
	return BGPAttributes{
		Communities:      checkCommunities(s.communities, def.Communities, isCommunity, "ASN:VALUE or a well-known name such as no-export", r),
		LargeCommunities: checkCommunities(s.largeCommunities, nil, isLargeCommunity, "ASN:NUMBER:NUMBER", r),
		MED:              uint32(within(r, s.med, 0, maxUint32, int64(def.MED))),
		LocalPref:        uint32(within(r, s.localPref, 1, maxUint32, int64(def.LocalPref))),
		Prepend:          int(within(r, s.prepend, 0, maxPrepend, int64(def.Prepend))),
	}
}

func checkCommunities(l list[field[string]], def []string, valid func(string) bool, want string, r *report) (all []string) {
	if !l.given {
		return def
	}
	for _, f := range l.items {
		if f.ok && !valid(f.value) {
			r.add(f.place, "%s is not a community: expected %s", quote(f.text), want)
		}
		all = append(all, f.value)
	}
	return all
}

func isCommunity(s string) bool {
	switch s {
	case "graceful-shutdown", "no-export", "no-advertise", "no-export-subconfed", "no-llgr", "no-peer":
		return true
	}
	return areNumbers(s, 2, 16)
}

// isLargeCommunity refuses those that bgp keeps for itself.
func isLargeCommunity(s string) bool {
	return areNumbers(s, 3, 32) && !strings.HasPrefix(s, "4294967295:")
}

// areNumbers tells whether s is count numbers of so many bits with colons between them.
func areNumbers(s string, count, bits int) bool {
	parts := strings.Split(s, ":")
	return len(parts) == count && !slices.ContainsFunc(parts, func(part string) bool {
		_, err := strconv.ParseUint(part, 10, bits)
		return err != nil || !isDecimal(part)
	})
}

// checkShare tells whether any VIP of a prefix will do.
func checkShare(f field[string], r *report) bool {
	return choose(r, f, false, choice[bool]{"all", false}, choice[bool]{"any", true})
}

func checkAnnounce(s announceSection, r *report) Announce {
	a := Announce{
		MinReals:      int(within(r, s.minReals, 1, 1_000_000, 1)),
		MinWeight:     int(within(r, s.minWeight, 0, 100, 0)),
		DegradedBelow: int(within(r, s.degradedBelow, 0, 100, 0)),
		DegradedHold:  duration(r, s.degradedHold, 0, time.Hour, 10*time.Second),
		Learn:         duration(r, s.learn, 0, time.Hour, 0),
		Drain:         duration(r, s.drain, time.Millisecond, 24*time.Hour, time.Minute),
		Withdraw:      duration(r, s.withdraw, time.Millisecond, time.Hour, 5*time.Second),
		FleetGuard:    choose(r, s.fleetGuard, false, choice[bool]{"off", false}, choice[bool]{"consul", true}),
		ShareAny:      checkShare(s.share, r),
		Damping:       checkAnnounceDamping(s.damping, r),
	}
	if a.DegradedBelow > 0 && a.DegradedBelow < a.MinWeight {
		r.add(s.degradedBelow.place, "%d is less than min_weight, %d: a VIP would be withdrawn before it is degraded", a.DegradedBelow, a.MinWeight)
	}
	a.Aggregates = checkAggregates(s.aggregates, r)
	return a
}

func checkAggregates(l list[aggregateSection], r *report) (all []Aggregate) {
	for _, s := range l.items {
		if !s.ok {
			continue
		}
		if !s.prefix.given {
			r.add(s.field("prefix"), "missing: expected a prefix such as 192.0.2.0/24")
		}
		p, ok := checkClaimedPrefix(s.prefix, r)
		if !ok {
			continue
		}
		for i, other := range all {
			if other.Prefix.Overlaps(p) {
				r.add(s.prefix.place, "%s overlaps %s: expected aggregates that do not", p, all[i].Prefix)
			}
		}
		all = append(all, Aggregate{Prefix: p.Masked(), ShareAny: checkShare(s.share, r), Hosts: s.hosts.value})
	}
	return all
}

func checkAnnounceDamping(s announceDampingSection, r *report) AnnounceDamping {
	d := AnnounceDamping{
		Penalty:     int(within(r, s.penalty, 1, 1_000_000, 1000)),
		Suppress:    int(within(r, s.suppress, 0, 1_000_000, 2500)),
		Reuse:       int(within(r, s.reuse, 1, 1_000_000, 800)),
		HalfLife:    duration(r, s.halfLife, time.Second, 24*time.Hour, time.Minute),
		MaxSuppress: duration(r, s.maxSuppress, time.Second, 24*time.Hour, 5*time.Minute),
	}
	if d.Suppress > 0 && d.Reuse >= d.Suppress {
		at := s.reuse.place
		if !s.reuse.given {
			at = s.suppress.place
		}
		r.add(at, "reuse, %d, is not less than suppress, %d", d.Reuse, d.Suppress)
	}
	return d
}
