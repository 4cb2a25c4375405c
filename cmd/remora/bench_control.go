// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
)

// controlBalancer is the engine and the data plane as the daemon wires them, without its sources.
type controlBalancer struct {
	dp      *dataplane.Dataplane
	engine  *engine.Engine
	stop    context.CancelFunc
	stopped chan error
}

var _ bench.ControlBalancer = (*controlBalancer)(nil)

// newControlBalancer makes a balancer and starts it. It is attached nowhere.
func newControlBalancer(bench.ControlScale) (bench.ControlBalancer, error) {
	dp, err := dataplane.Open(dataplane.Config{})
	if err != nil {
		return nil, err
	}
	b := &controlBalancer{dp: dp, stopped: make(chan error, 1)}
	if b.engine, err = engine.New(engine.DefaultConfig(), dp, b); err != nil {
		dp.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() { b.stopped <- b.engine.Run(ctx) }()
	return b, nil
}

// Want implements engine.NextHops: Apply resolves all there are.
func (b *controlBalancer) Want([]netip.Addr) {}

// Program implements bench.ControlBalancer.
func (b *controlBalancer) Program() *ebpf.Program { return b.dp.Program() }

// Apply implements bench.ControlBalancer.
func (b *controlBalancer) Apply(ctx context.Context, services []lb.Service, backends map[string][]lb.Backend) error {
	hops := make(map[netip.Addr]lb.NextHop)
	for _, list := range backends {
		for _, one := range list {
			hops[one.Addr] = bench.NextHop()
		}
	}
	b.engine.LearnNextHops(hops)
	b.engine.SetServicesAndBackends(services, churnSource, backends)
	if err := b.engine.Applied(ctx); err != nil {
		return err
	}
	s := b.engine.Status()
	if s.LastError != "" {
		return errors.New(s.LastError)
	}
	if len(s.Problems) > 0 {
		return fmt.Errorf("apply services: %s", s.Problems[0].Text)
	}
	return nil
}

// Close implements bench.ControlBalancer.
func (b *controlBalancer) Close() error {
	b.stop()
	return errors.Join(<-b.stopped, b.dp.Close())
}

func newBenchControlCommand() *cobra.Command {
	o := bench.ControlOptions{New: newControlBalancer, BPFFS: dataplane.DefaultBPFFS, Changes: 20}
	var output benchOutput
	var scales []string
	starts := true
	for _, s := range bench.DefaultControlScales() {
		scales = append(scales, fmt.Sprintf("%dx%dx%d", s.VIPs, s.Reals, s.RingSize))
	}
	c := &cobra.Command{
		Use:   "control",
		Short: "Measure how long changes, starts and adoptions take, and the memory they need",
		Long: `Measure the control plane, with the real data plane.

In this process, attached nowhere: the time to bring everything into an empty data plane; the time from
a change of one VIP's servers until the packet program, which is run all the while, sends a SYN of the
server that is gone elsewhere, and back; the time for a server to be taken from nearly all VIPs; the
memory of maps and control plane.

Then this binary itself, by "remora run --once" in a network namespace of its own: the time of a start
with nothing there, from the program's beginning until all is in force and attached, and that of one
that adopts what the first has left. Instance and state are its own, and are removed at the end.

A scale is VIPSxREALSxSLOTS. 10000x100x4093 needs some 7 GiB and minutes; each change is given up after
three, each start after five.`,
		Example: `  remora bench control
  remora bench control --scales 1000x100x4093 --changes 100
  remora bench control --scales 512x100x65537 --starts=false`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := output.begin(c); err != nil {
				return err
			}
			if o.Scales, err = parseScales(scales); err != nil {
				return err
			}
			if starts {
				if o.Binary, err = os.Executable(); err != nil {
					return fmt.Errorf("find this program: %w", err)
				}
			}
			o.Progress = output.progress
			return measure(c, &output, func(ctx context.Context) (bench.ControlReport, error) { return bench.Control(ctx, o) })
		},
	}
	s := c.Flags()
	s.StringSliceVar(&scales, "scales", scales, "what to measure, as VIPSxREALSxSLOTS")
	s.IntVar(&o.Changes, "changes", o.Changes, "changes of one VIP that are measured")
	s.BoolVar(&starts, "starts", starts, "measure starts of the daemon as well")
	s.StringVar(&o.BPFFS, "bpffs", o.BPFFS, "mount point of the BPF file system, for the starts")
	output.add(c)
	return c
}

func parseScales(texts []string) (scales []bench.ControlScale, err error) {
	for _, text := range texts {
		var n [3]uint64
		words := strings.Split(text, "x")
		for i := range n {
			if len(words) != len(n) || err != nil {
				break
			}
			n[i], err = strconv.ParseUint(words[i], 10, 31)
		}
		if len(words) != len(n) || err != nil {
			return nil, fmt.Errorf("scale %q is not VIPSxREALSxSLOTS", text)
		}
		scales = append(scales, bench.ControlScale{VIPs: int(n[0]), Reals: int(n[1]), RingSize: uint32(n[2])})
	}
	return scales, nil
}
