// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Health is how the backends of a service are checked, for each of its VIPs.
type Health struct {
	// Kind is the question. Default KindTCP.
	Kind CheckKind
	// Direct sends probes to the backend's own address, not through the tunnel to the VIP. Default
	// false.
	Direct bool
	// Port is the port of probes, 1 to 65535; 0, the default, is that of the VIP.
	Port uint16
	// Interval is the time from one probe to the next while a backend is up, DownInterval while it is
	// not; 100 ms to 1 h. Default 2 s, and Interval.
	Interval, DownInterval time.Duration
	// Timeout is how long a probe may take, 10 ms to 1 min. Default 1 s.
	Timeout time.Duration
	// FullSize is the time between two TCP probes with packets of the greatest length, whose failure
	// is reported but has no other effect; 1 s to 24 h. Default 0: none.
	FullSize time.Duration
	// Rise and Fall are how many probes in a row must pass, or fail; 1 to 1000. Default 2 and 3.
	Rise, Fall int
	// Jitter is by how many percent intervals vary, 0 to 50. Default 10.
	Jitter int
	// Initial is the verdict before Rise or Fall is reached. Default InitialUnchanged.
	Initial Initial
	// What belongs to the kind; only the one of the kind is not zero.
	HTTP HTTPCheck
	GRPC GRPCCheck
	DNS  DNSCheck
	UDP  UDPCheck
	Exec ExecCheck
	// TLS, if not nil, is how KindHTTPS and KindGRPC speak TLS; KindHTTPS has it always.
	TLS *TLSCheck
	// Damping keeps a backend down that goes up and down too often. Default off.
	Damping Damping
	// SlowStart gives a backend that recovered its weight in steps. Default off.
	SlowStart SlowStart
	// MinHealthy is how many backends must be healthy for a VIP to be servable, 0 to 65535. Default 0.
	MinHealthy int
	// FailOpen is the percentage of healthy backends below which the checks are not believed, and all
	// backends serve; 0 to 100, 0 for never. Default 1: when none is healthy.
	FailOpen int
	// Policy is local, consul or both: whose verdict counts. Consul says of backends of the file that
	// they are up. Default "both": a backend is down if one says so.
	Policy string
}

// CheckKind is the question that a probe asks.
type CheckKind string

// The kinds of checks.
const (
	KindTCP   CheckKind = "tcp"
	KindSYN   CheckKind = "syn"
	KindHTTP  CheckKind = "http"
	KindHTTPS CheckKind = "https"
	KindGRPC  CheckKind = "grpc"
	KindDNS   CheckKind = "dns"
	KindUDP   CheckKind = "udp"
	KindICMP  CheckKind = "icmp"
	KindExec  CheckKind = "exec"
)

// Initial is what is held of a backend before its checks have come to a verdict.
type Initial string

// The initial verdicts.
const (
	// InitialUnchanged: as before a restart; a backend that is new is up.
	InitialUnchanged Initial = "unchanged"
	InitialUp        Initial = "up"
	InitialDown      Initial = "down"
)

// Damping counts a penalty for each time that a backend goes down.
type Damping struct {
	// Penalty is added each time, 1 to 1 000 000; 0: no damping.
	Penalty int
	// Suppress and Reuse are where a backend is held down, and let go again.
	Suppress, Reuse int
	// HalfLife is in which the sum halves, Longest how long a backend is held down at most.
	HalfLife, Longest time.Duration
}

// SlowStart is the time until a backend that recovered has its whole weight, in so many steps.
type SlowStart struct {
	// Duration is 0, for none, to 1 h.
	Duration time.Duration
	// Steps is 2 to 100. Default 10.
	Steps int
}

// DefaultHealth is the one with all defaults.
func DefaultHealth() Health {
	return Health{
		Kind: KindTCP, Interval: 2 * time.Second, DownInterval: 2 * time.Second, Timeout: time.Second,
		Rise: 2, Fall: 3, Jitter: 10, Initial: InitialUnchanged, FailOpen: 1, Policy: "both",
	}
}

// DefaultProbeMarks is the default of Config.ProbeMarks.
const DefaultProbeMarks = 0x72000000

// checkProbes reads the range of marks.
func checkProbes(s probesSection, r *report) uint32 {
	if !s.marks.ok {
		return DefaultProbeMarks
	}
	n, err := strconv.ParseUint(s.marks.value, 0, 32)
	if err != nil || n == 0 || n&uint64(lb.MaxRealID) != 0 {
		r.add(s.marks.place, "%s is not a range of marks: expected its first mark, in quotes, with 24 zero bits at its end, such as \"0x72000000\"",
			quote(s.marks.text))
		return DefaultProbeMarks
	}
	return uint32(n)
}

