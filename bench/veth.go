// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// vethBatch is the number of live frames that the kernel makes at once. 32 to 128 give the same
// figures; 1 costs three times as much, and 256 overruns the ring of a veth queue.
const vethBatch = 64

// Veth measures the whole path of cases that are sent out again, over a veth pair between two
// namespaces of its own: live frames, native XDP, XDP_TX, and back. The generator's system call
// also runs both ends' polls, so everything happens on one CPU, nothing waits, and the time between
// two marks of the generator is that of the whole path. Chunks of 1024 frames alternate between
// drop and the target; ratios are the whole path's, to drop.
//
// The namespaces are gone when it returns, also after an error and once ctx is done. Needs root.
func Veth(ctx context.Context, o Options, targets []Target, cases []Case, flows []int) (r ProgramReport, err error) {
	if err := errors.Join(validate(o, targets, cases, flows), validateVeth(cases)); err != nil {
		return ProgramReport{}, fmt.Errorf("measure veth: %w", err)
	}
	l, err := openLab()
	if err != nil {
		return ProgramReport{}, fmt.Errorf("measure veth: %w", err)
	}
	defer func() {
		if e := l.close(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove veth lab: %w", e))
		}
	}()
	m := newMeasurement(KindVeth, "drop", targets)
	m.planVeth(cases, flows)
	for i := range o.Reloads {
		start := time.Now()
		o.Progress.begin(i, o.Reloads)
		if err := m.reloadVeth(ctx, o, l); err != nil {
			return m.report(err), fmt.Errorf("measure veth: %w", err)
		}
		o.log().Info("measured", "reload", i+1, "of", o.Reloads, "took", time.Since(start).Round(time.Millisecond))
	}
	return m.report(nil), nil
}

func validateVeth(cases []Case) error {
	var errs []error
	for _, c := range cases {
		if c.Expect.Verdict != lb.TX {
			errs = append(errs, fmt.Errorf("case %q is not sent out again, so it has no path back", c.Name))
		}
		if c.Option {
			errs = append(errs, fmt.Errorf("case %q is for programs alone", c.Name))
		}
	}
	return errors.Join(errs...)
}

// planVeth adds the points. Their unit is the baseline that each run has beside it.
func (m *measurement) planVeth(cases []Case, flows []int) {
	for _, n := range flows {
		for _, c := range cases {
			if n > 1 && c.Source == 0 {
				continue
			}
			for _, t := range m.targets {
				p := &point{target: t, c: c, flows: n}
				p.unit = p
				m.points = append(m.points, p)
			}
		}
	}
}

func (m *measurement) reloadVeth(ctx context.Context, o Options, l *lab) (err error) {
	programs, closePrograms, err := m.load(ctx)
	defer func() { err = errors.Join(err, closePrograms()) }()
	if err != nil {
		return err
	}
	for done, i := range rand.Perm(len(m.points)) {
		o.Progress.part(done, len(m.points))
		if err := ctx.Err(); err != nil {
			return err
		}
		p := m.points[i]
		if p.problem != "" {
			continue
		}
		err := m.runVeth(ctx, o, l, p, programs[p.target.Name])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.problem = err.Error()
		}
	}
	m.endReload()
	return nil
}

// runVeth checks and measures one point: one run to warm up, then the rounds.
func (m *measurement) runVeth(ctx context.Context, o Options, l *lab, p *point, program *ebpf.Program) (err error) {
	expect := p.target.expect(p.c)
	if p.seen, err = checkProgram(program, p.c.Frame, expect); err != nil {
		return err
	}
	coll, err := loadVethPrograms(p.c, p.flows, l.generator.index, program)
	if err != nil {
		return err
	}
	defer coll.Close()
	// XDP_TX needs a program on both ends of a pair.
	for _, end := range []struct {
		side    *side
		program string
	}{{&l.tested, "alternate"}, {&l.generator, "sink"}} {
		attached, err := end.side.attach(coll.Programs[end.program])
		if err != nil {
			return fmt.Errorf("attach %s: %w", end.program, err)
		}
		defer attached.Close()
	}
	return onThread(func() error {
		if err := netns.Set(l.generator.ns); err != nil { // the generator's device is looked up here
			return fmt.Errorf("enter namespace: %v", err)
		}
		m.note(settle(o.CPU, o.FIFO)...)
		for round := range o.Rounds + 1 {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, lost, err := runPath(l, coll, p.c.Frame, expect.Verdict)
			if err != nil {
				return err
			}
			if round > 0 {
				p.samples = append(p.samples, s)
				p.lost += lost
			}
		}
		return nil
	})
}

func loadVethPrograms(c Case, flows, outIndex int, target *ebpf.Program) (*ebpf.Collection, error) {
	spec, err := loadVeth()
	if err != nil {
		return nil, fmt.Errorf("load veth programs: %w", err)
	}
	if err := setFrame(spec, c, flows); err != nil {
		return nil, fmt.Errorf("load veth programs: %w", err)
	}
	// Live frames keep what was done to them on their last trip.
	err = errors.Join(
		spec.Variables["restore_len"].Set(uint32(max(c.Restore, 64))),
		spec.Variables["out_ifindex"].Set(uint32(outIndex)))
	if err != nil {
		return nil, fmt.Errorf("load veth programs: %w", err)
	}
	coll, err := loadJumping(spec, "alternate", target)
	if err != nil {
		return nil, fmt.Errorf("load veth programs: %w", err)
	}
	return coll, nil
}

// runPath sends chunksLen chunks. Frames are lost if the tested end's device did not receive all,
// or if the generator's end did not receive back the half of them that a target sends.
func runPath(l *lab, coll *ebpf.Collection, frame []byte, verdict lb.Verdict) (s sample, lost uint64, err error) {
	const frames = chunksLen * vethPackets
	if err := coll.Variables["received"].Set(uint64(0)); err != nil {
		return s, 0, fmt.Errorf("set frame number: %w", err)
	}
	before, back, err := l.received()
	if err != nil {
		return s, 0, err
	}
	_, err = runCounted(coll, coll.Programs["generate"], frames, ebpf.RunOptions{
		Data: frame, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: vethBatch,
	})
	if err != nil {
		return s, 0, err
	}
	after, backAfter, err := l.received()
	if err != nil {
		return s, 0, err
	}
	expected := uint64(frames)
	if verdict == lb.TX {
		expected += frames / 2
	}
	if arrived := after - before + backAfter - back; arrived < expected {
		lost = expected - arrived
	}
	s, err = readSample(coll, vethWarm, vethPackets)
	return s, lost, err
}

// received returns the frames taken in by both ends.
func (l *lab) received() (tested, generator uint64, err error) {
	if tested, err = l.tested.received(); err != nil {
		return 0, 0, err
	}
	generator, err = l.generator.received()
	return tested, generator, err
}
