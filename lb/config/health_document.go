// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

// probesSection is what all health checks share.
type probesSection struct {
	place
	given bool
	marks field[string]
}

// healthSection is how a service's backends are checked.
type healthSection struct {
	place
	given                                    bool
	kind, way                                field[string]
	port                                     field[int64]
	interval, downInterval, timeout          field[string]
	fullSize                                 field[string]
	rise, fall, jitter, minHealthy, failOpen field[int64]
	initial, policy                          field[string]
	http                                     httpCheckSection
	tls                                      tlsCheckSection
	grpc                                     grpcCheckSection
	dns                                      dnsCheckSection
	udp                                      udpCheckSection
	exec                                     execCheckSection
	damping                                  flapSection
	slowStart                                slowStartSection
}

type httpCheckSection struct {
	place
	given                                     bool
	method, uri, host, expectBody, weightFrom field[string]
	headers, status, expectHeaders            list[field[string]]
}

type tlsCheckSection struct {
	place
	given                                         bool
	serverName, verify, caFile, certFile, keyFile field[string]
}

type grpcCheckSection struct {
	place
	given              bool
	service, authority field[string]
}

type dnsCheckSection struct {
	place
	given                                bool
	name, kind, transport, rcode, answer field[string]
}

type udpCheckSection struct {
	place
	given        bool
	send, expect field[string]
}

type execCheckSection struct {
	place
	given   bool
	command field[string]
	args    list[field[string]]
}

type flapSection struct {
	place
	given                    bool
	penalty, suppress, reuse field[int64]
	halfLife, longest        field[string]
}

type slowStartSection struct {
	place
	given    bool
	duration field[string]
	steps    field[int64]
}

func (d *decoder) probes(s *probesSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "", known{"marks", d.text(&s.marks)})
	}
}

func (d *decoder) health(s *healthSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"kind", d.text(&s.kind)},
			known{"path", d.text(&s.way)},
			known{"port", d.whole(&s.port)},
			known{"interval", d.time(&s.interval)},
			known{"down_interval", d.time(&s.downInterval)},
			known{"timeout", d.time(&s.timeout)},
			known{"full_size", d.time(&s.fullSize)},
			known{"rise", d.whole(&s.rise)},
			known{"fall", d.whole(&s.fall)},
			known{"jitter", d.whole(&s.jitter)},
			known{"initial", d.text(&s.initial)},
			known{"http", d.httpCheck(&s.http)},
			known{"tls", d.tlsCheck(&s.tls)},
			known{"grpc", d.grpcCheck(&s.grpc)},
			known{"dns", d.dnsCheck(&s.dns)},
			known{"udp", d.udpCheck(&s.udp)},
			known{"exec", d.execCheck(&s.exec)},
			known{"damping", d.flap(&s.damping)},
			known{"slow_start", d.slowStart(&s.slowStart)},
			known{"min_healthy", d.whole(&s.minHealthy)},
			known{"fail_open", d.whole(&s.failOpen)},
			known{"policy", d.text(&s.policy)},
		)
	}
}

func (d *decoder) httpCheck(s *httpCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"method", d.text(&s.method)},
			known{"path", d.text(&s.uri)},
			known{"host", d.text(&s.host)},
			known{"headers", decodeList(d, &s.headers, d.textElement)},
			known{"status", decodeList(d, &s.status, d.textElement)},
			known{"expect_headers", decodeList(d, &s.expectHeaders, d.textElement)},
			known{"expect_body", d.text(&s.expectBody)},
			known{"weight_from", d.text(&s.weightFrom)},
		)
	}
}

func (d *decoder) tlsCheck(s *tlsCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"server_name", d.text(&s.serverName)},
			known{"verify", d.text(&s.verify)},
			known{"ca_file", d.text(&s.caFile)},
			known{"cert_file", d.text(&s.certFile)},
			known{"key_file", d.text(&s.keyFile)},
		)
	}
}

func (d *decoder) grpcCheck(s *grpcCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"service", d.text(&s.service)},
			known{"authority", d.text(&s.authority)},
		)
	}
}

func (d *decoder) dnsCheck(s *dnsCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"name", d.text(&s.name)},
			known{"type", d.text(&s.kind)},
			known{"transport", d.text(&s.transport)},
			known{"rcode", d.text(&s.rcode)},
			known{"answer", d.text(&s.answer)},
		)
	}
}

func (d *decoder) udpCheck(s *udpCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"send", d.text(&s.send)},
			known{"expect", d.text(&s.expect)},
		)
	}
}

func (d *decoder) execCheck(s *execCheckSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"command", d.text(&s.command)},
			known{"args", decodeList(d, &s.args, d.textElement)},
		)
	}
}

func (d *decoder) flap(s *flapSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"penalty", d.whole(&s.penalty)},
			known{"suppress", d.whole(&s.suppress)},
			known{"reuse", d.whole(&s.reuse)},
			known{"half_life", d.time(&s.halfLife)},
			known{"longest", d.time(&s.longest)},
		)
	}
}

func (d *decoder) slowStart(s *slowStartSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"duration", d.time(&s.duration)},
			known{"steps", d.whole(&s.steps)},
		)
	}
}
