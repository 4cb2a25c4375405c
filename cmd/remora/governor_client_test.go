// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/test/require"
)

func (d *clientDaemon) Held(context.Context) (control.Held, error) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	return control.Held{
		Holds: []control.Hold{{Source: "consul", Service: "web", Object: "10.20.0.11", Rule: "radius", Since: since, Until: since.Add(time.Minute),
			Sentence: "stays active", Release: "its time"}},
		Refusals: []control.Refusal{{Source: "consul", Service: "web", Object: "node/web", Reason: "port 81"}},
		Rules:    []control.RuleCount{{Rule: "radius", Held: 3}},
	}, nil
}

func (d *clientDaemon) Freeze(_ context.Context, f control.Freeze) (string, time.Time, error) {
	return f.Service, time.Now().Add(f.Duration), nil
}

func (d *clientDaemon) Unfreeze(_ context.Context, service string) (string, error) {
	return "", &control.Error{Code: control.CodeRefused, Problem: "it is not frozen"}
}

func (d *clientDaemon) Accept(_ context.Context, service string) (string, int, error) {
	return service, 2, nil
}

// TestGovernorVerbs: what an operator types, and what comes of it.
func TestGovernorVerbs(t *testing.T) {
	socket := serveControl(t, newClientDaemon(t))
	for _, tc := range []struct {
		line string
		// out and bad are parts of the output and of the error.
		out, bad string
	}{
		{line: "freeze web --for 1h --reason upgrade", out: "web: frozen until 20"},
		{line: "freeze web --for 1h --reason upgrade -o json", out: `"service":"web"`},
		{line: "freeze web --for 1h", bad: `"reason" not set`},
		{line: "freeze web --reason upgrade", bad: `"for" not set`},
		{line: "freeze web --for -1h --reason upgrade", bad: "duration: -1h0m0s is not more than 0"},
		{line: "freeze --for 1h --reason upgrade", bad: "accepts 1 arg"},
		{line: "unfreeze web", bad: "it is not frozen"},
		{line: "accept web", out: "web: 2 changes let through"},
		{line: "accept web -o json", out: `"changes":2`},
		{line: "accept web -o xml", bad: `output "xml" is not text or json`},
	} {
		t.Run(tc.line, func(t *testing.T) {
			var out bytes.Buffer
			cmd := newRootCommand()
			cmd.SetArgs(append(strings.Fields(tc.line), "--socket", socket))
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			err := cmd.ExecuteContext(t.Context())
			if tc.bad != "" {
				require.ErrorSays(t, err, tc.bad)
				return
			}
			require.NoError(t, err)
			if !strings.Contains(strings.ReplaceAll(out.String(), `": `, `":`), tc.out) {
				t.Errorf("output %q", out.String())
			}
		})
	}
}

func TestPrintHeld(t *testing.T) {
	held, err := readHeld(t.Context(), "", serveControl(t, newClientDaemon(t)))
	require.NoError(t, err)
	var out strings.Builder
	printHeld(&out, held)
	const want = `
Held back, refused, or not used (docs/consul.md):
  web 10.20.0.11: stays active
    rule radius, since 2026-03-01 12:00:00, until 2026-03-01 12:01:00; ends by its time
  web node/web: port 81
  since the start: radius 3
`
	if out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
