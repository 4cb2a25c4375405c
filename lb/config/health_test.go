// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// parseHealth parses a service with one VIP and this health section.
func parseHealth(t *testing.T, section string) Health {
	t.Helper()
	c := mustParse(t, "interface: eth0\nservices:\n- {name: web, vips: [192.0.2.10:80/tcp], health: "+section+"}\n")
	h, ok := c.Health["web"]
	if !ok {
		t.Fatal("the service has no health checks")
	}
	return h
}

func TestHealthDefaults(t *testing.T) {
	want := Health{
		Kind: KindTCP, Interval: 2 * time.Second, DownInterval: 2 * time.Second, Timeout: time.Second,
		Rise: 2, Fall: 3, Jitter: 10, Initial: InitialUnchanged, FailOpen: 1, Policy: "both",
	}
	if diff := cmp.Diff(want, parseHealth(t, "{kind: tcp}")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := mustParse(t, "interface: eth0\nprobes: {marks: \"0xfe000000\"}\nservices: []\n").ProbeMarks; got != 0xfe000000 {
		t.Errorf("marks %#x", got)
	}
}

func TestHealthIsRead(t *testing.T) {
	all := DefaultHealth()
	all.Direct, all.Port, all.Interval, all.DownInterval, all.Timeout = true, 81, 500*time.Millisecond, time.Second, 100*time.Millisecond
	all.Rise, all.Fall, all.Jitter, all.Initial, all.MinHealthy, all.FailOpen, all.Policy = 1, 5, 0, InitialDown, 2, 50, "consul"
	all.Damping = Damping{Penalty: 10, Suppress: 30, Reuse: 5, HalfLife: 10 * time.Second, Longest: time.Hour}
	all.SlowStart = SlowStart{Duration: time.Minute, Steps: 4}
	with := func(change func(*Health)) Health {
		h := DefaultHealth()
		change(&h)
		return h
	}
	for _, c := range []struct {
		name, section string
		want          Health
	}{
		{"rules", `{path: direct, port: 81, interval: 500ms, down_interval: 1s, timeout: 100ms, rise: 1, fall: 5, jitter: 0, initial: down,
  min_healthy: 2, fail_open: 50, policy: consul, damping: {penalty: 10, suppress: 30, reuse: 5, half_life: 10s, longest: 1h}, slow_start: {duration: 1m, steps: 4}}`, all},
		{"down interval", "{interval: 5s}", with(func(h *Health) { h.Interval, h.DownInterval = 5*time.Second, 5*time.Second })},
		{"full size", "{full_size: 1m}", with(func(h *Health) { h.FullSize = time.Minute })},
		{"https", `{kind: https, http: {method: HEAD, path: /x, host: a.example, headers: ["A: b: c"], status: ["204", "300-302"],
  expect_headers: ["X: ^y$"], expect_body: ok, weight_from: header W}, tls: {server_name: s, ca_file: ca, cert_file: c, key_file: k}}`,
			with(func(h *Health) {
				h.Kind = KindHTTPS
				h.HTTP = HTTPCheck{Method: "HEAD", Path: "/x", Host: "a.example", Headers: map[string]string{"A": "b: c"},
					Status: []StatusRange{{204, 204}, {300, 302}}, ExpectHeaders: map[string]string{"X": "^y$"}, ExpectBody: "ok", WeightHeader: "W"}
				h.TLS = &TLSCheck{ServerName: "s", CAFile: "ca", CertFile: "c", KeyFile: "k"}
			})},
		{"http", "{kind: http, http: {weight_from: body}}", with(func(h *Health) {
			h.Kind, h.HTTP = KindHTTP, HTTPCheck{Method: "GET", Path: "/", WeightBody: true}
		})},
		{"grpc", "{kind: grpc, grpc: {service: s, authority: a}, tls: {verify: none}}", with(func(h *Health) {
			h.Kind, h.GRPC, h.TLS = KindGRPC, GRPCCheck{"s", "a"}, &TLSCheck{SkipVerify: true}
		})},
		{"grpc in the clear", "{kind: grpc}", with(func(h *Health) { h.Kind = KindGRPC })},
		{"dns", "{kind: dns, dns: {name: n, type: AAAA, transport: tcp, rcode: NXDOMAIN, answer: \"::1\"}}", with(func(h *Health) {
			h.Kind, h.DNS = KindDNS, DNSCheck{Name: "n", Type: "AAAA", Rcode: "NXDOMAIN", Answer: "::1", TCP: true}
		})},
		{"udp", "{kind: udp, udp: {send: \"hex:00ff\", expect: x}}", with(func(h *Health) { h.Kind, h.UDP = KindUDP, UDPCheck{"hex:00ff", "x"} })},
		{"exec", "{kind: exec, exec: {command: /bin/true, args: [a, b]}}", with(func(h *Health) {
			h.Kind, h.Exec = KindExec, ExecCheck{Command: "/bin/true", Args: []string{"a", "b"}}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parseHealth(t, c.section)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
