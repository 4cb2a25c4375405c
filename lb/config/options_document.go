// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

// optionsSection is what a service or VIP says of how its packets find their backend.
type optionsSection struct {
	hash                     list[field[string]]
	fragments, connectionIDs field[string]
	tcpIDs, udpIDs, routes   field[bool]
}

// known are the fields of the section, which stand beside others.
func (s *optionsSection) known(d *decoder) []known {
	return []known{
		{"hash", decodeList(d, &s.hash, d.textElement)},
		{"fragments", d.text(&s.fragments)},
		{"connection_ids", d.text(&s.connectionIDs)},
		{"tcp_ids", d.truth(&s.tcpIDs)},
		{"udp_ids", d.truth(&s.udpIDs)},
		{"source_routes", d.truth(&s.routes)},
	}
}

type sourceRouteSection struct {
	place
	ok            bool
	prefixes      list[field[string]]
	file, backend field[string]
}

func (d *decoder) sourceRoute(n node) sourceRouteSection {
	s := sourceRouteSection{place: n.place}
	s.ok = d.mapping(n, "",
		known{"prefixes", decodeList(d, &s.prefixes, d.textElement)},
		known{"file", d.text(&s.file)},
		known{"backend", d.text(&s.backend)},
	)
	return s
}

type decapSection struct {
	place
	given        bool
	guePort      field[int64]
	destinations list[decapDestinationSection]
	others       field[string]
}

type decapDestinationSection struct {
	place
	ok           bool
	addr, action field[string]
}

func (d *decoder) decap(s *decapSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"gue_port", d.whole(&s.guePort)},
			known{"destinations", decodeList(d, &s.destinations, d.decapDestination)},
			known{"others", d.text(&s.others)},
		)
	}
}

func (d *decoder) decapDestination(n node) decapDestinationSection {
	s := decapDestinationSection{place: n.place}
	s.ok = d.mapping(n, "",
		known{"address", d.text(&s.addr)},
		known{"action", d.text(&s.action)},
	)
	return s
}

type quicLBSection struct {
	place
	given                   bool
	configID, serverIDBytes field[int64]
}

func (d *decoder) quicLB(s *quicLBSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"config_id", d.whole(&s.configID)},
			known{"server_id_bytes", d.whole(&s.serverIDBytes)},
		)
	}
}

type icmpSection struct {
	place
	given   bool
	answers field[int64]
}

func (d *decoder) icmp(s *icmpSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "", known{"answers_per_second", d.whole(&s.answers)})
	}
}
