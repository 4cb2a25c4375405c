// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import "go.yaml.in/yaml/v4"

type bgpSection struct {
	place
	given      bool
	asn        field[int64]
	routerID   field[string]
	listen     bgpListenSection
	restart    bgpRestartSection
	apiSocket  field[string]
	peers      list[bgpPeerSection]
	attributes bgpAttributesSection
	announce   announceSection
}

type bgpListenSection struct {
	place
	given     bool
	port      field[int64]
	addresses list[field[string]]
}

type bgpRestartSection struct {
	place
	given          bool
	time, deferral field[string]
}

// bgpPeerSection is a peer; ok as in serviceSection.
type bgpPeerSection struct {
	place
	ok                                  bool
	address                             field[string]
	asn, port                           field[int64]
	source                              field[string]
	passive                             field[bool]
	multihopTTL, ttlSecurityHops        field[int64]
	passwordFile                        field[string]
	hold, keepalive, connectRetry, idle field[string]
	families, only                      list[field[string]]
	nextHop4, nextHop6                  field[string]
	extendedNextHop                     field[bool]
	bfd                                 bfdSection
}

type bfdSection struct {
	place
	given      bool
	interval   field[string]
	multiplier field[int64]
}

type bgpAttributesSection struct {
	place
	given                      bool
	normal, degraded, draining bgpClassSection
}

type bgpClassSection struct {
	place
	given                         bool
	communities, largeCommunities list[field[string]]
	med, localPref, prepend       field[int64]
}

type announceSection struct {
	place
	given                              bool
	minReals, minWeight, degradedBelow field[int64]
	degradedHold                       field[string]
	learn, drain, withdraw, share      field[string]
	fleetGuard                         field[string]
	aggregates                         list[aggregateSection]
	damping                            announceDampingSection
}

// aggregateSection is an aggregate; ok as in serviceSection.
type aggregateSection struct {
	place
	ok            bool
	prefix, share field[string]
	hosts         field[bool]
}

type announceDampingSection struct {
	place
	given                    bool
	penalty, suppress, reuse field[int64]
	halfLife, maxSuppress    field[string]
}

func (d *decoder) bgp(s *bgpSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"asn", d.whole(&s.asn)},
			known{"router_id", d.text(&s.routerID)},
			known{"listen", d.bgpListen(&s.listen)},
			known{"graceful_restart", d.bgpRestart(&s.restart)},
			known{"api_socket", d.text(&s.apiSocket)},
			known{"peers", decodeList(d, &s.peers, d.bgpPeer)},
			known{"attributes", d.bgpAttributes(&s.attributes)},
			known{"announce", d.announce(&s.announce)},
		)
	}
}

func (d *decoder) bgpListen(s *bgpListenSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"port", d.whole(&s.port)},
			known{"addresses", decodeList(d, &s.addresses, d.textElement)},
		)
	}
}

func (d *decoder) bgpRestart(s *bgpRestartSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"time", d.time(&s.time)},
			known{"deferral", d.time(&s.deferral)},
		)
	}
}

func (d *decoder) bgpPeer(n node) bgpPeerSection {
	s := bgpPeerSection{place: n.place}
	s.ok = d.mapping(n, "",
		known{"address", d.text(&s.address)},
		known{"asn", d.whole(&s.asn)},
		known{"port", d.whole(&s.port)},
		known{"source", d.text(&s.source)},
		known{"passive", d.truth(&s.passive)},
		known{"multihop_ttl", d.whole(&s.multihopTTL)},
		known{"ttl_security_hops", d.whole(&s.ttlSecurityHops)},
		known{"password_file", d.text(&s.passwordFile)},
		known{"hold", d.time(&s.hold)},
		known{"keepalive", d.time(&s.keepalive)},
		known{"connect_retry", d.time(&s.connectRetry)},
		known{"idle", d.time(&s.idle)},
		known{"families", decodeList(d, &s.families, d.textElement)},
		known{"only", decodeList(d, &s.only, d.textElement)},
		known{"next_hop_ipv4", d.text(&s.nextHop4)},
		known{"next_hop_ipv6", d.text(&s.nextHop6)},
		known{"extended_next_hop", d.truth(&s.extendedNextHop)},
		known{"bfd", d.bfd(&s.bfd)},
	)
	return s
}

func (d *decoder) bfd(s *bfdSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"interval", d.time(&s.interval)},
			known{"multiplier", d.whole(&s.multiplier)},
		)
	}
}

func (d *decoder) bgpAttributes(s *bgpAttributesSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"normal", d.bgpClass(&s.normal)},
			known{"degraded", d.bgpClass(&s.degraded)},
			known{"draining", d.bgpClass(&s.draining)},
		)
	}
}

func (d *decoder) bgpClass(s *bgpClassSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"communities", decodeList(d, &s.communities, d.textElement)},
			known{"large_communities", decodeList(d, &s.largeCommunities, d.textElement)},
			known{"med", d.whole(&s.med)},
			known{"local_pref", d.whole(&s.localPref)},
			known{"prepend", d.whole(&s.prepend)},
		)
	}
}

func (d *decoder) announce(s *announceSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"min_reals", d.whole(&s.minReals)},
			known{"min_weight", d.whole(&s.minWeight)},
			known{"degraded_below", d.whole(&s.degradedBelow)},
			known{"degraded_hold", d.time(&s.degradedHold)},
			known{"learn", d.time(&s.learn)},
			known{"drain", d.time(&s.drain)},
			known{"withdraw", d.time(&s.withdraw)},
			known{"fleet_guard", d.text(&s.fleetGuard)},
			known{"share", d.text(&s.share)},
			known{"aggregates", decodeList(d, &s.aggregates, d.aggregate)},
			known{"damping", d.announceDamping(&s.damping)},
		)
	}
}

func (d *decoder) aggregate(n node) aggregateSection {
	s := aggregateSection{place: n.place}
	s.ok = d.mapping(n, "",
		known{"prefix", d.text(&s.prefix)},
		known{"share", d.text(&s.share)},
		known{"hosts", d.truth(&s.hosts)},
	)
	return s
}

func (d *decoder) announceDamping(s *announceDampingSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"penalty", d.whole(&s.penalty)},
			known{"suppress", d.whole(&s.suppress)},
			known{"reuse", d.whole(&s.reuse)},
			known{"half_life", d.time(&s.halfLife)},
			known{"max_suppress", d.time(&s.maxSuppress)},
		)
	}
}

// truth reads a truth value.
func (d *decoder) truth(f *field[bool]) func(node) {
	return func(n node) {
		*f = field[bool]{place: n.place, text: n.yaml.Value, given: true}
		if n.yaml.Kind != yaml.ScalarNode || n.yaml.ShortTag() != "!!bool" || n.yaml.Value != "true" && n.yaml.Value != "false" {
			d.add(n.place, "found %s: expected true or false", describe(n.yaml))
			return
		}
		f.value, f.ok = n.yaml.Value == "true", true
	}
}
