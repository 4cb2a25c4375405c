// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
)

// churnService is the one service of the bench, churnSource the source of its backends.
const (
	churnService = "churn"
	churnSource  = "bench"
)

// churnBalancer is the engine and the data plane as the daemon wires them, without its sources.
type churnBalancer struct {
	dp      *dataplane.Dataplane
	engine  *engine.Engine
	vip     lb.ServiceVIP
	hop     lb.NextHop
	stop    context.CancelFunc
	stopped chan error
}

var _ bench.ChurnBalancer = (*churnBalancer)(nil)

// newChurnBalancer makes a balancer and starts it. It is attached nowhere.
func newChurnBalancer(s bench.ChurnSettings) (bench.ChurnBalancer, error) {
	dp, err := dataplane.Open(dataplane.Config{Flows: s.Flows})
	if err != nil {
		return nil, err
	}
	// The program must stay the same, so it must not grow.
	err = dp.Reserve(engine.Capacity{VIPs4: 1, Reals: 2 * s.Servers, RingSlots: int(s.VIP.Ring.Size)})
	if err != nil {
		dp.Close()
		return nil, err
	}
	b := &churnBalancer{dp: dp, vip: s.VIP, hop: s.NextHop, stopped: make(chan error, 1)}
	c := engine.DefaultConfig()
	c.Window, c.Quarantine, c.SweepInterval = s.Window, s.Window, s.Window/4
	if b.engine, err = engine.New(c, dp, b); err != nil {
		dp.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	go func() { b.stopped <- b.engine.Run(ctx) }()
	return b, nil
}

// Want implements engine.NextHops: Apply resolves all there are.
func (b *churnBalancer) Want([]netip.Addr) {}

// Program implements bench.ChurnBalancer.
func (b *churnBalancer) Program() *ebpf.Program { return b.dp.Program() }

// Apply implements bench.ChurnBalancer.
func (b *churnBalancer) Apply(ctx context.Context, f bench.Fleet) error {
	now := time.Now()
	hops := make(map[netip.Addr]lb.NextHop)
	for _, one := range f.Backends {
		hops[one.Addr] = b.hop
	}
	drains := make(map[lb.Target]engine.Drain)
	for _, addr := range f.Drains {
		drains[lb.Target{VIP: b.vip.VIP, Backend: addr}] = engine.Drain{Since: now, Until: now.Add(b.vip.Leave.Drain)}
	}
	b.engine.LearnNextHops(hops)
	b.engine.SetDrains(drains)
	b.engine.SetServicesAndBackends(
		[]lb.Service{{Name: churnService, VIPs: []lb.ServiceVIP{b.vip}}}, churnSource,
		map[string][]lb.Backend{churnService: f.Backends})
	return b.applied(ctx)
}

// applied returns once what was handed over is in the data plane.
func (b *churnBalancer) applied(ctx context.Context) error {
	if err := b.engine.Applied(ctx); err != nil {
		return err
	}
	s := b.engine.Status()
	if s.LastError != "" {
		return errors.New(s.LastError)
	}
	if len(s.Problems) > 0 {
		return fmt.Errorf("apply fleet: %s", s.Problems[0].Text)
	}
	return nil
}

// HandOver implements bench.ChurnBalancer.
func (b *churnBalancer) HandOver(ctx context.Context, to bench.ChurnBalancer) error {
	other := to.(*churnBalancer)
	x, err := b.engine.Export(ctx)
	if err != nil {
		return err
	}
	if _, err := other.engine.Import(ctx, x); err != nil {
		return err
	}
	return other.applied(ctx)
}

// Close implements bench.ChurnBalancer.
func (b *churnBalancer) Close() (refused uint64, err error) {
	b.stop()
	err = <-b.stopped
	s, readErr := b.dp.Snapshot()
	if readErr == nil {
		for reason, packets := range s.Reasons {
			if lb.Reason(reason) != lb.ReasonForwarded {
				refused += packets
			}
		}
	}
	return refused, errors.Join(err, readErr, b.dp.Close())
}

// churnModes are the flow modes by their names.
func churnModes(names []string) (modes []lb.FlowMode, err error) {
	known := bench.DefaultChurnOptions().Modes
	for _, name := range names {
		found := false
		for _, m := range known {
			if m.String() == name {
				modes, found = append(modes, m), true
			}
		}
		if !found {
			return nil, fmt.Errorf("flow mode %q is not transitions, always or never", name)
		}
	}
	return modes, nil
}

func newBenchChurnCommand() *cobra.Command {
	o := bench.DefaultChurnOptions()
	o.New = newChurnBalancer
	var scenarios []string
	modes := []string{"transitions", "always", "never"}
	var output benchOutput
	var about strings.Builder
	for _, s := range bench.Scenarios() {
		fmt.Fprintf(&about, "  %-14s %s\n", s.Name, s.About)
	}
	c := &cobra.Command{
		Use:   "churn",
		Short: "Count the connections that are broken while servers and balancers come and go",
		Long: `Count the TCP connections that are broken while servers and balancers come and go.

Clients hold many connections to one VIP, which two balancers share as behind a router with ECMP: a
packet goes the way of its addresses' hash, and when a balancer is lost, its ways become the other
one's. Connections begin with SYN, pause for up to nine tenths of the window, end with FIN, and are
replaced. Live frames go over veth pairs to the balancers' programs, natively attached, and come
back encapsulated; for each is seen which server it went to. All of it is done for each way to
remember flows (flows.tcp): transitions is remora's, always is that of Katran, never remembers none.

` + about.String() + `
Broken flows are counted by cause:
  moved     a packet went to another server, though the flow's own is there or draining
  stranger  a packet went to a server that is not configured, or began a flow at one that leaves
  dropped   a packet did not come back, though it was sent several times
  killed    the flow's own server was down
  silent    the machine was too busy to send within the window; this is no judgement
Lost are packets that did not come back, and were sent again; refused, those that a balancer did
not forward.

Needs root. What it makes are network namespaces without names; no interface, map or program of a
running remora is touched. --gate fails, with exit code 1, if a flow is broken that remora promised
to keep: with transitions, in all scenarios but lost-later and lost-changing, none may be moved;
with any, none may be moved that has seen no change, nor be a stranger or dropped.

A flow that outlives a change is known to the balancer that it went through then, and to no other.
So a lost balancer breaks such flows, however long ago the change was, unless its state was
exported and imported before (remora state).`,
		Example: `  remora bench churn
  remora bench churn --flows 5000 --window 2s --gate
  remora bench churn --scenarios mixed,lost-changing --modes transitions --format markdown`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := output.begin(c); err != nil {
				return err
			}
			if o.Modes, err = churnModes(modes); err != nil {
				return err
			}
			if o.Scenarios, err = bench.SelectScenarios(scenarios); err != nil {
				return err
			}
			o.Log = output.log(c)
			if !c.Flags().Changed("seed") {
				o.Seed = rand.Uint64()
			}
			o.Log.Info("playing", "seed", o.Seed)
			return measure(c, &output, func(ctx context.Context) (bench.ChurnReport, error) { return bench.Churn(ctx, o) })
		},
	}
	s := c.Flags()
	s.IntVar(&o.Flows, "flows", o.Flows, "flows that live at any time")
	s.IntVar(&o.Servers, "servers", o.Servers, "servers at the start")
	s.DurationVar(&o.Window, "window", o.Window, "for how long balancers remember changes")
	s.StringSliceVar(&scenarios, "scenarios", nil, "scenarios to play; empty: all")
	s.StringSliceVar(&modes, "modes", modes, "ways to remember flows")
	s.IntVar(&o.Runs, "runs", 0, "scenarios played at once; 0: as many as two CPUs keep up with")
	s.Uint64Var(&o.Seed, "seed", 0, "what is random follows from it (default random)")
	s.BoolVar(&o.Gate, "gate", false, "fail if a flow is broken that remora promised to keep")
	output.add(c)
	return c
}
