// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// programReport is a report of one target, one case and some numbers of flows.
func programReport(target string, rows map[int][]float64) ProgramReport {
	r := ProgramReport{Head: testHead(KindProg), Unit: Unit, Programs: []Program{{Name: target, Tag: "1", Instructions: 5}}}
	for _, flows := range []int{1, someFlows} {
		if ratios := rows[flows]; ratios != nil {
			r.Rows = append(r.Rows, Row{
				Target: target, Case: "tcp4-ack", UnitCase: "tcp4-ack", Flows: flows, Verdict: "tx", Growth: 20,
				Ratio: median(ratios), Spread: halfRange(ratios), Ratios: ratios,
			})
		}
	}
	return r
}

func TestCompareJudges(t *testing.T) {
	for _, tc := range []struct {
		name          string
		flows         int
		before, after []float64
		want          Result
	}{
		{"the same", 1, []float64{0.6, 0.61, 0.62}, []float64{0.6, 0.61, 0.62}, Equal},
		{"within the tolerance", 1, []float64{0.6, 0.61, 0.62}, []float64{0.62, 0.63, 0.64}, Equal},
		{"dearer", 1, []float64{0.6, 0.61, 0.62}, []float64{0.66, 0.67, 0.68}, Worse},
		{"dearer in most reloads, as noise is", 1, []float64{0.6, 0.61, 0.62}, []float64{0.61, 0.67, 0.68}, Equal},
		{"dearer in one reload, as noise is", 1, []float64{0.6, 0.61, 0.62}, []float64{0.6, 0.61, 0.9}, Equal},
		{"cheaper", 1, []float64{0.6, 0.61, 0.62}, []float64{0.5, 0.51, 0.52}, Better},
		{"many flows within the tolerance", someFlows, []float64{0.6, 0.61, 0.62}, []float64{0.7, 0.71, 0.72}, Equal},
		{"many flows dearer", someFlows, []float64{0.6, 0.61, 0.62}, []float64{0.74, 0.75, 0.76}, Worse},
		{"a floor", 1, []float64{-0.001, 0, 0.001}, []float64{0.001, 0.002, 0.003}, Equal},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := programReport("x", map[int][]float64{tc.flows: tc.before})
			b := programReport("x", map[int][]float64{tc.flows: tc.after})
			c, err := Compare(a, b)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Rows) != 1 || c.Rows[0].Result != tc.want {
				t.Errorf("rows are %+v, want one that is %s", c.Rows, tc.want)
			}
			if failed := c.Err() != nil; failed != (tc.want == Worse) {
				t.Errorf("it fails: %v", c.Err())
			}
		})
	}
}

func TestCompareNamesWhatChanged(t *testing.T) {
	a := programReport("old.o", map[int][]float64{1: {1, 1, 1}, someFlows: {1, 1, 1}})
	b := programReport("new.o", map[int][]float64{1: {1, 1, 1}})
	b.Machine.Kernel, b.Machine.Mitigations, b.Programs[0].Tag = "7.0.0", []string{"none"}, "2"
	c, err := Compare(a, b)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kernel: 6.18.0 -> 7.0.0", "mitigations: spectre_v2: Retpolines; retbleed: Safe RET -> none", "program: old.o -> new.o",
		"hash of new.o: 1 (5 instructions) -> 2 (5)",
	}
	if strings.Join(c.Changed, "|") != strings.Join(want, "|") {
		t.Errorf("changed are %q, want %q", c.Changed, want)
	}
	if len(c.Rows) != 2 || c.Rows[0].Result != Equal || c.Rows[1].Result != Missing {
		t.Errorf("rows are %+v", c.Rows)
	}
	if err := c.Err(); err != nil {
		t.Errorf("it gives %v", err)
	}
}

