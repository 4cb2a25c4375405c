// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-lb/remora/bgp/bfd"
)

// maxSocketPath is the longest path of a unix socket that the kernel takes, in bytes.
const maxSocketPath = 107

// problems collects what is wrong, each with the path of its field.
type problems struct {
	prefix string
	errs   []error
}

func (p *problems) add(field, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s%s: %s", p.prefix, field, fmt.Sprintf(format, args...)))
}

func (p *problems) check(ok bool, field, format string, args ...any) {
	if !ok {
		p.add(field, format, args...)
	}
}

// seconds checks a time that GoBGP takes in whole seconds.
func (p *problems) seconds(field string, d, least, most time.Duration) {
	switch {
	case d%time.Second != 0:
		p.add(field, "%v is not a whole number of seconds", d)
	case d < least || d > most:
		p.add(field, "%v is not between %v and %v", d, least, most)
	}
}

// Validate reports all problems of the configuration, each with the name of its field. It reads no
// files.
func (c Config) Validate() error {
	var p problems
	c = c.withDefaults()
	p.check(c.ASN != 0 && c.ASN != marker, "ASN", "%d is not an AS number", c.ASN)
	p.check(c.RouterID.Is4() && !c.RouterID.IsUnspecified(), "RouterID", "%v is not an IPv4 address", c.RouterID)
	p.check(c.ListenPort >= -1 && c.ListenPort <= 65535, "ListenPort", "%d is not a port, nor -1", c.ListenPort)
	for i, a := range c.ListenAddresses {
		p.check(a.IsValid() && !a.Is4In6() && a.Zone() == "", fmt.Sprintf("ListenAddresses[%d]", i), "%v is not an address", a)
	}
	p.gracefulRestart(c)
	if s := c.APISocket; s != "" {
		p.check(filepath.IsAbs(s) && !strings.Contains(s, ","), "APISocket", "%q is not an absolute path without commas", s)
		p.check(max(len(s), len(filepath.Dir(s))+privateLen) <= maxSocketPath, "APISocket", "%q is too long for a socket", s)
	}
	seen := make(map[netip.Addr]bool)
	for i, peer := range c.Peers {
		p.prefix = fmt.Sprintf("Peers[%d].", i)
		p.check(!seen[peer.Address], "Address", "%v is there twice", peer.Address)
		seen[peer.Address] = true
		p.peer(c, peer)
	}
	return errors.Join(p.errs...)
}

func (p *problems) gracefulRestart(c Config) {
	g := c.GracefulRestart
	if g == (GracefulRestart{}) {
		p.check(!c.Restarting, "Restarting", "is set without GracefulRestart")
		return
	}
	p.seconds("GracefulRestart.RestartTime", g.RestartTime, time.Second, 4095*time.Second)
	p.seconds("GracefulRestart.DeferralTime", g.DeferralTime, 0, max(0, g.RestartTime-time.Second))
}

// peer checks a peer with defaults.
func (p *problems) peer(c Config, peer Peer) {
	p.address("Address", peer.Address)
	p.check(peer.ASN != 0 && peer.ASN != marker, "ASN", "%d is not an AS number", peer.ASN)
	if peer.Source.IsValid() {
		p.address("Source", peer.Source)
		p.check(peer.Source.Is4() == peer.Address.Is4(), "Source", "%v is of another family than Address", peer.Source)
	}
	p.check(!peer.Passive || c.ListenPort > 0, "Passive", "needs ListenPort")
	p.ttl(c, peer)
	p.seconds("HoldTime", peer.HoldTime, 3*time.Second, 65535*time.Second)
	p.seconds("KeepaliveTime", peer.KeepaliveTime, time.Second, peer.HoldTime-time.Second)
	p.seconds("ConnectRetryTime", peer.ConnectRetryTime, time.Second, time.Hour)
	p.seconds("IdleTime", peer.IdleTime, time.Second, time.Hour)
	for i, f := range peer.Filter {
		p.check(f.IsValid() && f == f.Masked() && !f.Addr().Is4In6(), fmt.Sprintf("Filter[%d]", i), "%v is not a prefix without bits beyond its length", f)
	}
	p.nextHops(peer)
	if err := bfd.CheckInterval(peer.BFD.Interval); err != nil {
		p.add("BFD", "%v", err)
	}
	p.check(!peer.BFD.Enabled || peer.MultihopTTL == 0, "BFD", "works on the link only, not with MultihopTTL")
}

func (p *problems) address(field string, a netip.Addr) {
	p.check(a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6() && a.Zone() == "",
		field, "%v is not an address of one host without a zone", a)
}

func (p *problems) ttl(c Config, peer Peer) {
	if peer.MultihopTTL != 0 {
		p.check(peer.MultihopTTL > 1, "MultihopTTL", "1 is what a peer on the link has: leave it out")
		p.check(peer.ASN != c.ASN, "MultihopTTL", "is for external peers; the packets of internal ones pass routers anyway")
		p.check(peer.TTLSecurityHops == 0, "MultihopTTL", "and TTLSecurityHops exclude each other")
	}
}

func (p *problems) nextHops(peer Peer) {
	for i, f := range peer.Families {
		p.check(f == IPv4 || f == IPv6, fmt.Sprintf("Families[%d]", i), "%d is neither IPv4 nor IPv6", uint8(f))
	}
	if peer.NextHop4.IsValid() {
		p.address("NextHop4", peer.NextHop4)
		p.check(peer.NextHop4.Is4(), "NextHop4", "%v is not an IPv4 address", peer.NextHop4)
	}
	if peer.NextHop6.IsValid() {
		p.address("NextHop6", peer.NextHop6)
		p.check(!peer.NextHop6.Is4(), "NextHop6", "%v is not an IPv6 address", peer.NextHop6)
	}
	if peer.Address.Is4() {
		p.check(!peer.has(IPv6) || peer.NextHop6.IsValid(), "NextHop6", "must be set for IPv6 routes over an IPv4 session")
		p.check(!peer.ExtendedNextHop, "ExtendedNextHop", "is for IPv6 sessions")
		return
	}
	p.check(!peer.has(IPv4) || peer.NextHop4.IsValid() || peer.ExtendedNextHop, "NextHop4", "or ExtendedNextHop must be set for IPv4 routes over an IPv6 session")
	p.check(!peer.ExtendedNextHop || !peer.NextHop4.IsValid(), "ExtendedNextHop", "and NextHop4 exclude each other")
}
