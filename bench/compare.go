// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"slices"
)

// Comparison is what became of the ratios of one report in another one. Only ratios are compared: each is
// of a program and of the reference that ran beside it, so the machine's state cancels.
type Comparison struct {
	// Changed names what else differs, in the form NAME: OLD -> NEW.
	Changed []string      `json:"changed,omitempty"`
	Rows    []ComparedRow `json:"rows"`
	// Unjudged says why nothing is judged; empty if all is.
	Unjudged string `json:"unjudged,omitempty"`
}

// ComparedRow is one target with one case and number of flows in both reports.
type ComparedRow struct {
	Target string `json:"target"`
	Case   string `json:"case"`
	Flows  int    `json:"flows"`
	// Old and New are the ratios of the reports, Quotient is New over Old, Least and Most are what it may
	// be by the spread of the reloads of both.
	Old      float64 `json:"old"`
	New      float64 `json:"new"`
	Quotient float64 `json:"quotient"`
	Least    float64 `json:"least"`
	Most     float64 `json:"most"`
	// Tolerance is by how much a ratio may become greater.
	Tolerance float64 `json:"tolerance"`
	Result    Result  `json:"result"`
	// Problem says why there is no quotient.
	Problem string `json:"problem,omitempty"`
}

// Result is what a comparison finds.
type Result string

// Worse and Refused are failures.
const (
	Equal   Result = "equal"
	Better  Result = "better"
	Worse   Result = "worse"
	Refused Result = "refused"
	Missing Result = "missing" // in one report only
)

// Tolerances: what one flow costs is repeatable to some hundredths; with more, where memory lies in a
// reload moves a ratio by a tenth and more.
const (
	FewFlowsTolerance  = 0.05
	ManyFlowsTolerance = 0.20
)

func toleranceOf(flows int) float64 {
	if flows == 1 {
		return FewFlowsTolerance
	}
	return ManyFlowsTolerance
}

// Compare compares two reports of Prog, or two of Veth. If each has just one target that the other has
// not, those two are compared with each other.
func Compare(older, newer Report) (Comparison, error) {
	a, isProgram := older.(ProgramReport)
	b, too := newer.(ProgramReport)
	if !isProgram || !too || a.Kind != b.Kind || a.Unit != b.Unit {
		return Comparison{}, fmt.Errorf("compare reports: kinds %q and %q are not both prog, nor both veth: only those have paired ratios",
			older.Header().Kind, newer.Header().Kind)
	}
	c := Comparison{Changed: a.Machine.differences(b.Machine)}
	other := renamed(a, b)
	for name, now := range other {
		c.Changed = append(c.Changed, "program: "+name+" -> "+now)
	}
	c.Changed = append(c.Changed, programChanges(a, b, other)...)
	for _, row := range a.Rows {
		if row.Target != a.Unit {
			c.Rows = append(c.Rows, compareRow(row, b, other))
		}
	}
	for _, row := range b.Rows {
		known := slices.ContainsFunc(c.Rows, func(r ComparedRow) bool {
			return newName(r.Target, other) == row.Target && r.Case == row.Case && r.Flows == row.Flows
		})
		if !known && row.Target != b.Unit {
			c.Rows = append(c.Rows, ComparedRow{Target: row.Target, Case: row.Case, Flows: row.Flows, New: row.Ratio, Result: Missing, Problem: "not in the first report"})
		}
	}
	return c, nil
}

// renamed is the new name of the only target that has another one.
func renamed(a, b ProgramReport) map[string]string {
	gone, come := targetsOnlyIn(a, b), targetsOnlyIn(b, a)
	if len(gone) != 1 || len(come) != 1 {
		return nil
	}
	return map[string]string{gone[0]: come[0]}
}

func targetsOnlyIn(a, b ProgramReport) (names []string) {
	for _, row := range a.Rows {
		same := func(other Row) bool { return other.Target == row.Target }
		if !slices.ContainsFunc(b.Rows, same) && !slices.Contains(names, row.Target) {
			names = append(names, row.Target)
		}
	}
	return names
}

func newName(name string, other map[string]string) string {
	if n, ok := other[name]; ok {
		return n
	}
	return name
}

