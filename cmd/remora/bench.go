// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

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

  prog     one program alone, in ratio to the smallest useful balancer
  veth     the whole path of live frames over a veth pair, in ratio to dropping them
  pktgen   rate, loss, latency and balance of traffic, in a lab or through network cards
  ring     building a Maglev ring, and publishing it to the kernel
  control  how long changes, starts and adoptions take, and the memory they need
  churn    connections that are broken while servers and balancers come and go

  report   one HTML page of saved reports, or the tables of a document
  compare  whether a program has become dearer from one saved report to another

The first six need root. They touch no interface, map or program of a running remora, but for the
interfaces that pktgen is told to use; but they keep a CPU busy, in the real-time class unless
--fifo=false, and so should not run on a serving balancer. On Ctrl-C everything that they have made
is removed, and what was measured until then is printed.

Compare ratios, not nanoseconds: those of a shared machine move by a third within seconds. With one
flow, ratios of two runs agree to about 0.03; with 65536 flows to about 0.15.`,
		Args: cobra.NoArgs,
	}
	c.AddCommand(newBenchProgCommand(load), newBenchVethCommand(load), newBenchPktgenCommand(load), newBenchRingCommand(),
		newBenchControlCommand(), newBenchChurnCommand(), newBenchReportCommand(), newBenchCompareCommand())
	return c
}

// benchFlags are what prog and veth have in common.
type benchFlags struct {
	options  bench.Options
	flows    []int
	cases    []string
	topology bench.TopologyOptions

	gue, smallRings, floors bool
	features                string
	optionVIPs              bool // some case is for them
	pinned, object, program string
	expect                  string
	output                  benchOutput
}

func (f *benchFlags) add(c *cobra.Command, cases []string, flows []int) {
	f.options = bench.DefaultOptions()
	s := c.Flags()
	s.IntVar(&f.options.Reloads, "reloads", f.options.Reloads, "load everything anew so often, and report the median")
	s.IntVar(&f.options.Rounds, "rounds", f.options.Rounds, "runs of each case in each reload")
	s.IntVar(&f.options.CPU, "cpu", f.options.CPU, "CPU to run on; -1: the last one allowed")
	s.BoolVar(&f.options.FIFO, "fifo", f.options.FIFO, "run in the real-time class, if permitted")
	s.IntSliceVar(&f.flows, "flows", flows, "numbers of flows, powers of two")
	s.StringSliceVar(&f.cases, "cases", cases, "cases to measure; empty: all but those of options ("+strings.Join(benchCaseNames(bench.Cases()), ", ")+")")
	s.IntVar(&f.topology.ExtraVIPs, "extra-vips", 0, "VIPs that get no packets, beside those of the cases")
	s.IntVar(&f.topology.FlowTable, "flow-table", 1<<20, "flows that there is room to remember, for the cases with moving slots")
	s.BoolVar(&f.smallRings, "small-rings", false, fmt.Sprintf("rings of %d slots instead of %d", bench.SmallRing, lb.DefaultRingSize))
	s.BoolVar(&f.gue, "gue", false, "measure the program with GUE as well")
	s.BoolVar(&f.floors, "floors", false, "measure the other reference programs as well: drop, tx, encap_const, lb_ring")
	s.StringVar(&f.expect, "expect", "", "with --pinned or --object: `VERDICT[:GROWTH]` that all cases must have, for example tx:20")
	f.addProgram(c)
	f.output.add(c)
}

// addProgram adds the flags that say which program is meant.
func (f *benchFlags) addProgram(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.pinned, "pinned", "", "measure the program pinned at this `PATH` instead of remora's")
	s.StringVar(&f.object, "object", "", "measure a program of this ELF `FILE`, its maps empty, instead of remora's")
	s.StringVar(&f.program, "program", "", "with --object: the program's `NAME`, if the file has several")
	c.MarkFlagsMutuallyExclusive("pinned", "object")
}

func benchCaseNames(cases []bench.Case) []string {
	var names []string
	for _, c := range cases {
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
	case foreign && f.features == featuresAll:
		return nil, errors.New("--features is for remora's own program")
	}
	if foreign {
		t := bench.PinnedTarget(filepath.Base(f.pinned), f.pinned)
		if f.object != "" {
			t = bench.ObjectTarget(filepath.Base(f.object), f.object, f.program)
		}
		t.Options = true // as far as its owner says what to expect
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
	var targets []bench.Target
	for _, o := range f.topologies(o) {
		t, err := bench.RemoraTarget(o, load)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// topologies are those of remora's own program: plain, and what else is asked for beside it.
func (f *benchFlags) topologies(plain bench.TopologyOptions) []bench.TopologyOptions {
	topologies := []bench.TopologyOptions{plain}
	if f.gue {
		o := plain
		o.GUE = true
		topologies = append(topologies, o)
	}
	if f.features == featuresAll {
		o := plain
		o.Features = true
		topologies = append(topologies, o)
	}
	if f.optionVIPs {
		o := plain
		o.OptionVIPs = true
		topologies = append(topologies, o)
	}
	return topologies
}

// What --features takes.
const (
	featuresNone = "none"
	featuresAll  = "all"
)

func newBenchProgCommand(load loadBenchProgram) *cobra.Command {
	var f benchFlags
	var gate bool
	var record string
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

--features all measures remora-features as well: the program loaded with all of its features (options
of VIPs, VIPs of prefixes, decapsulation), while no packet uses one. The cases of options, each of
which does use one, are measured on remora-options, which has a VIP with 100 reals for each. Other
cases that are selected are measured on it, too. --cases options stands for these:

  ` + strings.Join(benchCaseNames(bench.OptionCases()), "\n  ") + `

--gate fails, with exit code 1 and a line for each, if a ratio is above what remora promises. It
measures just what it judges, and judges the best of three reloads, since machines are noisy: a
regression smaller than the spread may pass. What fails is measured again, up to twice. It also compares with the record of the last change of the
program, as bench compare does; on another machine than the record's, that is shown, but not judged.
--take-record measures the same, with nine reloads, judges nothing, and writes a new record.`,
		Example: `  remora bench prog
  remora bench prog --cases tcp4-ack,udp4 --flows 1,65536 --gue --format markdown
  remora bench prog --cases options --flows 1,65536
  remora bench prog --cases tcp4-ack,tcp4in6,not-a-vip --flows 1 --features all
  remora bench prog --object drop.o --program drop --expect drop
  remora bench prog --gate`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.features != featuresNone && f.features != featuresAll {
				return fmt.Errorf("--features %q is not %s or %s", f.features, featuresNone, featuresAll)
			}
			if gate || record != "" {
				f.judged()
			}
			if record != "" {
				f.output.save, f.options.Reloads = record, bench.RecordReloads
			}
			return f.runProg(c, load, gate)
		},
	}
	f.add(c, nil, []int{1, 1024, 1 << 16, 1 << 20})
	c.Flags().StringVar(&f.features, "features", featuresNone, "all: measure the program with all of its features, unused, as well")
	c.Flags().BoolVar(&gate, "gate", false, "fail if remora's program costs more than promised")
	c.Flags().StringVar(&record, "take-record", "", "write what the gate compares with to this `FILE`")
	for _, other := range []string{"pinned", "object", "cases", "flows", "reloads", "floors", "extra-vips", "small-rings", "flow-table", "features"} {
		c.MarkFlagsMutuallyExclusive("gate", other)
		c.MarkFlagsMutuallyExclusive("take-record", other)
	}
	c.MarkFlagsMutuallyExclusive("take-record", "gate")
	c.MarkFlagsMutuallyExclusive("take-record", "save")
	return c
}

