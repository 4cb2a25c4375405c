// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	ipip := Limit{Target: Remora, Case: "tcp4-ack", Flows: 1, Over: Unit, Max: 0.65}
	gue := Limit{Target: RemoraGUE, Case: "tcp4-ack", Flows: 1, Over: Remora, Max: 1.15}
	syn := Limit{Target: Remora, Case: "tcp4-syn", Flows: 1, Over: Remora, OverCase: "tcp4-ack", Max: 1.1}
	row := func(target string, ratios ...float64) Row {
		return Row{Target: target, Case: "tcp4-ack", Flows: 1, Ratios: ratios}
	}
	rowSYN := Row{Target: Remora, Case: "tcp4-syn", Flows: 1, Ratios: []float64{0.6}}
	for _, tc := range []struct {
		name  string
		rows  []Row
		limit Limit
		best  float64
		want  string
	}{
		{"met by the best of three", []Row{row(Remora, 0.9, 0.6, 0.7)}, ipip, 0.6, ""},
		{"met exactly", []Row{row(Remora, 0.65)}, ipip, 0.65, ""},
		{"not met", []Row{row(Remora, 0.9, 0.71, 0.8)}, ipip, 0.71, "gate: remora, tcp4-ack, 1 flow: 0.71 x lb_stats, promised 0.65"},
		{"compared within a reload", []Row{row(Remora, 0.5, 1), row(RemoraGUE, 0.6, 1.1)}, gue, 1.1, ""},
		{"GUE too slow", []Row{row(Remora, 0.5, 0.5), row(RemoraGUE, 0.6, 0.75)}, gue, 1.2, "gate: remora-gue, tcp4-ack, 1 flow: 1.20 x remora, promised 1.15"},
		{"not measured", []Row{row(RemoraGUE, 0.5)}, ipip, 0, "gate: remora, tcp4-ack, 1 flow: remora was not measured"},
		{"other not measured", []Row{row(RemoraGUE, 0.5)}, gue, 0, "gate: remora-gue, tcp4-ack, 1 flow: remora was not measured"},
		{"other case", []Row{row(Remora, 0.6), rowSYN}, syn, 1, ""},
		{"other case cheaper", []Row{row(Remora, 0.5), rowSYN}, syn, 1.2, "gate: remora, tcp4-syn, 1 flow: 1.20 x remora tcp4-ack, promised 1.10"},
		{"other case not measured", []Row{rowSYN}, syn, 0, "gate: remora, tcp4-syn, 1 flow: remora was not measured"},
		{"no figures", []Row{{Target: Remora, Case: "tcp4-ack", Flows: 1, Error: "verdict"}}, ipip, 0, "gate: remora, tcp4-ack, 1 flow: verdict"},
		{"other number of flows", []Row{{Target: Remora, Case: "tcp4-ack", Flows: 2, Ratios: []float64{0.1}}}, ipip, 0, "gate: remora, tcp4-ack, 1 flow: remora was not measured"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			js := Judge(ProgramReport{Unit: Unit, Rows: tc.rows}, []Limit{tc.limit})
			got := ""
			if err := JudgementError(js); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := js[0].Best - tc.best; diff > 1e-9 || diff < -1e-9 {
				t.Errorf("best is %v, want %v", js[0].Best, tc.best)
			}
		})
	}
}

// Every limit must be for something that the gate measures.
func TestLimitsAreMeasured(t *testing.T) {
	if _, err := SelectCases(GateCases()); err != nil {
		t.Error(err)
	}
	if err := ValidateFlows(GateFlows()); err != nil {
		t.Error(err)
	}
	seen := map[Limit]bool{}
	for _, l := range Limits() {
		key := l
		key.Max = 0
		if seen[key] {
			t.Errorf("two limits for %+v", key)
		}
		seen[key] = true
		if !slices.Contains(GateFlows(), l.Flows) {
			t.Errorf("the gate does not measure %d flows", l.Flows)
		}
		for _, name := range []string{l.Case, l.overCase()} {
			if !slices.Contains(GateCases(), name) {
				t.Errorf("the gate does not measure case %s", name)
			}
		}
	}
}

// What failed is measured again, with all that it is compared with, and its reloads are added.
func TestGateRepeats(t *testing.T) {
	ack := Limit{Target: Remora, Case: "tcp4-ack", Flows: 1, Over: Unit, Max: 0.65}
	gue := Limit{Target: RemoraGUE, Case: "tcp4-ack", Flows: 1, Over: Remora, Max: 1.15}
	syn := Limit{Target: Remora, Case: "tcp4-syn", Flows: 1, Over: Remora, OverCase: "tcp4-ack", Max: 1.1}
	other := Limit{Target: Remora, Case: "udp4", Flows: 1, Over: Unit, Max: 0.65}
	limits := []Limit{syn, ack, gue, other}
	row := func(target, name string, ratios ...float64) Row {
		return Row{Target: target, Case: name, UnitCase: name, Flows: 1, Verdict: "tx", Ratio: median(ratios), Ratios: ratios}
	}
	report := func(synRatio, udp float64) ProgramReport {
		return ProgramReport{Head: testHead(KindProg), Unit: Unit, Rows: []Row{
			row(Remora, "tcp4-ack", 0.6), row(RemoraGUE, "tcp4-ack", 0.6), row(Remora, "tcp4-syn", synRatio), row(Remora, "udp4", udp),
		}}
	}
	for _, tc := range []struct {
		name      string
		syn, udp  float64
		otherCPUs bool
		want      []Limit
	}{
		{"all is well", 0.6, 0.6, false, nil},
		{"a limit", 0.7, 0.6, true, []Limit{syn, ack, gue}},
		{"the record", 0.6, 0.64, false, []Limit{other}},
		{"the record of another machine", 0.6, 0.64, true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			record, r := report(0.6, 0.6), report(tc.syn, tc.udp)
			if tc.otherCPUs {
				record.Machine.CPUs = 64
			}
			if err := r.judgeAll(limits, record); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, r.failed(limits)); diff != "" {
				t.Error(diff)
			}
			r.add(report(0.6, 0.6))
			if err := errors.Join(r.judgeAll(limits, record), r.Err()); err != nil || len(r.Rows[0].Ratios) != 2 {
				t.Errorf("after a better reload it gives %v, %+v", err, r.Rows[0])
			}
		})
	}
}

func TestLimitsNeedBothSides(t *testing.T) {
	limits := []Limit{
		{Target: RemoraGUE, Case: "tcp4-ack", Flows: 1, Over: Remora},
		{Target: Remora, Case: "tcp4-syn", Flows: 64, Over: Remora, OverCase: "udp4"},
	}
	for _, tc := range []struct {
		target, name string
		flows        int
		want         bool
	}{
		{RemoraGUE, "tcp4-ack", 1, true},
		{Remora, "tcp4-ack", 1, true},
		{Remora, "tcp4-ack", 64, false},
		{Remora, "tcp4-syn", 64, true},
		{Remora, "udp4", 64, true},
		{RemoraGUE, "tcp4-syn", 64, false},
	} {
		if got := isNeeded(limits, tc.target, tc.name, tc.flows); got != tc.want {
			t.Errorf("%s, %s, %d flows: needed is %v", tc.target, tc.name, tc.flows, got)
		}
	}
}
