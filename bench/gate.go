// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// The names of the product's program with IPIP, and with GUE, which are judged; and with all of its features, unused
// and used.
const (
	Remora         = "remora"
	RemoraGUE      = "remora-gue"
	RemoraFeatures = "remora-features"
	RemoraOptions  = "remora-options"
)

// Limit is what a cost may not exceed.
type Limit struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	Flows  int    `json:"flows"`
	// Over is the program that Max is a multiple of: lb_stats or another target; OverCase the case in
	// which it is, empty for Case.
	Over     string  `json:"over"`
	OverCase string  `json:"over_case,omitempty"`
	Max      float64 `json:"max"`
}

// Limits are the promises. They lie above the medians measured when they were made by about the
// spread; a limit is changed together with docs/performance.md.
func Limits() []Limit {
	of := func(name string, flows int, most float64) Limit {
		return Limit{Target: Remora, Case: name, Flows: flows, Over: Unit, Max: most}
	}
	limits := []Limit{
		of("tcp4-ack", 1, 0.65), of("tcp4-ack", someFlows, 0.75),
		of("tcp4-syn", 1, 0.65), of("tcp4-syn", someFlows, 0.75),
		of("udp4", 1, 0.65), of("udp4", someFlows, 0.75),
		of("tcp4-moving-hit", someFlows, 4.2), // docs/decisions/0007
	}
	for _, n := range []int{1, someFlows} {
		ipv6 := 0.85
		if n == someFlows {
			ipv6 = 0.95 // where memory lies moves this by a tenth
		}
		limits = append(limits,
			of("tcp4in6", n, ipv6), of("tcp6", n, ipv6), of("tcp6in4", n, ipv6), of("not-a-vip", n, 0.55),
			Limit{Target: RemoraGUE, Case: "tcp4-ack", Flows: n, Over: Remora, Max: 1.15})
	}
	// A flood of SYN is no dearer than other packets.
	for _, n := range []int{someFlows, manyFlows} {
		limits = append(limits, Limit{Target: Remora, Case: "tcp4-syn", Flows: n, Over: Remora, OverCase: "tcp4-ack", Max: 1.1})
	}
	return limits
}

// Numbers of flows: as many as fit into caches, and as many as do not.
const (
	someFlows = 1 << 16
	manyFlows = 1 << 20
)

// GateFlows are the numbers of flows that the limits are for.
func GateFlows() []int { return []int{1, someFlows, manyFlows} }

// overCase is the case in which Over is measured.
func (l Limit) overCase() string {
	if l.OverCase == "" {
		return l.Case
	}
	return l.OverCase
}

// over names what Max is a multiple of.
func (l Limit) over() string {
	if l.OverCase == "" {
		return l.Over
	}
	return l.Over + " " + l.OverCase
}

// isNeeded tells whether a limit is about a target's figures in a case.
func isNeeded(limits []Limit, target, name string, flows int) bool {
	return slices.ContainsFunc(limits, func(l Limit) bool {
		own := l.Target == target && l.Case == name
		over := l.Over == target && l.overCase() == name
		return (own || over) && l.Flows == flows
	})
}