// judged makes the flags measure what the gate judges.
func (f *benchFlags) judged() {
	f.gue, f.cases, f.flows, f.options.Reloads = true, bench.GateCases(), bench.GateFlows(), bench.GateReloads
	f.options.Limits = bench.Limits()
}

// prepare is what prog and veth begin with: flags to targets and cases.
func (f *benchFlags) prepare(c *cobra.Command, load loadBenchProgram) ([]bench.Target, []bench.Case, error) {
	if err := f.output.begin(c); err != nil {
		return nil, nil, err
	}
	cases, err := bench.SelectCases(f.cases)
	if err != nil {
		return nil, nil, err
	}
	f.optionVIPs = slices.ContainsFunc(cases, func(c bench.Case) bool { return c.Option })
	targets, err := f.targets(load)
	if err != nil {
		return nil, nil, err
	}
	f.options.Log, f.options.Progress = f.output.log(c), f.output.progress
	return targets, cases, nil
}

func (f *benchFlags) runProg(c *cobra.Command, load loadBenchProgram, gate bool) error {
	targets, cases, err := f.prepare(c, load)
	if err != nil {
		return err
	}
	return measure(c, &f.output, func(ctx context.Context) (bench.ProgramReport, error) {
		if !gate {
			return bench.Prog(ctx, f.options, targets, cases, f.flows)
		}
		record, err := bench.CommittedRecord()
		if err != nil {
			return bench.ProgramReport{}, err
		}
		return bench.Gate(ctx, f.options, targets, cases, f.flows, record)
	})
}