// checkHealth reads how backends are checked; false if they are not.
func checkHealth(s healthSection, r *report) (Health, bool) {
	if !s.given {
		return Health{}, false
	}
	h := DefaultHealth()
	var kinds []choice[CheckKind]
	for _, k := range []CheckKind{KindTCP, KindSYN, KindHTTP, KindHTTPS, KindGRPC, KindDNS, KindUDP, KindICMP, KindExec} {
		kinds = append(kinds, choice[CheckKind]{string(k), k})
	}
	h.Kind = choose(r, s.kind, h.Kind, kinds...)
	h.Direct = choose(r, s.way, false, choice[bool]{"tunnel", false}, choice[bool]{"direct", true})
	h.Port = uint16(within(r, s.port, 1, 65535, 0))
	h.Rise = int(within(r, s.rise, 1, 1000, int64(h.Rise)))
	h.Fall = int(within(r, s.fall, 1, 1000, int64(h.Fall)))
	h.Jitter = int(within(r, s.jitter, 0, 50, int64(h.Jitter)))
	h.MinHealthy = int(within(r, s.minHealthy, 0, 65535, 0))
	h.FailOpen = int(within(r, s.failOpen, 0, 100, int64(h.FailOpen)))
	h.Initial = choose(r, s.initial, h.Initial, choice[Initial]{"unchanged", InitialUnchanged},
		choice[Initial]{"up", InitialUp}, choice[Initial]{"down", InitialDown})
	h.Policy = choose(r, s.policy, h.Policy, choice[string]{"local", "local"}, choice[string]{"consul", "consul"}, choice[string]{"both", "both"})
	h.checkTimes(s, r)
	h.checkKindSections(s, r)
	h.Damping = checkFlap(s.damping, r)
	h.SlowStart = checkSlowStart(s.slowStart, r)
	return h, true
}

func (h *Health) checkTimes(s healthSection, r *report) {
	const shortest, longest = 100 * time.Millisecond, time.Hour
	h.Interval = duration(r, s.interval, shortest, longest, h.Interval)
	h.DownInterval = duration(r, s.downInterval, shortest, longest, h.Interval)
	h.Timeout = duration(r, s.timeout, 10*time.Millisecond, time.Minute, h.Timeout)
	h.FullSize = duration(r, s.fullSize, time.Second, 24*time.Hour, 0)
	if h.FullSize > 0 && h.Direct {
		r.add(s.fullSize.place, "full-size probes go through the tunnel, but path is direct: expected one of the two")
	}
}

// checkKindSections reads the section of the kind, and refuses those of others.
func (h *Health) checkKindSections(s healthSection, r *report) {
	for _, section := range []struct {
		name  string
		given bool
		at    place
		of    []CheckKind
	}{
		{"http", s.http.given, s.http.place, []CheckKind{KindHTTP, KindHTTPS}},
		{"tls", s.tls.given, s.tls.place, []CheckKind{KindHTTPS, KindGRPC}},
		{"grpc", s.grpc.given, s.grpc.place, []CheckKind{KindGRPC}},
		{"dns", s.dns.given, s.dns.place, []CheckKind{KindDNS}},
		{"udp", s.udp.given, s.udp.place, []CheckKind{KindUDP}},
		{"exec", s.exec.given, s.exec.place, []CheckKind{KindExec}},
	} {
		if section.given && !isOneOf(h.Kind, section.of) {
			r.add(section.at, "has no effect with the kind %s: expected %s only with %s", h.Kind, section.name, enumerateKinds(section.of))
		}
	}
	switch h.Kind {
	case KindHTTP, KindHTTPS:
		h.HTTP = checkHTTPCheck(s.http, r)
	case KindGRPC:
		h.GRPC = GRPCCheck{Service: s.grpc.service.value, Authority: s.grpc.authority.value}
	case KindDNS:
		h.DNS = checkDNSCheck(s, r)
	case KindUDP:
		h.UDP = checkUDPCheck(s.udp, r)
	case KindExec:
		h.Exec = checkExecCheck(s, r)
	}
	if h.Kind == KindHTTPS || h.Kind == KindGRPC && s.tls.given {
		h.TLS = checkTLSCheck(s.tls, r)
	}
}

func isOneOf(k CheckKind, kinds []CheckKind) bool {
	for _, one := range kinds {
		if k == one {
			return true
		}
	}
	return false
}

func enumerateKinds(kinds []CheckKind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return enumerate(words, "or")
}

func checkFlap(s flapSection, r *report) Damping {
	if !s.given {
		return Damping{}
	}
	d := Damping{
		Penalty:  int(within(r, s.penalty, 1, 1_000_000, 1000)),
		Suppress: int(within(r, s.suppress, 2, 1_000_000_000, 2500)),
		Reuse:    int(within(r, s.reuse, 1, 1_000_000_000, 800)),
		HalfLife: duration(r, s.halfLife, time.Second, 24*time.Hour, time.Minute),
	}
	d.Longest = duration(r, s.longest, d.HalfLife, 24*time.Hour, max(5*time.Minute, d.HalfLife))
	if d.Reuse >= d.Suppress {
		r.add(s.place, "reuse is %d and suppress %d: expected reuse to be less", d.Reuse, d.Suppress)
	}
	return d
}

func checkSlowStart(s slowStartSection, r *report) SlowStart {
	if !s.given {
		return SlowStart{}
	}
	if !s.duration.given {
		r.add(s.field("duration"), "missing: expected the time until a backend that recovered has its whole weight, such as 30s")
	}
	return SlowStart{
		Duration: duration(r, s.duration, 0, time.Hour, 0),
		Steps:    int(within(r, s.steps, 2, 100, 10)),
	}
}

// checkHealthPort demands a port where no VIP says which one.
func (s *services) checkHealthPort(section healthSection, h Health, vips []lb.ServiceVIP) {
	if h.Port != 0 || h.Kind == KindICMP || h.Kind == KindExec {
		return
	}
	for _, v := range vips {
		if v.VIP.Port == 0 && v.VIP.Addr.IsValid() {
			s.add(section.field("port"), "missing, but the VIP %s is for all ports: expected the port to check", v.VIP)
			return
		}
	}
}
