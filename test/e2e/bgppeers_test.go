// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
	"github.com/remora-lb/remora/test/routers"
)

// peering is one session of the first balancer with a router, as both ends are configured.
type peering struct {
	// kind is the router's: FRR or BIRD. behind runs it in the client's node, one router away.
	kind   string
	behind bool
	// family is that of the session's addresses.
	family pickAddr
	// neighbor is what the router knows of the balancer beside address and AS number.
	neighbor     routers.Neighbor
	extendedHops bool
	// peer is more fields of the balancer's peer, speaker more of its section bgp, announce more of announce.
	peer, speaker, announce string
}

type pickAddr func(*rig.Node) netip.Addr

// newPeering starts servers, router and balancer.
func newPeering(t *testing.T, p peering) *bgpBed {
	t.Helper()
	require.Root(t)
	require.Tools(t, "ip", "ss", "vtysh", "bird", "birdc")
	bed := newBed(t, rig.Config{})
	bed.startServers(t, ipv4)
	b := &bgpBed{bed: bed, kind: p.kind}
	for _, vip := range b.prefixes() { // the lab's own routes
		_, err := b.Router.Run(within(t), "ip", "route", "del", vip.String())
		require.NoError(t, err)
	}
	p.neighbor.Address, p.neighbor.ASN = p.family(b.balancer), balancerASN(0)
	b.cfg = routers.Config{
		ASN: routerASN, RouterID: netip.MustParseAddr("10.255.0.1"), ExtendedNextHop: p.extendedHops,
		Accept:    []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:ff::/48")},
		Neighbors: []routers.Neighbor{p.neighbor},
	}
	b.startPeer(t, p)
	b.writeText(t, p.config(b))
	b.startDaemon(t)
	return b
}

// startPeer starts the router, and returns when it answers.
func (b *bgpBed) startPeer(t *testing.T, p peering) {
	t.Helper()
	if !p.behind {
		b.startRouter(t)
		return
	}
	router, err := routers.StartBIRD(within(t), b.Lab, b.Client, b.cfg)
	require.NoError(t, err)
	b.router = router
}

// config is the balancer's configuration.
func (p peering) config(b *bgpBed) string {
	router := netip.PrefixFrom(b.balancer.IPv4, 24).Masked().Addr().Next()
	switch {
	case p.behind:
		router = p.family(b.Client)
	case p.family(b.balancer).Is6():
		router = netip.PrefixFrom(b.balancer.IPv6, 64).Masked().Addr().Next()
	}
	bgp := fmt.Sprintf("bgp:\n  asn: %d\n  router_id: %v\n%s  announce: {degraded_below: 60, degraded_hold: 0s%s}\n  peers:\n"+
		"    - {address: %q, asn: %d, hold: 3s, connect_retry: 1s, idle: 1s%s}\n",
		balancerASN(0), b.balancer.IPv4, p.speaker, p.announce, router, routerASN, p.peer)
	return webConfig(bgp, "tcp", b.servers()...)
}

// TestBGPPeerings has sessions of all kinds that TestBGP does not have.
func TestBGPPeerings(t *testing.T) {
	for _, tc := range []struct {
		name string
		peering
		check func(t *testing.T, b *bgpBed)
	}{
		{"passive", peering{kind: "BIRD", family: ipv4, neighbor: routers.Neighbor{Connect: true}, peer: ", passive: true", speaker: "  listen: {port: 179}\n"}, checkPassive},
		{"TTL security", peering{kind: "FRR", family: ipv6, neighbor: routers.Neighbor{TTLSecurity: true}, peer: ", ttl_security_hops: 1"},
			func(t *testing.T, b *bgpBed) { b.via(t, b.prefixes()[1], 0) }},
		{"IPv4 over IPv6", peering{kind: "FRR", family: ipv6, extendedHops: true, peer: ", families: [ipv4, ipv6], extended_next_hop: true"}, checkExtended},
		{"multihop", peering{kind: "BIRD", behind: true, family: ipv4, neighbor: routers.Neighbor{Multihop: true}, peer: ", multihop_ttl: 4"}, checkMultihop},
		{"aggregate", peering{kind: "BIRD", family: ipv4, announce: ", aggregates: [{prefix: 192.0.2.0/25}]"}, checkAggregate},
		{"degraded", peering{kind: "FRR", family: ipv4, speaker: "  attributes:\n" +
			"    normal: {communities: [\"65001:100\"], med: 10}\n" +
			"    degraded: {communities: [\"65001:50\"], large_communities: [\"65001:1:50\"], med: 300, prepend: 1}\n"}, checkAttributes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newPeering(t, tc.peering)
			tc.check(t, b)
			b.stands(t, "announced", "served")
		})
	}
}

// checkPassive: the router has opened the session.
func checkPassive(t *testing.T, b *bgpBed) {
	b.via(t, b.prefixes()[0], 0)
	for _, side := range []struct {
		port   string
		opened bool
	}{{"sport", true}, {"dport", false}} {
		out, err := b.balancer.Run(within(t), "ss", "-Htn", "state", "established", side.port, "=", ":179")
		require.NoError(t, err)
		if (strings.TrimSpace(out) != "") != side.opened {
			t.Errorf("connections of the balancer with %s 179: %q", side.port, out)
		}
	}
}

// checkExtended: both families have the session's address as next hop, and packets take the routes.
func checkExtended(t *testing.T, b *bgpBed) {
	for _, p := range b.prefixes() {
		eventually(t, p.String()+" by way of the balancer's IPv6 address", func(ctx context.Context) error {
			hops, err := b.router.NextHops(ctx, p)
			if err == nil && (len(hops) != 1 || hops[0] != b.balancer.IPv6) {
				err = fmt.Errorf("next hops are %v", hops)
			}
			return err
		})
	}
	b.assertShared(t, vip4(), b.Servers...)
}

// checkMultihop: the route comes from a session through a router.
func checkMultihop(t *testing.T, b *bgpBed) {
	b.routeSays(t, b.prefixes()[0], "BGP.next_hop: "+b.balancer.IPv4.String(), fmt.Sprint("BGP.as_path: ", balancerASN(0)))
}

// routeSays waits until what BIRD says of the routes for a prefix has all of the parts.
func (b *bgpBed) routeSays(t *testing.T, p netip.Prefix, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v with %q", p, parts), func(ctx context.Context) error {
		text, err := b.router.(*routers.BIRD).Route(ctx, p)
		for _, part := range parts {
			if err == nil && !strings.Contains(text, part) {
				err = fmt.Errorf("the routes are %s", text)
			}
		}
		return err
	})
}

// checkAggregate: the router gets the aggregate and no address in it, and packets take it; it goes with
// the last VIP.
func checkAggregate(t *testing.T, b *bgpBed) {
	aggregate := netip.MustParsePrefix("192.0.2.0/25")
	b.via(t, aggregate, 0)
	if n := b.count(t); n != 1 {
		t.Errorf("the router has %d routes, want the aggregate only", n)
	}
	b.assertShared(t, vip4(), b.Servers...)
	for _, backend := range b.servers() {
		b.control(t, "drain", backend)
	}
	b.via(t, aggregate)
	for _, backend := range b.servers() {
		b.control(t, "undrain", backend)
	}
	b.via(t, aggregate, 0)
}

// checkAttributes: the router sees the attributes of the state that the VIP is in.
func checkAttributes(t *testing.T, b *bgpBed) {
	own := fmt.Sprint(balancerASN(0))
	normal := routers.Path{MED: 10}
	normal.ASPath.String, normal.Community.String = own, "65001:100"
	degraded := routers.Path{MED: 300}
	degraded.ASPath.String, degraded.Community.String, degraded.LargeCommunity.String = own+" "+own, "65001:50", "65001:1:50"
	b.sees(t, normal)
	two := b.servers()[:2]
	for _, backend := range two {
		b.control(t, "drain", backend)
	}
	b.stands(t, "degraded", "low_weight")
	b.sees(t, degraded)
	for _, backend := range two {
		b.control(t, "undrain", backend)
	}
	b.sees(t, normal)
}

// sees waits until FRR has the route for the IPv4 VIP with the attributes of want.
func (b *bgpBed) sees(t *testing.T, want routers.Path) {
	t.Helper()
	eventually(t, fmt.Sprintf("a route as %+v", want), func(ctx context.Context) error {
		paths, err := b.router.(*routers.FRR).Paths(ctx, b.prefixes()[0])
		if err != nil {
			return err
		}
		got, ok := paths[b.balancer.IPv4]
		if !ok {
			return errors.New("there is none")
		}
		if got.MED != want.MED || got.ASPath != want.ASPath || got.Community != want.Community || got.LargeCommunity != want.LargeCommunity {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
}