func newBenchVethCommand(load loadBenchProgram) *cobra.Command {
	var f benchFlags
	var across bool
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

--across shows instead how the rate grows with CPUs, in Mpps: everything on one CPU, the same on each
CPU at once, and the program on CPUs of its own by threaded NAPI, where packets can be lost. It is far
noisier; compare programs without it.

The namespaces remora-bench-PID-generator and -tested exist only while the command runs; they are
removed after errors and on Ctrl-C, too. The other interfaces of the machine are not touched. Cases
that are not sent out again cannot be measured so.`,
		Example: `  remora bench veth
  remora bench veth --cases tcp4-ack,tcp6 --flows 1 --floors`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if across {
				return f.runScale(c, load)
			}
			return f.runVeth(c, load)
		},
	}
	f.add(c, []string{"tcp4-ack"}, []int{1, 65536})
	c.Flags().BoolVar(&across, "across", false, "show how the rate grows with CPUs, with --rounds of each")
	for _, other := range []string{"cases", "flows", "reloads", "floors", "cpu"} {
		c.MarkFlagsMutuallyExclusive("across", other)
	}
	return c
}

// runScale sends the traffic of bench pktgen through the programs.
func (f *benchFlags) runScale(c *cobra.Command, load loadBenchProgram) error {
	targets, _, err := f.prepare(c, load)
	if err != nil {
		return err
	}
	o := bench.DefaultTrafficOptions()
	o.Duration, o.FIFO, o.Progress = 200*time.Millisecond, f.options.FIFO, f.output.progress
	return measure(c, &f.output, func(ctx context.Context) (bench.TrafficReport, error) {
		return bench.Scale(ctx, o, append([]bench.Target{bench.UnitTarget()}, targets...), f.options.Rounds)
	})
}

func (f *benchFlags) runVeth(c *cobra.Command, load loadBenchProgram) error {
	targets, cases, err := f.prepare(c, load)
	if err != nil {
		return err
	}
	targets = append([]bench.Target{bench.UnitTarget()}, targets...)
	return measure(c, &f.output, func(ctx context.Context) (bench.ProgramReport, error) {
		return bench.Veth(ctx, f.options, targets, cases, f.flows)
	})
}

func newBenchRingCommand() *cobra.Command {
	o := bench.DefaultRingOptions()
	var sizes []uint
	var output benchOutput
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
			if err := output.begin(c); err != nil {
				return err
			}
			o.Sizes = nil
			for _, n := range sizes {
				if n > lb.MaxRingSize {
					return fmt.Errorf("size %d is more than %d", n, lb.MaxRingSize)
				}
				o.Sizes = append(o.Sizes, uint32(n))
			}
			return measure(c, &output, func(ctx context.Context) (bench.RingReport, error) { return bench.Ring(ctx, o) })
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
	output.add(c)
	return c
}
