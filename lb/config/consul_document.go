// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

type consulSection struct {
	place
	given                            bool
	addresses                        list[field[string]]
	token, tokenFile                 field[string]
	datacenter, namespace, partition field[string]
	tls                              consulTLSSection
	consistency, maxStale, wait      field[string]
	connections                      field[int64]
	overlay                          field[string]
	claims                           list[consulClaimSection]
	definitions                      consulDefinitionsSection
	drainLimit                       consulDrainLimitSection
	register                         consulRegisterSection
}

type consulTLSSection struct {
	place
	given                                         bool
	caFile, caPath, certFile, keyFile, serverName field[string]
}

// consulClaimSection is a rule of claims; ok as in serviceSection.
type consulClaimSection struct {
	place
	ok                 bool
	services, prefixes list[field[string]]
}

// consulDefinitionsSection is the folder of definitions, and what they may define.
type consulDefinitionsSection struct {
	place
	given  bool
	folder field[string]
	rule   consulClaimSection
}

type consulDrainLimitSection struct {
	place
	given     bool
	balancers field[int64]
	folder    field[string]
}

type consulRegisterSection struct {
	place
	given         bool
	name, id, ttl field[string]
}

// sourceSection is where the backends of a service come from.
type sourceSection struct {
	place
	given  bool
	consul consulSourceSection
}

type consulSourceSection struct {
	place
	given bool
	// tried tells that the field is there, of whatever type.
	tried                                                                          bool
	service, tag, filter, datacenter, namespace, partition, taggedAddress, warning field[string]
}

type governorSection struct {
	place
	given           bool
	hold, emptyHold field[string]
	radius          radiusSection
	damping         dampingSection
}

type radiusSection struct {
	place
	given          bool
	reals, percent field[int64]
	step           field[string]
}

type dampingSection struct {
	place
	given                 bool
	suppress, reuse       field[int64]
	halfLife, maxSuppress field[string]
}

func (d *decoder) consul(s *consulSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"addresses", decodeList(d, &s.addresses, d.textElement)},
			known{"token", d.text(&s.token)},
			known{"token_file", d.text(&s.tokenFile)},
			known{"datacenter", d.text(&s.datacenter)},
			known{"namespace", d.text(&s.namespace)},
			known{"partition", d.text(&s.partition)},
			known{"tls", d.consulTLS(&s.tls)},
			known{"consistency", d.text(&s.consistency)},
			known{"max_stale", d.time(&s.maxStale)},
			known{"wait", d.time(&s.wait)},
			known{"connections", d.whole(&s.connections)},
			known{"overlay", d.text(&s.overlay)},
			known{"claims", decodeList(d, &s.claims, d.consulClaim)},
			known{"definitions", d.consulDefinitions(&s.definitions)},
			known{"drain_limit", d.consulDrainLimit(&s.drainLimit)},
			known{"register", d.consulRegister(&s.register)},
		)
	}
}

// textElement reads a text that is an element of a list.
func (d *decoder) textElement(n node) field[string] {
	var f field[string]
	d.text(&f)(n)
	return f
}

func (d *decoder) consulTLS(s *consulTLSSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"ca_file", d.text(&s.caFile)},
			known{"ca_path", d.text(&s.caPath)},
			known{"cert_file", d.text(&s.certFile)},
			known{"key_file", d.text(&s.keyFile)},
			known{"server_name", d.text(&s.serverName)},
		)
	}
}

func (d *decoder) consulClaim(n node) consulClaimSection {
	s := consulClaimSection{place: n.place}
	s.ok = d.mapping(n, "",
		known{"services", decodeList(d, &s.services, d.textElement)},
		known{"prefixes", decodeList(d, &s.prefixes, d.textElement)},
	)
	return s
}

func (d *decoder) consulDefinitions(s *consulDefinitionsSection) func(node) {
	return func(n node) {
		s.place, s.rule.place = n.place, n.place
		s.given = d.mapping(n, "",
			known{"folder", d.text(&s.folder)},
			known{"services", decodeList(d, &s.rule.services, d.textElement)},
			known{"prefixes", decodeList(d, &s.rule.prefixes, d.textElement)},
		)
		s.rule.ok = s.given
	}
}

func (d *decoder) consulDrainLimit(s *consulDrainLimitSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"balancers", d.whole(&s.balancers)},
			known{"folder", d.text(&s.folder)},
		)
	}
}

func (d *decoder) consulRegister(s *consulRegisterSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"name", d.text(&s.name)},
			known{"id", d.text(&s.id)},
			known{"ttl", d.time(&s.ttl)},
		)
	}
}

func (d *decoder) source(s *sourceSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "", known{"consul", d.consulSource(&s.consul)})
	}
}

func (d *decoder) consulSource(s *consulSourceSection) func(node) {
	return func(n node) {
		s.place, s.tried = n.place, true
		s.given = d.mapping(n, "",
			known{"service", d.text(&s.service)},
			known{"tag", d.text(&s.tag)},
			known{"filter", d.text(&s.filter)},
			known{"datacenter", d.text(&s.datacenter)},
			known{"namespace", d.text(&s.namespace)},
			known{"partition", d.text(&s.partition)},
			known{"tagged_address", d.text(&s.taggedAddress)},
			known{"warning", d.text(&s.warning)},
		)
	}
}

func (d *decoder) governor(s *governorSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"hold", d.time(&s.hold)},
			known{"empty_hold", d.time(&s.emptyHold)},
			known{"radius", d.radius(&s.radius)},
			known{"damping", d.damping(&s.damping)},
		)
	}
}

func (d *decoder) radius(s *radiusSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"reals", d.whole(&s.reals)},
			known{"percent", d.whole(&s.percent)},
			known{"step", d.time(&s.step)},
		)
	}
}

func (d *decoder) damping(s *dampingSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"suppress", d.whole(&s.suppress)},
			known{"reuse", d.whole(&s.reuse)},
			known{"half_life", d.time(&s.halfLife)},
			known{"max_suppress", d.time(&s.maxSuppress)},
		)
	}
}
