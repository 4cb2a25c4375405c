// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/lb"
)

// loadBenchProgram loads remora's packet program with a bench topology in its maps.
type loadBenchProgram = func(bench.Topology) (*ebpf.Program, io.Closer, error)

func newBenchCommand(load loadBenchProgram) *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure what a packet and a ring cost, and what a change breaks",
		Long: `Measure what a packet and a ring cost on this machine, and how many connections a change breaks.

  prog   one program alone, in ratio to the smallest useful balancer
  veth   the whole path of live frames over a veth pair, in ratio to dropping them
  ring   building a Maglev ring, and publishing it to the kernel
  churn  connections that are broken while servers and balancers come and go

All need root. They touch no interface, map or program of a running remora, but they keep a CPU
busy, in the real-time class unless --fifo=false, and so should not run on a serving balancer.

Compare ratios, not nanoseconds: those of a shared machine move by a third within seconds. With one
flow, ratios of two runs agree to about 0.03; with 65536 flows to about 0.15.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(newBenchProgCommand(load), newBenchVethCommand(load), newBenchRingCommand(), newBenchChurnCommand())
	return c
}

// benchFlags are what prog and veth have in common.
type benchFlags struct {
	options  bench.Options
	flows    []int
	cases    []string
	topology bench.TopologyOptions

	gue, smallRings, floors bool
	pinned, object, program string
	expect, format          string
}

func (f *benchFlags) add(c *cobra.Command, cases []string, flows []int) {
	f.options = bench.DefaultOptions()
	s := c.Flags()
	s.IntVar(&f.options.Reloads, "reloads", f.options.Reloads, "load everything anew so often, and report the median")
	s.IntVar(&f.options.Rounds, "rounds", f.options.Rounds, "runs of each case in each reload")
	s.IntVar(&f.options.CPU, "cpu", f.options.CPU, "CPU to run on; -1: the last one allowed")
	s.BoolVar(&f.options.FIFO, "fifo", f.options.FIFO, "run in the real-time class, if permitted")
	s.IntSliceVar(&f.flows, "flows", flows, "numbers of flows, powers of two")
	s.StringSliceVar(&f.cases, "cases", cases, "cases to measure; empty: all ("+strings.Join(benchCaseNames(), ", ")+")")
	s.IntVar(&f.topology.ExtraVIPs, "extra-vips", 0, "VIPs that get no packets, beside those of the cases")
	s.IntVar(&f.topology.FlowTable, "flow-table", 1<<20, "flows that there is room to remember, for the cases with moving slots")
	s.BoolVar(&f.smallRings, "small-rings", false, fmt.Sprintf("rings of %d slots instead of %d", bench.SmallRing, lb.DefaultRingSize))
	s.BoolVar(&f.gue, "gue", false, "measure the program with GUE as well")
	s.BoolVar(&f.floors, "floors", false, "measure the other reference programs as well: drop, tx, encap_const, lb_ring")
	s.StringVar(&f.pinned, "pinned", "", "measure the program pinned at this `PATH` instead of remora's")
	s.StringVar(&f.object, "object", "", "measure a program of this ELF `FILE`, its maps empty, instead of remora's")
	s.StringVar(&f.program, "program", "", "with --object: the program's `NAME`, if the file has several")
	s.StringVar(&f.expect, "expect", "", "with --pinned or --object: `VERDICT[:GROWTH]` that all cases must have, for example tx:20")
	addFormatFlag(c, &f.format)
	c.MarkFlagsMutuallyExclusive("pinned", "object")
}

func addFormatFlag(c *cobra.Command, format *string) {
	c.Flags().StringVar(format, "format", "table", "table, markdown or json")
}

func benchCaseNames() []string {
	var names []string
	for _, c := range bench.Cases() {
		names = append(names, c.Name)
	}
	return names
}

// targets are the programs that the flags name.
func (f *benchFlags) targets(load loadBenchProgram) ([]bench.Target, error) {
	own, err := f.ownTargets(load)
	if err != nil {
		return nil, err
	}
	if f.floors {
		own = append(bench.Floors(), own...)
	}
	return own, nil
}

func (f *benchFlags) ownTargets(load loadBenchProgram) ([]bench.Target, error) {
	foreign := f.pinned != "" || f.object != ""
	switch {
	case !foreign && (f.program != "" || f.expect != ""):
		return nil, errors.New("--program and --expect need --pinned or --object")
	case f.pinned != "" && f.program != "":
		return nil, errors.New("--program needs --object")
	case foreign && f.gue:
		return nil, errors.New("--gue is for remora's own program")
	}
	if foreign {
		t := bench.PinnedTarget(filepath.Base(f.pinned), f.pinned)
		if f.object != "" {
			t = bench.ObjectTarget(filepath.Base(f.object), f.object, f.program)
		}
		if f.expect == "" {
			return []bench.Target{t}, nil
		}
		e, err := bench.ParseExpectation(f.expect)
		if err != nil {
			return nil, err
		}
		t.Expect = func(bench.Case) bench.Expectation { return e }
		return []bench.Target{t}, nil
	}
	o := f.topology
	if f.smallRings {
		o.RingSize = bench.SmallRing
	}
	topologies := []bench.TopologyOptions{o}
	if f.gue {
		o.GUE = true
		topologies = append(topologies, o)
	}
	var targets []bench.Target
	for _, o := range topologies {
		t, err := bench.RemoraTarget(o, load)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// benchReport is what the verbs print.
type benchReport interface {
	WriteText(io.Writer) error
	WriteMarkdown(io.Writer) error
	WriteJSON(io.Writer) error
}

func checkFormat(format string) error {
	if !slices.Contains([]string{"table", "markdown", "json"}, format) {
		return fmt.Errorf("format %q is not table, markdown or json", format)
	}
	return nil
}

func writeReport(w io.Writer, r benchReport, format string) error {
	switch format {
	case "markdown":
		return r.WriteMarkdown(w)
	case "json":
		return r.WriteJSON(w)
	}
	return r.WriteText(w)
}

// measure runs a measurement until it ends or a signal comes. What it has made is removed then, too.
func measure[R any](c *cobra.Command, f func(context.Context) (R, error)) (R, error) {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return f(ctx)
}

func newBenchProgCommand(load loadBenchProgram) *cobra.Command {
	var f benchFlags
	var gate bool
	c := &cobra.Command{
		Use:   "prog",
		Short: "Measure one program alone, in ratio to the smallest useful balancer",
		Long: `Measure one program alone, by BPF_PROG_TEST_RUN.

