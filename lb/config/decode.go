// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import "go.yaml.in/yaml/v4"

// decode makes a document of a tree of a file of size bytes, and reports unknown and duplicate
// fields and values of wrong types. It returns false if, by what was reported, so much of the
// document is missing that there is no use in checking the rest.
func decode(root *yaml.Node, size int, r *report) (document, bool) {
	d := &decoder{report: r, left: size + aliasBudget}
	n := d.node(place{}, root)
	doc := document{place: n.place}
	ok := d.mapping(n, "",
		known{"interface", d.text(&doc.iface)},
		known{"mode", d.text(&doc.mode)},
		known{"on_exit", d.text(&doc.onExit)},
		known{"encapsulation", d.encap(&doc.encap)},
		known{"next_hop", d.nextHop(&doc.nextHop)},
		known{"flows", d.flows(&doc.flows)},
		known{"flow_table", d.flowTable(&doc.table)},
		known{"consul", d.consul(&doc.consul)},
		known{"governor", d.governor(&doc.governor)},
		known{"bgp", d.bgp(&doc.bgp)},
		known{"probes", d.probes(&doc.probes)},
		known{"metrics", d.metrics(&doc.metrics)},
		known{"source_routes", decodeList(d, &doc.routes, d.sourceRoute)},
		known{"decapsulation", d.decap(&doc.decap)},
		known{"quic_lb", d.quicLB(&doc.quicLB)},
		known{"icmp", d.icmp(&doc.icmp)},
		known{"services", decodeList(d, &doc.services, d.service)},
	)
	return doc, ok && !d.spent
}

func (d *decoder) encap(s *encapSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"type", d.text(&s.kind)},
			known{"ipip", d.ipip(&s.ipip)},
			known{"gue", d.gue(&s.gue)},
		)
	}
}

func (d *decoder) ipip(s *ipipSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"source4", d.text(&s.source4)},
			known{"source6", d.text(&s.source6)},
		)
	}
}

func (d *decoder) gue(s *gueSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"source4", d.text(&s.source4)},
			known{"source6", d.text(&s.source6)},
			known{"port", d.whole(&s.port)},
			known{"checksum", d.text(&s.checksum)},
		)
	}
}

func (d *decoder) nextHop(s *nextHopSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"mac", d.text(&s.mac)},
			known{"mtu", d.whole(&s.mtu)},
		)
	}
}

func (d *decoder) service(n node) serviceSection {
	s := serviceSection{place: n.place}
	s.ok = d.mapping(n, "", append([]known{
		{"name", d.text(&s.name)},
		{"vips", decodeList(d, &s.vips, d.vip)},
		{"ring", d.ring(&s.ring)},
		{"encapsulation", d.text(&s.encap)},
		{"flows", d.flows(&s.flows)},
		{"backends", d.unlessNull(decodeList(d, &s.backends, d.backend))},
		{"source", d.source(&s.source)},
		{"health", d.health(&s.health)},
	}, s.options.known(d)...)...)
	return s
}

func (d *decoder) ring(s *ringSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"size", d.whole(&s.size)},
			known{"hash", d.text(&s.hash)},
		)
	}
}

func (d *decoder) vip(n node) vipSection {
	s := vipSection{place: n.place}
	if n.isText() {
		d.text(&s.vip)(n)
		s.ok = true
		return s
	}
	s.ok = d.mapping(n, "a VIP such as 192.0.2.10:80/tcp, or ", append([]known{
		{"vip", d.text(&s.vip)},
		{"ring", d.ring(&s.ring)},
		{"encapsulation", d.text(&s.encap)},
		{"flows", d.flows(&s.flows)},
	}, s.options.known(d)...)...)
	return s
}

func (d *decoder) flows(s *flowsSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"tcp", d.text(&s.tcp)},
			known{"udp", d.text(&s.udp)},
			known{"drain", d.time(&s.drain)},
			known{"on_down", d.text(&s.onDown)},
			known{"grace", d.time(&s.grace)},
		)
	}
}

func (d *decoder) flowTable(s *flowTableSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"window", d.time(&s.window)},
			known{"size", d.whole(&s.size)},
			known{"new_per_second", d.whole(&s.newPerTick)},
			known{"udp_idle", d.time(&s.udpIdle)},
		)
	}
}

func (d *decoder) backend(n node) backendSection {
	s := backendSection{place: n.place}
	if n.isText() {
		d.text(&s.addr)(n)
		s.ok = true
		return s
	}
	s.ok = d.mapping(n, "an address such as 10.0.0.11, or ",
		known{"address", d.text(&s.addr)},
		known{"weight", d.whole(&s.weight)},
		known{"server_id", d.whole(&s.serverID)},
		known{"local", d.truth(&s.local)},
	)
	return s
}