// GateCases are the names of the cases that the limits are for.
func GateCases() []string {
	var names []string
	for _, l := range Limits() {
		for _, name := range []string{l.Case, l.overCase()} {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// GateReloads is how many reloads the gate judges the best of. Machines are noisy: where the memory
// of a reload lies, and what runs beside it, moves a ratio by 0.03 with one flow and by 0.15 with
// many, so a single one would fail good programs. The price is that a regression smaller than the
// spread may pass; the medians in the report show it.
const GateReloads = 3

// gateRepeats is how often what is not as it should be is measured again, with as many reloads: on a machine
// that does something else, one of thirty ratios is wrong now and then, but not the same one each time.
const gateRepeats = 2

// Gate measures programs as Prog does, judges them by limits, and compares them with a record. What fails is
// measured again, and all of its reloads count then.
func Gate(ctx context.Context, o Options, targets []Target, cases []Case, flows []int, record ProgramReport) (ProgramReport, error) {
	r, err := Prog(ctx, o, targets, cases, flows)
	if err != nil {
		return r, err
	}
	limits := o.Limits
	for range gateRepeats {
		if err := r.judgeAll(limits, record); err != nil {
			return r, err
		}
		if o.Limits = r.failed(limits); len(o.Limits) == 0 {
			return r, nil
		}
		o.log().Info("measuring again what failed", "limits", len(o.Limits))
		again, err := Prog(ctx, o, targets, cases, flows)
		if err != nil {
			return r, err
		}
		r.add(again)
	}
	return r, r.judgeAll(limits, record)
}

func (r *ProgramReport) judgeAll(limits []Limit, record ProgramReport) error {
	c, err := CompareRecord(record, *r)
	r.Gate, r.Record = Judge(*r, limits), &c
	return err
}

// failed are the limits that are about a row that has failed, and all that share a row with one of
// these: what is compared must have the same reloads.
func (r *ProgramReport) failed(limits []Limit) (found []Limit) {
	bad := map[rowKey]bool{}
	for _, j := range r.Gate {
		if j.Problem != "" && j.Best > 0 { // a wrong verdict is no noise
			bad[j.row()] = true
		}
	}
	if r.Record.Unjudged == "" {
		for _, c := range r.Record.Rows {
			if c.Result == Worse {
				bad[rowKey{c.Target, c.Case, c.Flows}] = true
			}
		}
	}
	for n := -1; n != len(bad); {
		n, found = len(bad), nil
		for _, l := range limits {
			if bad[l.row()] || bad[l.overRow()] {
				bad[l.row()], bad[l.overRow()] = true, true
				found = append(found, l)
			}
		}
	}
	return found
}

// rowKey names a row of a report.
type rowKey struct {
	target, name string
	flows        int
}

func (l Limit) row() rowKey { return rowKey{l.Target, l.Case, l.Flows} }

// overRow is the row that Max is a multiple of. The unit's is of another case for each limit, as all have one
// of their own.
func (l Limit) overRow() rowKey {
	if l.Over == Unit {
		return l.row()
	}
	return rowKey{l.Over, l.overCase(), l.Flows}
}

// add adds the reloads of a later report to the rows that it has, too.
func (r *ProgramReport) add(later ProgramReport) {
	for i := range r.Rows {
		row := &r.Rows[i]
		for _, l := range later.Rows {
			if l.Target == row.Target && l.Case == row.Case && l.Flows == row.Flows && l.Error == "" && row.Error == "" {
				row.Ratios = append(row.Ratios, l.Ratios...)
				row.Ratio, row.Spread = median(row.Ratios), halfRange(row.Ratios)
			}
		}
	}
	r.note(later.Notes...)
}

// RecordReloads is how many reloads a record has the median of.
const RecordReloads = 9

// Judgement is how a limit was met.
type Judgement struct {
	Limit
	// Best is the least ratio of all reloads.
	Best float64 `json:"best"`
	// Problem says why the limit is not met, empty if it is.
	Problem string `json:"problem,omitempty"`
}

// Judge compares a report of Prog with limits. What was not measured has not met its limit.
func Judge(r ProgramReport, limits []Limit) []Judgement {
	var js []Judgement
	for _, l := range limits {
		best, err := bestRatio(r, l)
		j := Judgement{Limit: l, Best: best}
		switch {
		case err != nil:
			j.Problem = err.Error()
		case best > l.Max:
			j.Problem = fmt.Sprintf("%.2f x %s, promised %.2f", best, l.over(), l.Max)
		}
		js = append(js, j)
	}
	return js
}

// JudgementError returns one error for all limits that were not met, nil if all were.
func JudgementError(js []Judgement) error {
	var errs []error
	for _, j := range js {
		if j.Problem != "" {
			errs = append(errs, fmt.Errorf("gate: %s, %s, %s: %s", j.Target, j.Case, flowsText(j.Flows), j.Problem))
		}
	}
	return errors.Join(errs...)
}

func bestRatio(r ProgramReport, l Limit) (float64, error) {
	ratios, err := ratiosOf(r, l.Target, l.Case, l.Flows)
	if err != nil {
		return 0, err
	}
	if l.Over != r.Unit {
		over, err := ratiosOf(r, l.Over, l.overCase(), l.Flows)
		if err != nil {
			return 0, err
		}
		if len(over) != len(ratios) {
			return 0, fmt.Errorf("%d reloads of %s and %d of %s", len(ratios), l.Target, len(over), l.Over)
		}
		ratios = slices.Clone(ratios)
		for i := range ratios {
			ratios[i] /= over[i]
		}
	}
	return slices.Min(ratios), nil
}

func ratiosOf(r ProgramReport, target, name string, flows int) ([]float64, error) {
	for _, row := range r.Rows {
		if row.Target != target || row.Case != name || row.Flows != flows {
			continue
		}
		if row.Error != "" {
			return nil, errors.New(row.Error)
		}
		if len(row.Ratios) == 0 {
			break
		}
		return row.Ratios, nil
	}
	return nil, fmt.Errorf("%s was not measured", target)
}

func gateTable(js []Judgement) table {
	t := table{header: []string{"gate", "case", "flows", "best", "limit", "of", "result"}}
	for _, j := range js {
		result := "met"
		if j.Problem != "" {
			result = "NOT MET: " + j.Problem
		}
		t.rows = append(t.rows, []string{
			j.Target, j.Case, decimal(j.Flows), fixed(j.Best, 2), fixed(j.Max, 2), j.over(), result,
		})
	}
	return t
}
