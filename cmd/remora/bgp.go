// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"reflect"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/config"
)

// speakerConfig is the configuration of the speaker. Restarting tells that forwarding went on.
func speakerConfig(c *config.BGP, restarting bool, log *slog.Logger) bgp.Config {
	s := bgp.Config{
		ASN:             c.ASN,
		RouterID:        c.RouterID,
		ListenPort:      int(c.Port),
		ListenAddresses: c.ListenAddresses,
		GracefulRestart: bgp.GracefulRestart{RestartTime: c.RestartTime, DeferralTime: c.Deferral},
		Restarting:      restarting && c.RestartTime > 0,
		APISocket:       c.APISocket,
		Log:             log,
	}
	for _, p := range c.Peers {
		s.Peers = append(s.Peers, peerConfig(p))
	}
	return s
}

func peerConfig(p config.BGPPeer) bgp.Peer {
	peer := bgp.Peer{
		Address: p.Address, ASN: p.ASN, Port: p.Port, Source: p.Source, Passive: p.Passive,
		MultihopTTL: p.MultihopTTL, TTLSecurityHops: p.TTLSecurityHops, PasswordFile: p.PasswordFile,
		HoldTime: p.Hold, KeepaliveTime: p.Keepalive, ConnectRetryTime: p.ConnectRetry, IdleTime: p.Idle,
		Filter: p.Only, NextHop4: p.NextHop4, NextHop6: p.NextHop6, ExtendedNextHop: p.ExtendedNextHop,
		BFD: bgp.BFD{Enabled: p.BFD, Interval: p.BFDInterval, Multiplier: p.BFDMultiplier},
	}
	if p.IPv4 {
		peer.Families = append(peer.Families, bgp.IPv4)
	}
	if p.IPv6 {
		peer.Families = append(peer.Families, bgp.IPv6)
	}
	return peer
}

// announceConfig is the configuration of the decisions.
func announceConfig(a config.Announce) announce.Config {
	c := announce.Config{
		MinReals: a.MinReals, MinWeightPercent: a.MinWeight, DegradedPercent: a.DegradedBelow,
		DegradedHold: a.DegradedHold, LearnTime: a.Learn, DrainTime: a.Drain, WithdrawTime: a.Withdraw,
		Share: shareOf(a.ShareAny),
		Damping: announce.Damping{
			Off: a.Damping.Suppress == 0, Penalty: float64(a.Damping.Penalty),
			Suppress: float64(a.Damping.Suppress), Reuse: float64(a.Damping.Reuse),
			HalfLife: a.Damping.HalfLife, MaxSuppressed: a.Damping.MaxSuppress,
		},
	}
	if c.DegradedHold == 0 {
		c.DegradedHold = -1 // not at all: 0 stands for the default there
	}
	for _, g := range a.Aggregates {
		c.Aggregates = append(c.Aggregates, announce.Aggregate{Prefix: g.Prefix, Share: shareOf(g.ShareAny), Hosts: g.Hosts})
	}
	return c
}

func shareOf(anyVIP bool) announce.Share {
	if anyVIP {
		return announce.ShareAny
	}
	return announce.ShareAll
}

// attributes has, by class, a route without a prefix.
type attributes map[announce.Class]bgp.Route

func newAttributes(c *config.BGP) (attributes, error) {
	a := make(attributes)
	for class, from := range map[announce.Class]config.BGPAttributes{
		announce.ClassNormal: c.Normal, announce.ClassDegraded: c.Degraded, announce.ClassDraining: c.Draining,
	} {
		r := bgp.Route{MED: from.MED, LocalPref: from.LocalPref, Prepend: from.Prepend}
		for _, text := range from.Communities {
			one, err := bgp.ParseCommunity(text)
			if err != nil {
				return nil, err
			}
			r.Communities = append(r.Communities, one)
		}
		for _, text := range from.LargeCommunities {
			one, err := bgp.ParseLargeCommunity(text)
			if err != nil {
				return nil, err
			}
			r.LargeCommunities = append(r.LargeCommunities, one)
		}
		a[class] = r
	}
	return a, nil
}

// routes are the announcements with their attributes.
func (a attributes) routes(announcements []announce.Announcement) []bgp.Route {
	routes := make([]bgp.Route, 0, len(announcements))
	for _, one := range announcements {
		r := a[one.Class]
		r.Prefix = one.Prefix
		routes = append(routes, r)
	}
	return routes
}

// sameSessions refuses changes of what is only read at the start: all but attributes and announce.
func sameSessions(old, new *config.BGP) error {
	if (old == nil) != (new == nil) {
		return fmt.Errorf("bgp came or went: that needs a restart")
	}
	if old == nil {
		return nil
	}
	o, n := *old, *new
	for _, c := range []*config.BGP{&o, &n} {
		c.Announce = config.Announce{}
		c.Normal, c.Degraded, c.Draining = config.BGPAttributes{}, config.BGPAttributes{}, config.BGPAttributes{}
	}
	// Addresses without a zone are equal exactly if they are deeply equal.
	if !reflect.DeepEqual(o, n) {
		return fmt.Errorf("bgp changed beyond attributes and announce: that needs a restart")
	}
	return nil
}
