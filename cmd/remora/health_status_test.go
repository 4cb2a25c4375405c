// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestRealHealthWords(t *testing.T) {
	for _, c := range []struct {
		state  string
		health *realHealth
		want   string
	}{
		{"ok", nil, "ok"},
		{"retired", nil, "retired"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 100}, "up"},
		{"stale next hop", &realHealth{Local: "up", Outside: "up", Percent: 100}, "up; stale next hop"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 40}, "up, 40% of its weight"},
		{"ok", &realHealth{Local: "up", Outside: "up", Percent: 100, Fault: "path_mtu"}, "up, path_mtu"},
		{"ok", &realHealth{Local: "up", Outside: "down", Percent: 100}, "up, the catalogue says down"},
		{"draining, 1 flows (0)", &realHealth{Local: "down", Outside: "up", Reason: "refused"}, "down, refused; draining, 1 flows (0)"},
		{"retired", &realHealth{Local: "down", Outside: "up", Reason: "timeout", Fault: "vip_missing"}, "down, vip_missing; retired"},
		{"retired", &realHealth{Local: "down", Outside: "up", Suppressed: true}, "down, flapping; retired"},
		{"ok", &realHealth{Local: "unknown", Outside: "up", Percent: 100}, "unknown"},
	} {
		if got := (realStatus{State: c.state, Health: c.health}).state(); got != c.want {
			t.Errorf("%s, %+v: got %q, want %q", c.state, c.health, got, c.want)
		}
	}
}
