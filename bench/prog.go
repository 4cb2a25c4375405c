// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// Prog measures programs alone, with BPF_PROG_TEST_RUN behind the rewind stub: each target with each
// case and number of flows (powers of two). lb_stats is measured beside them and is the unit of all
// ratios. Verdict and growth are checked before anything is timed; a wrong one makes a row with an
// error instead of figures. Needs root. The error tells that not all could be measured; it wraps
// ctx's once that is done, and the report has what was measured until then.
func Prog(ctx context.Context, o Options, targets []Target, cases []Case, flows []int) (ProgramReport, error) {
	if err := validate(o, targets, cases, flows); err != nil {
		return ProgramReport{}, fmt.Errorf("measure programs: %w", err)
	}
	m := newMeasurement(KindProg, Unit, targets)
	m.planProg(o.Limits, cases, flows)
	for i := range o.Reloads {
		start := time.Now()
		o.Progress.begin(i, o.Reloads)
		if err := m.reloadProg(ctx, o); err != nil {
			return m.report(err), fmt.Errorf("measure programs: %w", err)
		}
		o.log().Info("measured", "reload", i+1, "of", o.Reloads, "took", time.Since(start).Round(time.Millisecond))
	}
	return m.report(nil), nil
}

func validate(o Options, targets []Target, cases []Case, flows []int) error {
	errs := []error{o.Validate(), ValidateFlows(flows)}
	if len(targets) == 0 || len(cases) == 0 || len(flows) == 0 {
		errs = append(errs, errors.New("no targets, cases or flows"))
	}
	for i, t := range targets {
		if slices.ContainsFunc(targets[:i], func(u Target) bool { return u.Name == t.Name }) {
			errs = append(errs, fmt.Errorf("two targets are named %q", t.Name))
		}
	}
	for _, c := range cases {
		errs = append(errs, c.validate(), c.unit().validate())
		if !slices.ContainsFunc(targets, func(t Target) bool { return t.takes(c) }) {
			errs = append(errs, fmt.Errorf("case %q: no target has VIPs with options", c.Name))
		}
	}
	return errors.Join(errs...)
}

// planProg adds the points, with limits only those that one is about: the unit's own come first, since
// the others refer to them.
func (m *measurement) planProg(limits []Limit, cases []Case, flows []int) {
	for _, n := range flows {
		for _, c := range cases {
			if n > 1 && c.Source == 0 {
				continue
			}
			for _, t := range m.targets {
				if t.Name == Unit || !t.takes(c) || len(limits) > 0 && !isNeeded(limits, t.Name, c.Name, n) {
					continue
				}
				unit := m.unitPoint(c, n)
				m.points = append(m.points, &point{target: t, c: c, flows: n, unit: unit})
			}
		}
	}
}

// unitPoint finds or adds the point by which those of c with n flows are divided.
func (m *measurement) unitPoint(c Case, n int) *point {
	c = c.unit()
	for _, p := range m.points {
		if p.target.Name == Unit && p.c.Name == c.Name && p.flows == n {
			return p
		}
	}
	p := &point{target: UnitTarget(), c: c, flows: n}
	p.unit = p
	m.points = append(m.points, p)
	return p
}

// reloadProg loads everything anew, checks and measures.
func (m *measurement) reloadProg(ctx context.Context, o Options) (err error) {
	programs, closePrograms, err := m.load(ctx)
	defer func() { err = errors.Join(err, closePrograms()) }()
	if err != nil {
		return err
	}
	stubs := map[*point]*stub{}
	defer func() {
		for _, s := range stubs {
			s.close()
		}
	}()
	for _, p := range m.points {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s := p.ready(programs[p.target.Name]); s != nil {
			stubs[p] = s
		}
	}
	err = onThread(func() error {
		m.note(settle(o.CPU, o.FIFO)...)
		return m.runStubs(ctx, o, stubs)
	})
	if err != nil {
		return err
	}
	m.endReload()
	return nil
}

// ready returns a stub whose target passed the check; nil, with the point marked, if it did not.
func (p *point) ready(program *ebpf.Program) *stub {
	if p.problem != "" {
		return nil
	}
	s, err := newStub(p.c, p.flows, p.target.expect(p.c), program)
	if err != nil {
		p.problem = err.Error()
		return nil
	}
	if p.seen, err = s.check(); err != nil {
		p.problem = err.Error()
		s.close()
		return nil
	}
	return s
}

// runStubs runs each stub once a round, in random order, so that no point meets a busy machine
// more often than another.
func (m *measurement) runStubs(ctx context.Context, o Options, stubs map[*point]*stub) error {
	for round := range o.Rounds {
		o.Progress.part(round, o.Rounds)
		for _, i := range rand.Perm(len(m.points)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := m.points[i]
			s := stubs[p]
			if s == nil || p.problem != "" {
				continue
			}
			if round == 0 {
				if err := s.warm(); err != nil {
					p.problem = err.Error()
					continue
				}
			}
			sample, err := s.run()
			if err != nil {
				p.problem = err.Error()
				continue
			}
			p.samples = append(p.samples, sample)
		}
	}
	return nil
}
