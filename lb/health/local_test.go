// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package health

import (
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/test/require"
)

// TestLocalVerdicts: a backend is down for the governor if it is for every VIP.
func TestLocalVerdicts(t *testing.T) {
	checks, err := healthcheck.New(healthcheck.Config[checkID]{OnChange: func([]healthcheck.Change[checkID]) {}})
	require.NoError(t, err)
	addr := netip.MustParseAddr("10.0.0.1")
	for _, tc := range []struct {
		name   string
		states []healthcheck.State // by VIP
		want   governor.Verdict
	}{
		{"down for one", []healthcheck.State{healthcheck.Down, healthcheck.Up}, governor.LocalUp},
		{"unknown for one", []healthcheck.State{healthcheck.Unknown, healthcheck.Down}, governor.LocalUnknown},
		{"down for all", []healthcheck.State{healthcheck.Down, healthcheck.Down}, governor.LocalDown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &Health{patients: make(map[lb.Target]*patient), checks: checks}
			for i, s := range tc.states {
				h.patients[lb.Target{VIP: lb.VIP{Port: uint16(i)}, Backend: addr}] = &patient{service: "web", verdict: healthcheck.Verdict{State: s}, heard: true}
			}
			if got := h.Verdicts()["web"][addr]; got != tc.want {
				t.Errorf("the governor is told %v, want %v", got, tc.want)
			}
		})
	}
}

// TestInitialIsNoFinding: what a backend is held for before its first conclusive result confirms nothing.
func TestInitialIsNoFinding(t *testing.T) {
	at := time.Now()
	for _, tc := range []struct {
		name   string
		status healthcheck.Status
		want   governor.Verdict
	}{
		{"no result", healthcheck.Status{}, governor.LocalUnknown},
		{"a fault of the balancer's own", healthcheck.Status{Last: healthcheck.Result{Reason: healthcheck.Local}, LastAt: at}, governor.LocalUnknown},
		{"refused", healthcheck.Status{Last: healthcheck.Result{Reason: healthcheck.Refused}, LastAt: at}, governor.LocalDown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &patient{verdict: healthcheck.Verdict{State: healthcheck.Down}}
			p.hear(tc.status)
			if got := p.local(); got != tc.want {
				t.Errorf("the governor is told %v, want %v", got, tc.want)
			}
		})
	}
}
