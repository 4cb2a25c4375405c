// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Defaults of Config. GoBGP's own are much slower to notice and to come back.
const (
	DefaultHoldTime         = 9 * time.Second
	DefaultConnectRetryTime = 5 * time.Second
	DefaultIdleTime         = 5 * time.Second
	DefaultDeferralTime     = 10 * time.Second
	DefaultPort             = 179
)

// Config is what a Speaker needs to know.
type Config struct {
	// ASN is the local AS number. 1 to 4294967294.
	ASN uint32
	// RouterID is the BGP identifier, an IPv4 address that no other speaker has.
	RouterID netip.Addr
	// ListenPort is the TCP port for sessions that peers open. -1 or 0: none, the speaker only
	// connects. A port under 1024 needs CAP_NET_BIND_SERVICE.
	ListenPort int
	// ListenAddresses are where it listens. Default: all addresses.
	ListenAddresses []netip.Addr
	// Peers may be empty: then nobody hears the announcements.
	Peers []Peer
	// GracefulRestart is for all peers.
	GracefulRestart GracefulRestart
	// Restarting tells that forwarding went on while the daemon was away, see Speaker. It needs
	// GracefulRestart.
	Restarting bool
	// APISocket is the absolute path of a unix socket that answers GoBGP's gRPC, so that
	// `gobgp -u` works. Who may open it can change routes and sessions: only the user of this
	// process. Default: none.
	APISocket string
	// Log receives changes of sessions, which OnChange tells too (debug), and what GoBGP says (debug, and
	// warnings). Default: nothing is logged.
	Log *slog.Logger
	// OnChange receives all sessions whenever the state of one or of its BFD session changed. It
	// must return soon. Default: nobody is told.
	OnChange func([]Session)
}

// GracefulRestart makes peers keep the routes for a while after the process has gone (RFC 4724),
// unless it said goodbye, see Speaker.Stop.
type GracefulRestart struct {
	// RestartTime is how long peers keep the routes. Whole seconds, 1 s to 4095 s. 0: not at all.
	RestartTime time.Duration
	// DeferralTime is how long a restarted speaker waits for its peers' own routes before it
	// sends its routes. Whole seconds, less than RestartTime. 0 stands for 10 s, or for half of
	// RestartTime where that is less.
	DeferralTime time.Duration
}

// Family is an address family of routes.
type Family uint8

// The families, unicast both.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "unknown family"
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Peer is a router that is sent the routes.
type Peer struct {
	// Address is where the peer is; no other peer has it.
	Address netip.Addr
	// ASN is its AS number; the same as the local one makes an internal session.
	ASN uint32
	// Port is the peer's TCP port. 0 stands for 179.
	Port uint16
	// Source is the local address of the session. Default: the kernel chooses.
	Source netip.Addr
	// Passive waits for the peer to connect; ListenPort must be set.
	Passive bool
	// MultihopTTL is the TTL of packets to an external peer that is not on the link, 2 to 255.
	// 0: it is on the link. Internal sessions may pass routers anyway.
	MultihopTTL uint8
	// TTLSecurityHops accepts packets of the session only if they came over fewer than so many
	// routers (RFC 5082): 1 means from the link. 0: not checked. Not together with MultihopTTL.
	TTLSecurityHops uint8
	// PasswordFile holds the TCP MD5 key (RFC 2385), 1 to 80 bytes; line ends after it do not
	// count. A file that cannot be read or is empty is an error. Default: no authentication.
	PasswordFile string

	// HoldTime is how long a silent peer counts as there; the lesser one of both ends is used.
	// Whole seconds, 3 s to 65535 s. 0 stands for 9 s.
	HoldTime time.Duration
	// KeepaliveTime is the time between two signs of life. Whole seconds, less than HoldTime. 0
	// stands for a third of HoldTime.
	KeepaliveTime time.Duration
	// ConnectRetryTime is the least time between two attempts to connect; the most is twice as
	// long. Whole seconds, from 1 s. 0 stands for 5 s.
	ConnectRetryTime time.Duration
	// IdleTime is the pause after this end reset the session (BFD). Whole seconds, from 1 s. 0
	// stands for 5 s. After other losses it is 5 s, which GoBGP fixes.
	IdleTime time.Duration

	// Families are what the peer is sent. Default: the family of its address.
	Families []Family
	// Filter keeps all but the routes within these prefixes from the peer. Default: it gets all.
	Filter []netip.Prefix
	// NextHop4 and NextHop6 are the next hops of routes that have none. Default: the session's
	// local address, if it is of the route's family. Where it is not, NextHop6 must be set for
	// IPv6 routes, and NextHop4 or ExtendedNextHop for IPv4 routes.
	NextHop4, NextHop6 netip.Addr
	// ExtendedNextHop sends IPv4 routes over an IPv6 session with its local address as next hop
	// (RFC 8950). The peer gets them only if it said that it understands them.
	ExtendedNextHop bool
	// BFD notices within a fraction of a second that the peer is gone.
	BFD BFD
}

// BFD is the configuration of a single-hop BFD session, see package bfd.
type BFD struct {
	Enabled bool
	// Interval is how often packets are sent and expected. 10 ms to 60 s. 0 stands for 300 ms.
	Interval time.Duration
	// Multiplier is how many intervals may pass without a packet. 0 stands for 3.
	Multiplier uint8
}

// withDefaults fills in what was left zero. It copies what it changes.
func (c Config) withDefaults() Config {
	if c.ListenPort == 0 {
		c.ListenPort = -1
	}
	if g := &c.GracefulRestart; g.DeferralTime == 0 {
		g.DeferralTime = min(DefaultDeferralTime, (g.RestartTime / 2).Truncate(time.Second))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnChange == nil {
		c.OnChange = func([]Session) {}
	}
	c.Peers = slices.Clone(c.Peers)
	for i := range c.Peers {
		c.Peers[i] = c.Peers[i].withDefaults()
	}
	return c
}

func (p Peer) withDefaults() Peer {
	if p.Port == 0 {
		p.Port = DefaultPort
	}
	if p.HoldTime == 0 {
		p.HoldTime = DefaultHoldTime
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&p.KeepaliveTime, max(time.Second, (p.HoldTime / 3).Truncate(time.Second))},
		{&p.ConnectRetryTime, DefaultConnectRetryTime},
		{&p.IdleTime, DefaultIdleTime},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if len(p.Families) == 0 {
		p.Families = []Family{familyOf(p.Address)}
	}
	return p
}

// has tells whether the peer is sent routes of the family.
func (p Peer) has(f Family) bool { return slices.Contains(p.Families, f) }

// wants tells whether the peer is sent a route of the prefix, as the export policy decides too.
func (p Peer) wants(prefix netip.Prefix) bool {
	if !p.has(familyOf(prefix.Addr())) {
		return false
	}
	within := func(f netip.Prefix) bool { return f.Bits() <= prefix.Bits() && f.Contains(prefix.Addr()) }
	return len(p.Filter) == 0 || slices.ContainsFunc(p.Filter, within)
}

// negotiates tells whether IPv4 routes need the peer's consent to an IPv6 next hop.
func (p Peer) negotiates() bool {
	return p.ExtendedNextHop && p.Address.Is6() && p.has(IPv4) && !p.NextHop4.IsValid()
}
