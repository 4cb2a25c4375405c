// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"slices"

	"github.com/cilium/ebpf"
)

// measurement collects what a report is made of. One goroutine at a time uses it.
type measurement struct {
	head     Head
	unit     string
	targets  []Target // the unit or baseline first
	points   []*point
	programs []Program
	loadMS   map[string][]float64
}

// point is one row of a report in the making: a target with a case and a number of flows.
type point struct {
	target Target
	c      Case
	flows  int
	unit   *point // whose figures these are divided by; itself for the unit

	seen    Expectation
	problem string // why there are no figures; once set, nothing more is measured
	lost    uint64

	samples []sample // of the present reload
	rels    []float64
	paths   []float64 // of all runs
	nets    []float64
}

func newMeasurement(kind, unit string, targets []Target) *measurement {
	m := &measurement{head: newHead(kind), unit: unit, loadMS: map[string][]float64{}}
	first := UnitTarget()
	if unit != Unit {
		first = dropTarget()
	}
	m.targets = append(m.targets, first)
	for _, t := range targets {
		if t.Name != first.Name {
			m.targets = append(m.targets, t)
		}
	}
	return m
}

func (m *measurement) note(notes ...string) { m.head.note(notes...) }

// load loads all targets. The closer must be called in any case.
func (m *measurement) load(ctx context.Context) (map[string]*ebpf.Program, func() error, error) {
	programs := map[string]*ebpf.Program{}
	var opened []loaded
	closeAll := func() error {
		var errs []error
		for _, l := range opened {
			errs = append(errs, l.close())
		}
		return errors.Join(errs...)
	}
	for _, t := range m.targets {
		if err := ctx.Err(); err != nil {
			return nil, closeAll, err
		}
		l, err := t.load()
		if err != nil {
			return nil, closeAll, err
		}
		opened = append(opened, l)
		programs[t.Name] = l.program
		if len(m.loadMS[t.Name]) == 0 {
			m.programs = append(m.programs, readProgram(t.Name, l.program))
		}
		m.loadMS[t.Name] = append(m.loadMS[t.Name], float64(l.took.Microseconds())/1e3)
	}
	return programs, closeAll, nil
}

// endEarly keeps what there is of the first reload, if that was not completed. Of later ones, which are not
// whole, nothing counts.
func (m *measurement) endEarly() {
	if slices.ContainsFunc(m.points, func(p *point) bool { return len(p.rels) > 0 }) {
		return
	}
	measured := func(p *point) bool { return len(p.samples) > 0 }
	m.points = slices.DeleteFunc(m.points, func(p *point) bool { return !measured(p) || !measured(p.unit) })
	m.endReload()
}

// endReload turns the samples of one reload into one figure of each point.
func (m *measurement) endReload() {
	for _, p := range m.points {
		var rel []float64
		for _, s := range p.samples {
			rel = append(rel, s.rel)
			p.nets = append(p.nets, s.net)
			p.paths = append(p.paths, s.path)
		}
		p.rels = append(p.rels, median(rel))
		p.samples = nil
	}
}

// report makes the rows: the median over the reloads, each of which is compared with the unit of
// the same reload. err is what ended the measurement early, if anything did.
func (m *measurement) report(err error) ProgramReport {
	if m.head.end(err); err != nil {
		m.endEarly()
	}
	r := ProgramReport{Head: m.head, Unit: m.unit}
	for _, p := range m.programs {
		p.LoadMS = median(m.loadMS[p.Name])
		r.Programs = append(r.Programs, p)
	}
	for _, p := range m.points {
		if len(p.rels) > 0 || err == nil {
			r.Rows = append(r.Rows, m.row(p))
		}
	}
	return r
}

func (m *measurement) row(p *point) Row {
	row := Row{
		Target: p.target.Name, Case: p.c.Name, UnitCase: p.unit.c.Name, Flows: p.flows,
		Verdict: p.seen.Verdict.String(), Growth: p.seen.Growth, Lost: p.lost, Error: p.problem,
	}
	if row.Error == "" && p.unit.problem != "" {
		row.Error = "no figures of " + m.unit + ": " + p.unit.problem
	}
	if row.Error != "" {
		return row
	}
	for i, rel := range p.rels {
		if m.head.Kind == KindVeth {
			row.Ratios = append(row.Ratios, 1+rel) // the unit is the baseline
		} else if p.unit.rels[i] != 0 {
			row.Ratios = append(row.Ratios, rel/p.unit.rels[i])
		}
	}
	row.Ratio, row.Spread = median(row.Ratios), halfRange(row.Ratios)
	row.NetP10, row.NetMedian = quantile(p.nets, 0.1), median(p.nets)
	if m.head.Kind == KindVeth {
		row.PathP10 = quantile(p.paths, 0.1)
	}
	return row
}

// readProgram asks the kernel about a program. What it does not tell is 0.
func readProgram(name string, p *ebpf.Program) Program {
	r := Program{Name: name}
	info, err := p.Info()
	if err != nil {
		return r
	}
	if in, err := info.Instructions(); err == nil {
		r.Instructions = len(in)
	}
	if n, err := info.JitedSize(); err == nil {
		r.JITedBytes = n
	}
	r.Tag = info.Tag
	r.Walked, _ = info.VerifiedInstructions()
	return r
}
