// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import "testing"

func TestMetricsListen(t *testing.T) {
	for text, want := range map[string]string{
		"listen: off":                        "",
		"listen: 127.0.0.1:9645":             "127.0.0.1:9645",
		`listen: "[2001:db8::1]:9645"`:       "[2001:db8::1]:9645",
		"listen: /run/remora/metrics.sock":   "/run/remora/metrics.sock",
		"pprof: false":                       "",
		"{listen: 127.0.0.2:1, pprof: true}": "127.0.0.2:1",
		"{listen: /run/m.sock, pprof: true}": "/run/m.sock",
	} {
		c := mustParse(t, "interface: eth0\nmetrics:\n  "+text+"\nservices: []\n")
		if c.Metrics.Listen != want {
			t.Errorf("%s: listen %q, want %q", text, c.Metrics.Listen, want)
		}
		if !c.Metrics.PerReal || c.Metrics.MaxSeries != 20_000 {
			t.Errorf("%s: defaults are %+v", text, c.Metrics)
		}
	}
}