// programChanges names the programs whose instructions differ.
func programChanges(a, b ProgramReport, other map[string]string) (changed []string) {
	for _, p := range a.Programs {
		for _, q := range b.Programs {
			if q.Name == newName(p.Name, other) && p.Tag != q.Tag {
				changed = append(changed, fmt.Sprintf("hash of %s: %s (%d instructions) -> %s (%d)", q.Name, p.Tag, p.Instructions, q.Tag, q.Instructions))
			}
		}
	}
	return changed
}

func compareRow(row Row, b ProgramReport, other map[string]string) ComparedRow {
	c := ComparedRow{Target: row.Target, Case: row.Case, Flows: row.Flows, Tolerance: toleranceOf(row.Flows), Old: row.Ratio}
	i := slices.IndexFunc(b.Rows, func(r Row) bool {
		return r.Target == newName(row.Target, other) && r.Case == row.Case && r.Flows == row.Flows
	})
	if i < 0 {
		c.Result, c.Problem = Missing, "not in the second report"
		return c
	}
	now := b.Rows[i]
	c.New = now.Ratio
	switch {
	case now.Error != "":
		c.Result, c.Problem = Refused, now.Error
	case row.Error != "":
		c.Result, c.Problem = Missing, "no figures in the first report: "+row.Error
	case row.Verdict != now.Verdict || row.Growth != now.Growth:
		c.Result, c.Problem = Refused, fmt.Sprintf("verdict and growth are %s %+d, were %s %+d", now.Verdict, now.Growth, row.Verdict, row.Growth)
	case row.UnitCase != now.UnitCase:
		c.Result, c.Problem = Refused, fmt.Sprintf("the unit is of case %s, was of %s", now.UnitCase, row.UnitCase)
	default:
		c.judge(row.Ratios, now.Ratios)
	}
	return c
}

// judge compares the ratios of the reloads. What is noise makes single reloads dearer, so a program has
// become worse only if even its best reload is dearer than allowed.
func (c *ComparedRow) judge(before, after []float64) {
	if slices.Min(before) <= 0 || slices.Min(after) <= 0 {
		c.Result = Equal // what costs nothing cannot be divided; it is a floor
		return
	}
	c.Quotient = c.New / c.Old
	c.Least, c.Most = slices.Min(after)/slices.Max(before), slices.Max(after)/slices.Min(before)
	switch allowed := 1 + c.Tolerance; {
	case slices.Min(after)/c.Old > allowed:
		c.Result = Worse
	case slices.Max(after)/c.Old < 1/allowed:
		c.Result = Better
	default:
		c.Result = Equal
	}
}

// Err returns one error for all rows that are worse or refused, and if there is nothing to compare.
func (c Comparison) Err() error {
	if c.Unjudged != "" {
		return nil
	}
	var errs []error
	compared := 0
	for _, r := range c.Rows {
		at := fmt.Sprintf("%s, %s, %s", r.Target, r.Case, flowsText(r.Flows))
		switch r.Result {
		case Refused:
			errs = append(errs, fmt.Errorf("compare: %s: %s", at, r.Problem))
		case Worse:
			errs = append(errs, fmt.Errorf("compare: %s: %.2f x as dear (%.2f to %.2f), %.2f is allowed", at, r.Quotient, r.Least, r.Most, 1+r.Tolerance))
		}
		if r.Result != Missing {
			compared++
		}
	}
	if compared == 0 {
		errs = append(errs, errors.New("compare: the reports have nothing in common"))
	}
	return errors.Join(errs...)
}

func (c Comparison) sheet() sheet {
	t := table{header: []string{"compared", "case", "flows", "old x", "new x", "new/old", "by spread", "allowed", "result"}}
	for _, r := range c.Rows {
		cells := []string{r.Target, r.Case, decimal(r.Flows), fixed(r.Old, 2), fixed(r.New, 2)}
		if r.Problem != "" || r.Quotient == 0 {
			t.rows = append(t.rows, append(cells, string(r.Result)+": "+r.Problem))
			continue
		}
		t.rows = append(t.rows, append(cells, fixed(r.Quotient, 2), fixed(r.Least, 2)+" to "+fixed(r.Most, 2), fixed(1+r.Tolerance, 2), string(r.Result)))
	}
	s := sheet{tables: []table{t}}
	if c.Unjudged != "" {
		s.facts = append(s.facts, "not judged: "+c.Unjudged)
	}
	for _, change := range c.Changed {
		s.facts = append(s.facts, "changed "+change)
	}
	return s
}
