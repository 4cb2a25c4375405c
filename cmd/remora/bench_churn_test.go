// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/test/require"
)

func TestBenchChurnRefusesFlags(t *testing.T) {
	load := func(bench.Topology) (*ebpf.Program, io.Closer, error) { return nil, nil, errors.New("loaded") }
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"format", []string{"--format", "xml"}, `format "xml" is not`},
		{"mode", []string{"--modes", "quic"}, `flow mode "quic" is not transitions, always or never`},
		{"scenario", []string{"--scenarios", "war"}, `"war" is not one of add, remove`},
		{"flows", []string{"--flows", "1"}, "flows: 1 is not between"},
		{"window", []string{"--window", "1s"}, "window: 1s is less than 2s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := runBench(t, load, append([]string{"churn"}, tc.args...)...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it gives %v, want %q", err, tc.want)
			}
		})
	}
}

// The promises, at a small size: of many changes, and of a balancer that inherits. Without a memory of
// flows the same changes break many, so the flows do meet them.
func TestBenchChurnKeepsPromises(t *testing.T) {
	require.Root(t)
	out, err := runBench(t, nil, "churn", "--flows", "2000", "--window", "2s", "--scenarios", "mixed,lost-shared,down-rehash",
		"--modes", "transitions,never", "--format", "json", "--gate")
	t.Log(out) // with the seed
	if err != nil {
		t.Fatal(err)
	}
	var r bench.ChurnReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 6 {
		t.Fatalf("%d rows, want three scenarios in two modes", len(r.Rows))
	}
	for _, row := range r.Rows {
		if row.Began < 2000 || row.Packets < 3*row.Began {
			t.Errorf("%s, %s: only %d flows with %d packets", row.Scenario, row.Mode, row.Began, row.Packets)
		}
		if row.Mode == "never" && row.Moved == 0 || row.Scenario == "down-rehash" && row.Killed == 0 {
			t.Errorf("%s, %s: no flow met a change", row.Scenario, row.Mode)
		}
	}
}
