// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
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
		{"features", []string{"prog", "--features", "some"}, `--features "some" is not none or all`},
		{"features of something else", []string{"prog", "--pinned", "/x", "--features", "all"}, "--features is for remora's own program"},
		{"gate with features", []string{"prog", "--gate", "--features", "all"}, "[features gate] were all set"},
		{"path of options", []string{"veth", "--cases", "tcp4-id"}, `case "tcp4-id" is for programs alone`},
		{"no way back", []string{"veth", "--cases", "not-a-vip"}, "is not sent out again"},
		{"extra VIPs", []string{"prog", "--extra-vips", "-1"}, "extra VIPs: -1 is not between"},
		{"ring size", []string{"ring", "--sizes", "4294967297"}, "size 4294967297 is more than"},
		{"scale", []string{"control", "--scales", "5x5"}, `scale "5x5" is not VIPSxREALSxSLOTS`},
		{"scale of no numbers", []string{"control", "--scales", "5xax7"}, `scale "5xax7" is not`},
		{"too many reals", []string{"control", "--scales", "5x5000x7"}, "reals not between 2 and 1000"},
		{"packet size", []string{"pktgen", "--sizes", "9000"}, `packet size "9000" is not imix`},
		{"family", []string{"pktgen", "--family", "ipx"}, `family "ipx" is not ipv4, ipv6 or both`},
		{"lab with an address", []string{"pktgen", "--dst-mac", "02:00:00:00:00:01"}, "need --tx-if"},
		{"interface with a family", []string{"pktgen", "--tx-if", "x", "--family", "ipv6"}, "[family tx-if] were all set"},
		{"no link address", []string{"pktgen", "--tx-if", "x", "--dst", "192.0.2.1:53/udp"}, "--dst-mac"},
		{"no destination", []string{"pktgen", "--tx-if", "x", "--dst-mac", "02:00:00:00:00:01"}, "no destinations"},
		{"destination of TCP", []string{"pktgen", "--tx-if", "x", "--dst-mac", "02:00:00:00:00:01", "--dst", "192.0.2.1:80/tcp"}, "its protocol is not udp"},
		{"weight", []string{"pktgen", "--tx-if", "x", "--dst-mac", "02:00:00:00:00:01", "--weight", "10.0.0.1"}, `--weight "10.0.0.1" is not ADDRESS=WEIGHT`},
		{"search", []string{"pktgen", "--search", "--tries", "0"}, "search: tries: 0"},
		{"across with flows", []string{"veth", "--across", "--flows", "1"}, "[across flows] were all set"},
		{"report to nowhere", []string{"report", "x.json"}, "neither --output nor --into"},
		{"report of nothing", []string{"report", "/no/such.json", "-o", "x"}, "open report"},
		{"compare one", []string{"compare", "x.json"}, "accepts 2 arg(s), received 1"},
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

// A program with another verdict is refused by its saved reports, with the exit code of a failure; the
// same reports make a page.
func TestBenchSavedReports(t *testing.T) {
	require.Root(t)
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	for name, expect := range map[string]string{"tx": "tx", "drop": "drop"} {
		args := []string{
			"prog", "--object", "../../bench/reference_bpfel.o", "--program", name, "--expect", expect, "--cases", "tcp4-ack", "--flows", "1",
			"--rounds", "1", "--reloads", "1", "--fifo=false", "--save", file(name),
		}
		if _, err := runBench(t, nil, args...); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runBench(t, nil, "compare", file("tx"), file("drop"))
	if want := "verdict and growth are drop +0, were tx +0"; err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(out, want) {
		t.Errorf("it gives %v, want %q\n%s", err, want, out)
	}
	if out, err := runBench(t, nil, "compare", file("tx"), file("tx")); err != nil {
		t.Errorf("a report differs from itself: %v\n%s", err, out)
	}
	document := file("document.md")
	if err := os.WriteFile(document, []byte("<!-- bench:prog -->\n<!-- bench:end -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runBench(t, nil, "report", file("tx"), "-o", file("page.html"), "--into", document); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"page.html": "<h2>One program</h2>", "document.md": "| target | case |"} {
		if b, err := os.ReadFile(file(name)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %q: %v", name, want, err)
		}
	}
}

// Few VIPs of few reals, with the real engine and data plane.
func TestBenchControl(t *testing.T) {
	require.Root(t)
	out, err := runBench(t, nil, "control", "--scales", "3x3x4093,102x2x251", "--changes", "4", "--starts=false", "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.ReadReport(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	rows := r.(bench.ControlReport).Rows
	if len(rows) != 2 {
		t.Fatalf("%d rows, want 2", len(rows))
	}
	for _, row := range rows {
		if row.FirstApply <= 0 || row.ChangeAll <= 0 || row.Change.P10 <= 0 || row.MapsMB <= 0 || row.Start != 0 {
			t.Errorf("row is %+v", row)
		}
	}
}

// Traffic through remora's own program, whose servers have different weights.
func TestBenchPktgen(t *testing.T) {
	require.Root(t)
	out, err := runBench(t, loadBench, "pktgen", "--family", "both", "--sizes", "imix", "--across=false", "--duration", "200ms", "--fifo=false", "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := bench.ReadReport(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	trials := r.(bench.TrafficReport).Trials
	if len(trials) != 2 {
		t.Fatalf("%d trials, want one of each family", len(trials))
	}
	for _, one := range trials {
		if one.Lost != 0 || one.Plain != 0 || one.Balance.Servers != 100 || one.Balance.Deviation > 0.25 {
			t.Errorf("trial is %+v", one)
		}
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
