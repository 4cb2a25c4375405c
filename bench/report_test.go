// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testMachine() Machine {
	return Machine{
		Kernel: "6.18.0", Arch: "amd64", CPU: "Model 1", CPUs: 2, Mitigations: []string{"spectre_v2: Retpolines", "retbleed: Safe RET"},
		JIT: "on", Governor: "none", Virtual: true, Load: "0.42 0.20 0.09", LoadAfter: "1.00 0.50 0.20",
	}
}

func testHead(kind string) Head {
	return Head{Schema: Schema, Kind: kind, Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Machine: testMachine()}
}

func testReport() ProgramReport {
	r := ProgramReport{
		Head: testHead(KindProg), Unit: Unit,
		Programs: []Program{
			{Name: Unit, Tag: "0123456789abcdef", Instructions: 217, JITedBytes: 913, Walked: 234, LoadMS: 5.04},
			{Name: Remora, Instructions: 800, JITedBytes: 3362, Walked: 1423, LoadMS: 12},
		},
		Rows: []Row{
			{Target: Unit, Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: 1, Verdict: "tx", Growth: 20, Ratio: 1, Ratios: []float64{1, 1, 1}, NetP10: 38.71, NetMedian: 40},
			{Target: Remora, Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: 1, Verdict: "tx", Growth: 20, Ratio: 0.534, Spread: 0.07, Ratios: []float64{0.5, 0.534, 0.64}, NetP10: 19.5, NetMedian: 20.25},
			{Target: Remora, Case: "tcp6", UnitCase: "tcp4-ack", Flows: 65536, Verdict: "tx", Growth: 40, Ratio: -0.0004, Spread: 0, Ratios: []float64{-0.0004}, NetP10: -0.04, NetMedian: 0},
			{Target: Remora, Case: "not-a-vip", UnitCase: "not-a-vip", Flows: 1, Verdict: "drop", Error: "verdict and growth are drop +0, expected pass +0"},
		},
	}
	r.note("not in the real-time class: operation not permitted")
	r.Gate = Judge(r, []Limit{
		{Target: Remora, Case: "tcp4-ack", Flows: 1, Over: Unit, Max: 0.65},
		{Target: Remora, Case: "not-a-vip", Flows: 1, Over: Unit, Max: 0.55},
	})
	return r
}

func testVethReport() ProgramReport {
	return ProgramReport{
		Head: testHead(KindVeth), Unit: "drop",
		Programs: []Program{{Name: "drop", Instructions: 2, JITedBytes: 23, Walked: 2, LoadMS: 0.6}},
		Rows: []Row{
			{Target: "drop", Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: 1, Verdict: "drop", Ratio: 1, PathP10: 133.2},
			{Target: "tx", Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: 1, Verdict: "tx", Ratio: 1.372, Spread: 0.004, NetP10: 49, NetMedian: 49.6, PathP10: 182, Lost: 7},
		},
	}
}

func testRingReport() RingReport {
	return RingReport{
		Head: testHead(KindRing),
		Rows: []RingRow{
			{Size: 65537, Members: 100, Build: Spread{1.6, 1.73, 1.9}, Full: Spread{0.1, 0.2, 0.3}, Change: Spread{0.04, 0.05, 0.06}, Same: Spread{0.04, 0.04, 0.05}, Changed: 1002},
			{Size: 4093, Members: 4000, Weighted: true, Build: Spread{1, 2, 3}},
		},
	}
}

// TestReportFormats compares with testdata; UPDATE_GOLDEN=1 writes it anew, to be read before it is
// committed.
func TestReportFormats(t *testing.T) {
	for name, r := range map[string]Report{
		"prog.txt": testReport(), "prog.md": testReport(), "prog.json": testReport(),
		"veth.txt": testVethReport(), "veth.md": testVethReport(),
		"ring.txt": testRingReport(), "ring.json": testRingReport(),
		"traffic.txt": testTrafficReport(), "control.txt": testControlReport(),
	} {
		t.Run(name, func(t *testing.T) {
			write := map[string]func(io.Writer, Tabular) error{".txt": WriteText, ".md": WriteMarkdown, ".json": WriteJSON}
			var got bytes.Buffer
			if err := write[filepath.Ext(name)](&got, r); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name)
			if os.Getenv("UPDATE_GOLDEN") == "1" {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s differs (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestReportErr(t *testing.T) {
	want := "remora, not-a-vip, 1 flow: verdict and growth are drop +0, expected pass +0\n" +
		"gate: remora, not-a-vip, 1 flow: verdict and growth are drop +0, expected pass +0"
	if err := testReport().Err(); err == nil || err.Error() != want {
		t.Errorf("Err gives %v, want %q", err, want)
	}
	if err := testVethReport().Err(); err == nil || err.Error() != "tx, tcp4-ack, 1 flow: 7 frames lost" {
		t.Errorf("Err gives %v", err)
	}
	if err := (ProgramReport{Rows: []Row{{Ratio: 1}}}).Err(); err != nil {
		t.Errorf("Err gives %v", err)
	}
}
