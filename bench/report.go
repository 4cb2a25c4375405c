// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ProgramReport is what Prog and Veth have measured.
type ProgramReport struct {
	Head
	// Unit is the program whose cost is 1: lb_stats for prog, drop for veth.
	Unit     string      `json:"unit"`
	Programs []Program   `json:"programs"`
	Rows     []Row       `json:"rows"`
	Gate     []Judgement `json:"gate,omitempty"`
	// Record is the comparison with an earlier report that was asked for.
	Record *Comparison `json:"record,omitempty"`
}

// Program is the size of a target, as the kernel tells it; 0 is unknown.
type Program struct {
	Name string `json:"name"`
	// Tag is the kernel's hash of the instructions; "" is unknown.
	Tag          string `json:"tag"`
	Instructions int    `json:"instructions"`
	JITedBytes   uint32 `json:"jited_bytes"`
	// Walked is the number of instructions that the verifier went through.
	Walked uint32 `json:"walked"`
	// LoadMS is the time to load the program and to fill its maps, median over the reloads.
	LoadMS float64 `json:"load_ms"`
}

// Row is one target with one case and number of flows.
type Row struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	// UnitCase is the case on which the unit was measured.
	UnitCase string `json:"unit_case"`
	Flows    int    `json:"flows"`
	Verdict  string `json:"verdict"`
	Growth   int    `json:"growth"`
	// Error says why there are no figures.
	Error string `json:"error,omitempty"`
	// Ratio is the cost as a multiple of the unit's: the median over the reloads, of which Spread is
	// half the range. Both are of costs relative to the baseline next to them. Of Veth, it is the
	// whole path's cost.
	Ratio  float64   `json:"ratio"`
	Spread float64   `json:"spread"`
	Ratios []float64 `json:"ratios,omitempty"`
	// NetP10 and NetMedian are ns per packet above the baseline, over all runs.
	NetP10    float64 `json:"net_p10_ns"`
	NetMedian float64 `json:"net_median_ns"`
	// PathP10 is the whole path's ns per packet (Veth), and Lost the frames that did not arrive.
	PathP10 float64 `json:"path_p10_ns,omitempty"`
	Lost    uint64  `json:"lost,omitempty"`
}

func (r ProgramReport) sheet() sheet {
	s := r.Head.sheet(r.rowTable(), r.programTable())
	if len(r.Gate) > 0 {
		s.tables = append(s.tables, gateTable(r.Gate))
	}
	if r.Record != nil {
		record := r.Record.sheet()
		s.notes = append(s.notes, record.facts...)
		s.tables = append(s.tables, record.tables...)
	}
	return s
}

func (r ProgramReport) rowTable() table {
	t := table{header: []string{"target", "case", "flows", "verdict", "grows", "x " + r.Unit, "net ns p10", "median"}}
	if r.Kind == KindVeth {
		t.header = append(t.header, "path ns", "Mpps", "lost")
	}
	for _, row := range r.Rows {
		cells := []string{row.Target, row.Case, decimal(row.Flows), row.Verdict, fmt.Sprintf("%+d", row.Growth)}
		if row.Error != "" {
			t.rows = append(t.rows, append(cells, "error: "+row.Error))
			continue
		}
		ratio := fixed(row.Ratio, 2) + " ±" + fixed(row.Spread, 2)
		if row.UnitCase != row.Case {
			ratio += " (of " + row.UnitCase + ")"
		}
		cells = append(cells, ratio, fixed(row.NetP10, 1), fixed(row.NetMedian, 1))
		if r.Kind == KindVeth {
			cells = append(cells, fixed(row.PathP10, 0), fixed(mpps(row.PathP10), 2), strconv.FormatUint(row.Lost, 10))
		}
		t.rows = append(t.rows, cells)
	}
	return t
}

// mpps is the packets per microsecond at so many ns each.
func mpps(ns float64) float64 {
	if ns == 0 {
		return 0
	}
	return 1e3 / ns
}

func (r ProgramReport) programTable() table {
	t := table{header: []string{"program", "tag", "instructions", "JITed bytes", "walked", "load ms"}}
	for _, p := range r.Programs {
		t.rows = append(t.rows, []string{
			p.Name, p.Tag, decimal(p.Instructions), decimal(int(p.JITedBytes)), decimal(int(p.Walked)), fixed(p.LoadMS, 1),
		})
	}
	return t
}