func TestCompareRefuses(t *testing.T) {
	good := programReport("x", map[int][]float64{1: {1}})
	changed := func(f func(*Row)) ProgramReport {
		r := programReport("x", map[int][]float64{1: {1}})
		f(&r.Rows[0])
		return r
	}
	for _, tc := range []struct {
		name  string
		after ProgramReport
		want  string
	}{
		{"other verdict", changed(func(r *Row) { r.Verdict, r.Growth = "drop", 0 }), "compare: x, tcp4-ack, 1 flow: verdict and growth are drop +0, were tx +20"},
		{"error", changed(func(r *Row) { r.Error = "verdict is wrong" }), "compare: x, tcp4-ack, 1 flow: verdict is wrong"},
		{"other unit", changed(func(r *Row) { r.UnitCase = "udp4" }), "compare: x, tcp4-ack, 1 flow: the unit is of case udp4, was of tcp4-ack"},
		{"nothing in common", changed(func(r *Row) { r.Case = "udp4" }), "compare: the reports have nothing in common"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Compare(good, tc.after)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Err(); err == nil || err.Error() != tc.want {
				t.Errorf("it gives %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := Compare(good, testRingReport()); err == nil || !strings.Contains(err.Error(), `kinds "prog" and "ring"`) {
		t.Errorf("a ring's report gives %v", err)
	}
}

// On another machine than the record's, nothing is judged.
func TestCompareRecord(t *testing.T) {
	before := programReport("x", map[int][]float64{1: {1, 1, 1}})
	after := programReport("x", map[int][]float64{1: {2, 2, 2}})
	c, err := CompareRecord(before, after)
	if err != nil || c.Err() == nil {
		t.Errorf("it gives %v, %v", err, c.Err())
	}
	after.Machine.CPU = "Model 2"
	c, err = CompareRecord(before, after)
	if err != nil || c.Err() != nil || c.Unjudged == "" {
		t.Errorf("on another machine it gives %v, %v", err, c.Err())
	}
}

func TestCommittedRecord(t *testing.T) {
	r, err := CommittedRecord()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range Limits() {
		if _, err := ratiosOf(r, l.Target, l.Case, l.Flows); err != nil {
			t.Errorf("the record has no figures for a limit: %s, %s, %s: %v", l.Target, l.Case, flowsText(l.Flows), err)
		}
	}
}

// renamedTarget is a reference program as a target of its own.
func renamedTarget(t *testing.T, name string) Target {
	t.Helper()
	target := floor(t, name)
	target.Name = "program"
	return target
}

// extraLookup is lb_stats with one more look-up in a hash map in front.
func extraLookup(t *testing.T) Target {
	t.Helper()
	target := renamedTarget(t, Unit)
	target.Load = func() (*ebpf.Program, io.Closer, error) {
		spec, err := loadReference()
		if err != nil {
			return nil, nil, err
		}
		if err := keepProgram(spec, Unit); err != nil {
			return nil, nil, err
		}
		own := spec.Programs[Unit].Instructions
		look := asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.StoreImm(asm.RFP, -8, 1, asm.Word),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -8),
			asm.LoadMapPtr(asm.R1, 0).WithReference("ref_vips"),
			asm.FnMapLookupElem.Call(),
			asm.Mov.Reg(asm.R1, asm.R6),
		}
		look[0].Metadata, own[0].Metadata = own[0].Metadata, asm.Metadata{} // the function begins here now
		spec.Programs[Unit].Instructions = append(look, own...)
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			return nil, nil, err
		}
		if err := fillReference(coll.Maps); err != nil {
			coll.Close()
			return nil, nil, err
		}
		return coll.Programs[Unit], collectionCloser{coll}, nil
	}
	return target
}

// attempts is how often a measurement may fail on a machine with other work.
const attempts = 6

// repeatedly runs a judgement of measurements until it succeeds.
func repeatedly(t *testing.T, judge func() error) {
	t.Helper()
	var err error
	for i := range attempts {
		if err = judge(); err == nil {
			return
		}
		t.Logf("attempt %d: %v", i+1, err)
	}
	t.Error(err)
}

// comparePrograms measures two targets, three reloads each, and compares them.
func comparePrograms(t *testing.T, before, after Target) (Comparison, error) {
	t.Helper()
	var reports []Report
	for _, target := range []Target{before, after} {
		o := Options{Reloads: 3, Rounds: 5, CPU: -1, FIFO: true}
		r, err := Prog(t.Context(), o, []Target{target}, []Case{caseNamed(t, "tcp4-ack")}, []int{1})
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	return Compare(reports[0], reports[1])
}

func TestCompareMeasuredPrograms(t *testing.T) {
	require.Root(t)
	for _, tc := range []struct {
		name  string
		after func(*testing.T) Target
		judge func(ComparedRow) error
	}{
		{"the same program", func(t *testing.T) Target { return renamedTarget(t, Unit) }, func(r ComparedRow) error {
			if r.Result != Equal || r.Quotient < 0.95 || r.Quotient > 1.05 {
				return fmt.Errorf("the same program is %s, at %.3f", r.Result, r.Quotient)
			}
			return nil
		}},
		{"one more look-up", extraLookup, func(r ComparedRow) error {
			if r.Result != Worse || r.Quotient < 1.1 {
				return fmt.Errorf("a dearer program is %s, at %.3f", r.Result, r.Quotient)
			}
			return nil
		}},
		{"a wrong verdict", func(t *testing.T) Target {
			target := renamedTarget(t, "drop")
			target.Expect = func(Case) Expectation { return Expectation{lb.TX, 20} }
			return target
		}, func(r ComparedRow) error {
			if r.Result != Refused || r.Problem != "verdict and growth are drop +0, expected tx +20" {
				return errors.New("a wrong program is " + string(r.Result) + ": " + r.Problem)
			}
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			repeatedly(t, func() error {
				c, err := comparePrograms(t, renamedTarget(t, Unit), tc.after(t))
				if err != nil {
					return err
				}
				if len(c.Rows) != 1 {
					t.Fatalf("%d rows, want 1", len(c.Rows))
				}
				return tc.judge(c.Rows[0])
			})
		})
	}
}

// Both ways to measure agree on what one program costs more than another.
func TestProgAndVethAgree(t *testing.T) {
	require.Root(t)
	targets := []Target{floor(t, "tx"), floor(t, Unit)}
	ack := []Case{caseNamed(t, "tcp4-ack")}
	difference := func(r ProgramReport, err error) float64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		cost := map[string]float64{}
		for _, row := range r.Rows {
			cost[row.Target] = row.NetP10
		}
		return cost[Unit] - cost["tx"]
	}
	o := Options{Reloads: 2, Rounds: 9, CPU: -1, FIFO: true}
	repeatedly(t, func() error {
		alone := difference(Prog(t.Context(), o, targets, ack, []int{1}))
		path := difference(Veth(t.Context(), o, targets, ack, []int{1}))
		t.Logf("lb_stats less tx: %.1f ns alone, %.1f ns on the path", alone, path)
		if off := path/alone - 1; !(off > -0.15 && off < 0.15) {
			return fmt.Errorf("the difference is %.1f ns alone and %.1f ns on the path", alone, path)
		}
		return nil
	})
}