A stub undoes what the program did to the last packet, stamps the next flow's source into it and
tail-calls the program, unmodified. Every second chunk of 512 packets goes to a baseline instead,
and the clock is read once a chunk. The program's cost above the baseline's, divided by that of the
reference lb_stats (VIP, ring, real, counters, IPIP; no flow table) in the same reload, is the ratio
x. Printed are the median over the reloads and half their range; ns are the 10th percentile and the
median of all runs, above the baseline.

Verdict and growth of each case are checked before it is timed. A row with the wrong ones has an
error instead of figures, and the command then fails. Cases that lb_stats does not balance
(IPv6, VLAN, echo) are divided by its tcp4-ack; such ratios are indicative.

The balancer has VIPs 198.51.100.1:80/tcp and :53/udp with 100 IPv4 reals each, 198.51.100.2:80/tcp
and [2001:db8:5::1]:80/tcp with 100 IPv6 reals, [2001:db8:5::2]:80/tcp with 100 IPv4 reals; and
198.51.100.11, .12 and .13:80/tcp, of which 1, 10 and 100 % of the slots move: there, flows are
remembered, and all but the first packet of each find theirs (hit). A
program given by --pinned must have been filled by its owner with the same, or be told what to
--expect; its owner must keep running if it has tail-call tables.

--gate fails, with exit code 1 and a line for each, if a ratio is above what remora promises. It
measures just what it judges, and judges the best of three reloads, since machines are noisy: a
regression smaller than the spread may pass.`,
		Example: `  remora bench prog
  remora bench prog --cases tcp4-ack,udp4 --flows 1,65536 --gue --format markdown
  remora bench prog --object drop.o --program drop --expect drop
  remora bench prog --gate`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if gate {
				f.judged()
			}
			return f.runProg(c, load, gate)
		},
	}
	f.add(c, nil, []int{1, 1024, 65536})
	c.Flags().BoolVar(&gate, "gate", false, "fail if remora's program costs more than promised")
	for _, other := range []string{"pinned", "object", "cases", "flows", "reloads", "floors", "extra-vips", "small-rings", "flow-table"} {
		c.MarkFlagsMutuallyExclusive("gate", other)
	}
	return c
}

// judged makes the flags measure what the gate judges.
func (f *benchFlags) judged() {
	f.gue, f.cases, f.flows, f.options.Reloads = true, bench.GateCases(), bench.GateFlows(), bench.GateReloads
	f.options.Limits = bench.Limits()
}

// prepare is what prog and veth begin with: flags to targets and cases.
func (f *benchFlags) prepare(c *cobra.Command, load loadBenchProgram) ([]bench.Target, []bench.Case, error) {
	if err := checkFormat(f.format); err != nil {
		return nil, nil, err
	}
	targets, err := f.targets(load)
	if err != nil {
		return nil, nil, err
	}
	cases, err := bench.SelectCases(f.cases)
	if err != nil {
		return nil, nil, err
	}
	f.options.Log = benchLog(c)
	return targets, cases, nil
}

func (f *benchFlags) runProg(c *cobra.Command, load loadBenchProgram, gate bool) error {
	targets, cases, err := f.prepare(c, load)
	if err != nil {
		return err
	}
	r, err := measure(c, func(ctx context.Context) (bench.Report, error) {
		return bench.Prog(ctx, f.options, targets, cases, f.flows)
	})
	if err != nil {
		return err
	}
	if gate {
		r.Gate = bench.Judge(r, bench.Limits())
	}
	if err := writeReport(c.OutOrStdout(), r, f.format); err != nil {
		return err
	}
	return errors.Join(r.Err(), bench.JudgementError(r.Gate))
}

// benchLog writes progress to where it does not disturb the report.
func benchLog(c *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
}

func newBenchVethCommand(load loadBenchProgram) *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "veth",
		Short: "Measure the whole path over a veth pair, in ratio to dropping the frames",
		Long: `Measure the whole path of live frames over a veth pair between two network namespaces.