// figures has one chart for each number of flows. Bars of Prog show the limits that are judged, too.
func (r ProgramReport) figures() (all []figure) {
	var flows []int
	for _, row := range r.Rows {
		if !slices.Contains(flows, row.Flows) {
			flows = append(flows, row.Flows)
		}
	}
	what, reference := "Cost of a packet", 1.0
	if r.Kind == KindVeth {
		what = "Time of the whole path"
	}
	for _, n := range flows {
		all = append(all, barChart(what+", "+flowsText(n), "x "+r.Unit, reference, r.Unit, r.bars(n)))
	}
	if r.Kind == KindVeth {
		all = append(all, r.rateFigure())
	}
	return all
}

func (r ProgramReport) bars(flows int) (bars []bar) {
	for _, row := range r.Rows {
		if row.Flows != flows || row.Error != "" {
			continue
		}
		b := bar{label: row.Target + ", " + row.Case, value: row.Ratio, isReference: isFloor(row.Target)}
		b.least, b.most = slices.Min(row.Ratios), slices.Max(row.Ratios)
		for _, j := range r.Gate {
			if j.Target == row.Target && j.Case == row.Case && j.Flows == flows && j.Over == r.Unit {
				b.mark, b.fail = j.Max, j.Problem != ""
			}
		}
		bars = append(bars, b)
	}
	return bars
}

func (r ProgramReport) rateFigure() figure {
	var bars []bar
	for _, row := range r.Rows {
		if row.Error == "" {
			bars = append(bars, bar{label: row.Target + ", " + row.Case + ", " + flowsText(row.Flows), value: mpps(row.PathP10), isReference: isFloor(row.Target)})
		}
	}
	return barChart("Rate of one core for the whole path: generate, receive, balance, send, sink", "Mpps", 0, "", bars)
}

func (r ProgramReport) validate() error {
	var c checks
	c.that(r.Unit != "", "unit: it is missing")
	c.that(len(r.Rows) > 0 || r.Interrupted, "rows: there are none")
	for i, row := range r.Rows {
		at := fmt.Sprintf("rows[%d]", i)
		c.that(row.Target != "" && row.Case != "" && row.UnitCase != "", "%s: target or case is missing", at)
		c.that(ValidateFlows([]int{row.Flows}) == nil, "%s.flows: %d is not a power of two", at, row.Flows)
		c.that((row.Error == "") == (len(row.Ratios) > 0), "%s: it has neither figures nor an error, or both", at)
		c.figure(at+".path_p10_ns", row.PathP10)
		for _, ratio := range append(row.Ratios, row.Ratio, row.Spread, row.NetP10, row.NetMedian) {
			c.that(ratio > -maxFigure && ratio < maxFigure, "%s: %g is no figure", at, ratio)
		}
	}
	return c.err()
}

// Err returns one error for all rows without figures, all rows with lost frames, all limits that are not
// met, and all that is worse than the record; nil if there are none.
func (r ProgramReport) Err() error {
	var errs []error
	for _, row := range r.Rows {
		if row.Error != "" {
			errs = append(errs, fmt.Errorf("%s, %s, %s: %s", row.Target, row.Case, flowsText(row.Flows), row.Error))
		}
		if row.Lost > 0 {
			errs = append(errs, fmt.Errorf("%s, %s, %s: %d frames lost", row.Target, row.Case, flowsText(row.Flows), row.Lost))
		}
	}
	if errs = append(errs, JudgementError(r.Gate)); r.Record != nil {
		errs = append(errs, r.Record.Err())
	}
	return errors.Join(errs...)
}

func flowsText(n int) string {
	if n == 1 {
		return "1 flow"
	}
	return decimal(n) + " flows"
}

// fixed writes v with so many decimals, and no sign at what rounds to zero.
func fixed(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if strings.Trim(s, "-0.") == "" {
		return strings.TrimPrefix(s, "-")
	}
	return s
}

func decimal(n int) string { return strconv.Itoa(n) }
