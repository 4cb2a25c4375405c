// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/test/require"
)

// runBench runs the verb with a program loader, and returns what it prints.
func runBench(t *testing.T, load loadBenchProgram, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := newBenchCommand(load)
	c.SetContext(t.Context())
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SilenceUsage, c.SilenceErrors = true, true
	err := c.Execute()
	return out.String(), err
}

func TestBenchRefusesFlags(t *testing.T) {
	load := func(bench.Topology) (*ebpf.Program, io.Closer, error) { return nil, nil, errors.New("loaded") }
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"format", []string{"prog", "--format", "xml"}, `format "xml" is not table, markdown or json`},
		{"format of ring", []string{"ring", "--format", "xml"}, `format "xml" is not table, markdown or json`},
		{"case", []string{"prog", "--cases", "tcp5"}, `"tcp5" is not one of`},
		{"flows", []string{"prog", "--flows", "1000"}, "1000 is not a power of two"},
		{"expect alone", []string{"prog", "--expect", "tx"}, "--program and --expect need --pinned or --object"},
		{"expect", []string{"prog", "--pinned", "/x", "--expect", "go"}, `verdict "go" is not drop, pass or tx`},
		{"program of a pin", []string{"prog", "--pinned", "/x", "--program", "y"}, "--program needs --object"},
		{"two programs", []string{"prog", "--pinned", "/x", "--object", "y"}, "[object pinned] were all set"},
		{"gate of something else", []string{"prog", "--gate", "--cases", "udp4"}, "[cases gate] were all set"},
		{"GUE of something else", []string{"veth", "--pinned", "/x", "--gue"}, "--gue is for remora's own program"},
		{"no way back", []string{"veth", "--cases", "not-a-vip"}, "is not sent out again"},
		{"extra VIPs", []string{"prog", "--extra-vips", "-1"}, "extra VIPs: -1 is not between"},
		{"ring size", []string{"ring", "--sizes", "4294967297"}, "size 4294967297 is more than"},
		{"argument", []string{"prog", "now"}, `unknown command "now"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := runBench(t, load, tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it gives %v, want %q", err, tc.want)
			}
		})
	}
}

// The gate measures remora with both encapsulations; a program that drops everything fails it.
func TestBenchGateFails(t *testing.T) {
	require.Root(t)
	var topologies []bench.Topology
	load := func(top bench.Topology) (*ebpf.Program, io.Closer, error) {
		topologies = append(topologies, top)
		return bench.Floors()[0].Load()
	}
	out, err := runBench(t, load, "prog", "--gate", "--rounds", "1", "--fifo=false")
	if err == nil {
		t.Fatal("it succeeds")
	}
	for _, want := range []string{
		"gate: remora, tcp4-ack, 1 flow: verdict and growth are drop +0, expected tx +20",
		"gate: remora-gue, tcp4-ack, 65536 flows: verdict and growth are drop +0, expected tx +28",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if !strings.Contains(out, "NOT MET") {
		t.Errorf("the report does not tell what was not met:\n%s", out)
	}
	if want := 2 * bench.GateReloads; len(topologies) != want {
		t.Errorf("loaded %d times, want %d", len(topologies), want)
	}
}

func TestBenchMeasuresObject(t *testing.T) {
	require.Root(t)
	args := []string{"prog", "--object", "../../bench/reference_bpfel.o", "--program", "tx", "--expect", "tx", "--cases", "tcp4-ack", "--flows", "1", "--rounds", "1", "--reloads", "1", "--fifo=false", "--format", "json"}
	out, err := runBench(t, nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, `"target": "reference_bpfel.o"`) || strings.Contains(out, `"error"`) {
		t.Errorf("report is\n%s", out)
	}
}

func TestBenchEndsOnCancellation(t *testing.T) {
	require.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newBenchCommand(nil)
	c.SetContext(ctx)
	c.SetArgs([]string{"ring"})
	c.SetOut(io.Discard)
	c.SetErr(io.Discard)
	if err := c.Execute(); !errors.Is(err, context.Canceled) {
		t.Errorf("it gives %v", err)
	}
}
