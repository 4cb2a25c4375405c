// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strings"
)

// Metrics is where metrics and the daemon's own health are served, and which. See docs/metrics.md.
type Metrics struct {
	// Listen is ADDRESS:PORT, or the absolute path of a unix socket. Default empty: nowhere, since who may
	// connect to a port of the loopback interface is every user of the machine.
	Listen string
	// PProf adds Go's profiles. Only on a loopback address or a socket. Default false.
	PProf bool
	// PerReal asks for series of each real. Default true.
	PerReal bool
	// MaxSeries bounds the series of reals: if there would be more, all of these are left out. 1 to
	// 10 000 000. Default 20 000.
	MaxSeries int
}

// DefaultMetrics is the one with all defaults.
func DefaultMetrics() Metrics { return Metrics{PerReal: true, MaxSeries: 20_000} }

type metricsSection struct {
	place
	given          bool
	listen         field[string]
	pprof, perReal field[bool]
	maxSeries      field[int64]
}

func (d *decoder) metrics(s *metricsSection) func(node) {
	return func(n node) {
		s.place = n.place
		s.given = d.mapping(n, "",
			known{"listen", d.text(&s.listen)},
			known{"pprof", d.truth(&s.pprof)},
			known{"per_real", d.truth(&s.perReal)},
			known{"max_series", d.whole(&s.maxSeries)},
		)
	}
}

func checkMetrics(s metricsSection, r *report) Metrics {
	def := DefaultMetrics()
	m := Metrics{
		Listen: checkMetricsListen(s.listen, r), PProf: s.pprof.value, PerReal: def.PerReal,
		MaxSeries: int(within(r, s.maxSeries, 1, 10_000_000, int64(def.MaxSeries))),
	}
	if s.perReal.ok {
		m.PerReal = s.perReal.value
	}
	if a, err := netip.ParseAddrPort(m.Listen); m.PProf && err == nil && !a.Addr().IsLoopback() {
		r.add(s.pprof.place, "profiles tell everybody who can reach %s too much: expected listen at a loopback address or a socket, or pprof: false", quote(m.Listen))
	}
	return m
}

// checkMetricsListen reads where to listen; empty for nowhere.
func checkMetricsListen(f field[string], r *report) string {
	if !f.ok || f.value == "off" {
		return ""
	}
	if strings.HasPrefix(f.value, "/") {
		return checkAPISocket(f, r)
	}
	if a, err := netip.ParseAddrPort(f.value); err != nil || a.Port() == 0 {
		r.add(f.place, "%s is no place to listen: expected off, an address and port such as 127.0.0.1:9645 or [::1]:9645, or the absolute path of a unix socket", quote(f.text))
		return ""
	}
	return f.value
}