A generator sends frames into one end; the program, attached natively to the other, sends them
back; the first end drops them. All of it happens on one CPU, within the generator's system call, so
that the time between two of its marks is that of the whole path. Every second chunk of 1024 frames
is dropped at the other end instead. Printed is the ratio of the two paths, the median over the
reloads and half their range; ns per frame; and the frames that did not arrive (device statistics),
which must be none.

The namespaces remora-bench-PID-generator and -tested exist only while the command runs; they are
removed after errors and on Ctrl-C, too. The other interfaces of the machine are not touched. Cases
that are not sent out again cannot be measured so.`,
		Example: `  remora bench veth
  remora bench veth --cases tcp4-ack,tcp6 --flows 1 --floors`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.runVeth(c, load) },
	}
	f.add(c, []string{"tcp4-ack"}, []int{1, 65536})
	return c
}

func (f *benchFlags) runVeth(c *cobra.Command, load loadBenchProgram) error {
	targets, cases, err := f.prepare(c, load)
	if err != nil {
		return err
	}
	targets = append([]bench.Target{bench.UnitTarget()}, targets...)
	r, err := measure(c, func(ctx context.Context) (bench.Report, error) {
		return bench.Veth(ctx, f.options, targets, cases, f.flows)
	})
	if err != nil {
		return err
	}
	return errors.Join(writeReport(c.OutOrStdout(), r, f.format), r.Err())
}

func newBenchRingCommand() *cobra.Command {
	o := bench.DefaultRingOptions()
	var sizes []uint
	var format string
	c := &cobra.Command{
		Use:   "ring",
		Short: "Measure building a Maglev ring and publishing it to the kernel",
		Long: `Measure how long a Maglev ring takes to build, and to reach the kernel.

A ring is published by comparing it with a BPF array that is mapped into the process, and writing
the slots that differ, each in one store. Measured are a ring whose slots all differ, one that
lacks one real, and one that is already there. Times are in ms: the median, and in brackets the 10th
and 90th percentile.`,
		Example: `  remora bench ring
  remora bench ring --sizes 65537 --reals 100,1000`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(format); err != nil {
				return err
			}
			o.Sizes = nil
			for _, n := range sizes {
				if n > lb.MaxRingSize {
					return fmt.Errorf("size %d is more than %d", n, lb.MaxRingSize)
				}
				o.Sizes = append(o.Sizes, uint32(n))
			}
			r, err := measure(c, func(ctx context.Context) (bench.RingReport, error) { return bench.Ring(ctx, o) })
			if err != nil {
				return err
			}
			return writeReport(c.OutOrStdout(), r, format)
		},
	}
	var defaults []uint
	for _, n := range o.Sizes {
		defaults = append(defaults, uint(n))
	}
	s := c.Flags()
	s.UintSliceVar(&sizes, "sizes", defaults, "numbers of slots, primes")
	s.IntSliceVar(&o.Members, "reals", o.Members, "numbers of reals")
	s.IntVar(&o.Rounds, "rounds", o.Rounds, "how often each is measured")
	s.IntVar(&o.CPU, "cpu", o.CPU, "CPU to run on; -1: the last one allowed")
	s.BoolVar(&o.FIFO, "fifo", o.FIFO, "run in the real-time class, if permitted")
	addFormatFlag(c, &format)
	return c
}
