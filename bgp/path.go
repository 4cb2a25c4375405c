// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"net/netip"

	api "github.com/osrg/gobgp/v3/api"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The second number of a marker says what it is for.
const (
	// markPrepend has the number of times to prepend as third number.
	markPrepend = 1
	// markNextHop tells that the route has a next hop of its own.
	markNextHop = 2
)

// originIGP is the ORIGIN of routes that come from the AS itself (RFC 4271 section 4.3).
const originIGP = 0

// packer packs messages into Any and remembers the first error.
type packer struct{ err error }

func (k *packer) pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil && k.err == nil {
		k.err = err
	}
	return a
}

func apiFamily(f Family) *api.Family {
	afi := api.Family_AFI_IP
	if f == IPv6 {
		afi = api.Family_AFI_IP6
	}
	return &api.Family{Afi: afi, Safi: api.Family_SAFI_UNICAST}
}

// path is the route in GoBGP's form. The number of prepends and whether the next hop is its own
// are told by markers, since the export policy treats peers differently.
func (r Route) path() (*api.Path, error) {
	var k packer
	family := familyOf(r.Prefix.Addr())
	nlri := k.pack(&api.IPAddressPrefix{Prefix: r.Prefix.Addr().String(), PrefixLen: uint32(r.Prefix.Bits())})
	attributes := []*anypb.Any{
		k.pack(&api.OriginAttribute{Origin: originIGP}),
		k.nextHop(family, nlri, r.nextHop(family)),
	}
	if len(r.Communities) > 0 {
		attributes = append(attributes, k.pack(r.communities()))
	}
	if large := r.largeCommunities(); len(large) > 0 {
		attributes = append(attributes, k.pack(&api.LargeCommunitiesAttribute{Communities: large}))
	}
	if r.MED != 0 {
		attributes = append(attributes, k.pack(&api.MultiExitDiscAttribute{Med: r.MED}))
	}
	if r.LocalPref != 0 {
		attributes = append(attributes, k.pack(&api.LocalPrefAttribute{LocalPref: r.LocalPref}))
	}
	return &api.Path{Family: apiFamily(family), Nlri: nlri, Pattrs: attributes}, k.err
}

// nextHop is the route's next hop; the unspecified address stands for the session's own.
func (r Route) nextHop(f Family) netip.Addr {
	switch {
	case r.NextHop.IsValid():
		return r.NextHop
	case f == IPv4:
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (k *packer) nextHop(f Family, nlri *anypb.Any, hop netip.Addr) *anypb.Any {
	if f == IPv4 {
		return k.pack(&api.NextHopAttribute{NextHop: hop.String()})
	}
	return k.pack(&api.MpReachNLRIAttribute{Family: apiFamily(f), NextHops: []string{hop.String()}, Nlris: []*anypb.Any{nlri}})
}

func (r Route) communities() *api.CommunitiesAttribute {
	var a api.CommunitiesAttribute
	for _, c := range r.Communities {
		a.Communities = append(a.Communities, uint32(c))
	}
	return &a
}

// largeCommunities are the route's own and the markers.
func (r Route) largeCommunities() []*api.LargeCommunity {
	var all []*api.LargeCommunity
	for _, c := range r.LargeCommunities {
		all = append(all, &api.LargeCommunity{GlobalAdmin: c.ASN, LocalData1: c.Data1, LocalData2: c.Data2})
	}
	if r.Prepend > 0 {
		all = append(all, &api.LargeCommunity{GlobalAdmin: marker, LocalData1: markPrepend, LocalData2: uint32(r.Prepend)})
	}
	if r.NextHop.IsValid() {
		all = append(all, &api.LargeCommunity{GlobalAdmin: marker, LocalData1: markNextHop})
	}
	return all
}
