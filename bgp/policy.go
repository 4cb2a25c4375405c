// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// nobody stands in address sets that hold no peer: GoBGP takes an empty set for all peers.
const nobody = "255.255.255.255/32"

// policies are the rules for routes, fixed while the speaker runs. What peers send is refused. A
// route goes to a peer if a statement of the peer accepts it; statements before those change it.
type policies struct {
	cfg Config
	// sets are what the conditions of statements name.
	sets []*api.DefinedSet
	// statements are those of the export policy, in order.
	statements []*api.Statement
}

func newPolicies(cfg Config) *policies {
	p := &policies{cfg: cfg}
	p.prepends()
	for i, peer := range cfg.Peers {
		p.nextHops(i, peer)
	}
	p.unmark()
	for i, peer := range cfg.Peers {
		p.accept(i, peer)
	}
	return p
}

// install gives the policies to a server that has no peers yet.
func (p *policies) install(ctx context.Context, s *server.BgpServer) error {
	for _, set := range p.sets {
		if err := s.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return fmt.Errorf("add set %s: %v", set.Name, err)
		}
	}
	own := &api.Statement{
		Name:       "own",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT},
	}
	if err := assign(ctx, s, api.PolicyDirection_IMPORT, "import", own); err != nil {
		return err
	}
	return assign(ctx, s, api.PolicyDirection_EXPORT, "export", p.statements...)
}

// assign makes a policy the only one of a direction. What no statement decides is refused.
func assign(ctx context.Context, s *server.BgpServer, d api.PolicyDirection, name string, statements ...*api.Statement) error {
	policy := &api.Policy{Name: name, Statements: statements}
	if err := s.AddPolicy(ctx, &api.AddPolicyRequest{Policy: policy}); err != nil {
		return fmt.Errorf("add %s policy: %v", name, err)
	}
	a := &api.PolicyAssignment{
		Name:          "global",
		Direction:     d,
		Policies:      []*api.Policy{{Name: name}},
		DefaultAction: api.RouteAction_REJECT,
	}
	if err := s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: a}); err != nil {
		return fmt.Errorf("assign %s policy: %v", name, err)
	}
	return nil
}

// prepends are statements for external peers. Internal ones would take a path with their own AS
// number for a loop.
func (p *policies) prepends() {
	external := &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR, Name: "external"}
	for _, peer := range p.cfg.Peers {
		if peer.ASN != p.cfg.ASN {
			external.List = append(external.List, hostPrefix(peer.Address))
		}
	}
	if len(external.List) == 0 {
		return
	}
	p.sets = append(p.sets, external)
	for n := uint32(1); n <= MaxPrepend; n++ {
		name := fmt.Sprintf("prepend-%d", n)
		p.markerSet(name, fmt.Sprintf("^%d:%d:%d$", uint32(marker), markPrepend, n))
		p.statements = append(p.statements, &api.Statement{
			Name: name,
			Conditions: &api.Conditions{
				NeighborSet:       &api.MatchSet{Name: external.Name},
				LargeCommunitySet: &api.MatchSet{Name: name},
			},
			Actions: &api.Actions{AsPrepend: &api.AsPrependAction{Asn: p.cfg.ASN, Repeat: n}},
		})
	}
}

// nextHops are statements that set a peer's own next hops on routes that have none.
func (p *policies) nextHops(i int, peer Peer) {
	p.sets = append(p.sets, &api.DefinedSet{
		DefinedType: api.DefinedType_NEIGHBOR,
		Name:        peerSet(i),
		List:        []string{hostPrefix(peer.Address)},
	})
	if i == 0 {
		p.markerSet("next-hop", fmt.Sprintf("^%d:%d:", uint32(marker), markNextHop))
	}
	for _, hop := range []netip.Addr{peer.NextHop4, peer.NextHop6} {
		if !hop.IsValid() {
			continue
		}
		family := familyOf(hop)
		p.statements = append(p.statements, &api.Statement{
			Name: fmt.Sprintf("next-hop-%d-%v", i, family),
			Conditions: &api.Conditions{
				NeighborSet:       &api.MatchSet{Name: peerSet(i)},
				AfiSafiIn:         []*api.Family{apiFamily(family)},
				LargeCommunitySet: &api.MatchSet{Name: "next-hop", Type: api.MatchSet_INVERT},
			},
			Actions: &api.Actions{Nexthop: &api.NexthopAction{Address: hop.String()}},
		})
	}
}

// unmark is a statement that takes the markers off.
func (p *policies) unmark() {
	pattern := fmt.Sprintf("^%d:", uint32(marker))
	p.markerSet("marked", pattern)
	p.statements = append(p.statements, &api.Statement{
		Name:       "unmark",
		Conditions: &api.Conditions{LargeCommunitySet: &api.MatchSet{Name: "marked"}},
		Actions: &api.Actions{LargeCommunity: &api.CommunityAction{
			Type:        api.CommunityAction_REMOVE,
			Communities: []string{pattern},
		}},
	})
}

// accept are statements, one per family, that let through what the peer is sent.
func (p *policies) accept(i int, peer Peer) {
	for _, family := range []Family{IPv4, IPv6} {
		prefixes := &api.DefinedSet{
			DefinedType: api.DefinedType_PREFIX,
			Name:        fmt.Sprintf("filter-%d-%v", i, family),
			Prefixes:    filterPrefixes(peer, family),
		}
		if len(prefixes.Prefixes) == 0 {
			continue
		}
		p.sets = append(p.sets, prefixes)
		neighbours := peerSet(i)
		if family == IPv4 && peer.negotiates() {
			neighbours = consentSet(i)
			p.sets = append(p.sets, &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR, Name: neighbours, List: []string{nobody}})
		}
		p.statements = append(p.statements, &api.Statement{
			Name: fmt.Sprintf("accept-%d-%v", i, family),
			Conditions: &api.Conditions{
				NeighborSet: &api.MatchSet{Name: neighbours},
				PrefixSet:   &api.MatchSet{Name: prefixes.Name},
			},
			Actions: &api.Actions{RouteAction: api.RouteAction_ACCEPT},
		})
	}
}

// filterPrefixes are what the peer's filter lets through of a family, as Peer.wants has it.
func filterPrefixes(peer Peer, f Family) []*api.Prefix {
	filter, most := peer.Filter, 32
	if len(filter) == 0 {
		filter = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	if f == IPv6 {
		most = 128
	}
	var prefixes []*api.Prefix
	for _, within := range filter {
		if familyOf(within.Addr()) == f && peer.has(f) {
			prefixes = append(prefixes, &api.Prefix{
				IpPrefix:      within.String(),
				MaskLengthMin: uint32(within.Bits()),
				MaskLengthMax: uint32(most),
			})
		}
	}
	return prefixes
}

func (p *policies) markerSet(name, pattern string) {
	p.sets = append(p.sets, &api.DefinedSet{
		DefinedType: api.DefinedType_LARGE_COMMUNITY,
		Name:        name,
		List:        []string{pattern},
	})
}

// peerSet is the set that holds peer i.
func peerSet(i int) string { return fmt.Sprintf("peer-%d", i) }

// consentSet is the set that holds peer i while it takes IPv4 routes with an IPv6 next hop.
func consentSet(i int) string { return fmt.Sprintf("extended-next-hop-%d", i) }

func hostPrefix(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }
