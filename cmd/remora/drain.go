// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

const drainLong = `Stop new flows to a backend, and let its known flows end.

VIP is written ADDRESS:PORT/PROTOCOL, REAL as the backend's address. Without VIP the backend is
drained for all VIPs that have it. What is left of its flows at the deadline is given to other
backends. A drain is not the configuration's: it lasts until ` + "`remora undrain`" + `. To drain again sets the
deadline anew. ` + "`remora drains`" + ` lists all drains.

The drain is done when no packet of the backend's flows was seen for a minute. That only tells how
far it is, and cuts nothing: nothing tells a connection that has ended from one that pauses, so
all that are known stay the backend's until the deadline, and so does the drain. "0 active of 7
known flows" is 7 connections that ended or pause. If one of them goes on before the deadline,
the drain is not done any more. At the deadline it is done if no packet was seen in the minute
before; otherwise the deadline came while flows were active.

With --wait the command stays until it is done, and prints how far it is: on a terminal
always the present state, elsewhere a line when the state changes and at most every 10 seconds.
To interrupt it does not end the drain.` + drainNodeHelp + clientHelp + `

Exit status:
  0  the drain has begun; with --wait: it is done
  1  it has not begun; with --wait: it was ended by somebody else, or the daemon does not answer
  3  with --wait: the deadline came while flows were active`

const drainExample = `  remora drain 192.0.2.10:80/tcp 10.20.0.11

  # For all VIPs, and go on when no connection was active for a minute:
  remora drain 10.20.0.11 --timeout 10m --wait && ssh 10.20.0.11 reboot

  # A JSON object on each line:
  remora drain 10.20.0.11 --wait -o json | jq '[.drains[].activeFlows] | add'

  # The balancer itself:
  remora drain --node --wait && systemctl stop remora`

// drainFlags are the command's flags as given.
type drainFlags struct {
	clientFlags
	timeout time.Duration
	wait    bool
	node    bool
}

func newDrainCommand() *cobra.Command {
	var f drainFlags
	cmd := &cobra.Command{
		Use:     "drain {[VIP] REAL | --node}",
		Short:   "Stop new flows to a backend, and let its known flows end",
		Long:    drainLong,
		Example: drainExample,
		Args:    nodeArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.node {
				return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
					return f.drainNode(ctx, c, cmd.OutOrStdout())
				})
			}
			req := &remorav1.DrainRequest{}
			req.Vip, req.Backend = splitBackend(args)
			if cmd.Flags().Changed("timeout") {
				req.Timeout = durationpb.New(f.timeout)
			}
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				return f.run(ctx, c, req, cmd.OutOrStdout())
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long known flows may go on, for example 10m (default: as configured for the VIP)")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until the drain is done, or its deadline comes")
	cmd.Flags().BoolVar(&f.node, "node", false, "drain the balancer itself")
	return cmd
}

// backendArgs is the arguments of verbs about a backend.
func backendArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 1 || len(args) == 2 {
		return nil
	}
	return fmt.Errorf("%d arguments: write `remora %s REAL` or `remora %s VIP REAL`; `remora drains` lists the drains", len(args), cmd.Name(), cmd.Name())
}

// splitBackend is empty for the VIP if there is none.
func splitBackend(args []string) (vip, backend string) {
	if len(args) == 2 {
		return args[0], args[1]
	}
	return "", args[0]
}

func (f *drainFlags) run(ctx context.Context, c *control.Client, req *remorav1.DrainRequest, out io.Writer) error {
	begun, err := c.Drain(ctx, req)
	if err != nil {
		return err
	}
	p := drainPrinter{out: out, terminal: isTerminal(out), interval: 10 * time.Second, now: time.Now}
	if !f.wait {
		if f.json() {
			return printJSON(out, begun)
		}
		return p.print(begun.Drains)
	}
	var last []*remorav1.DrainProgress
	err = c.WatchDrain(ctx, &remorav1.WatchDrainRequest{Vip: req.Vip, Backend: req.Backend}, func(m *remorav1.WatchDrainResponse) error {
		last = m.Drains
		if f.json() {
			return printJSON(out, m)
		}
		return p.print(m.Drains)
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted: the drain goes on; `remora undrain` ends it")
	}
	if err != nil {
		return fmt.Errorf("wait for the drain: %v", err)
	}
	return drainResult(last)
}

// drainResult is the error of a drain that did not end as it should.
func drainResult(drains []*remorav1.DrainProgress) error {
	var expired, ended []string
	for _, d := range drains {
		switch name := d.Vip + " " + d.Backend; d.State {
		case remorav1.DrainState_DRAIN_STATE_EXPIRED:
			expired = append(expired, fmt.Sprintf("%s (%s)", name, flowsOf(d)))
		case remorav1.DrainState_DRAIN_STATE_ENDED:
			ended = append(ended, name)
		}
	}
	switch {
	case len(ended) > 0:
		return fmt.Errorf("the drain was ended before it was done: %s", strings.Join(ended, ", "))
	case len(expired) > 0:
		return &statusError{3, "the deadline came while flows were active, or no daemon ran: " + strings.Join(expired, ", ")}
	}
	return nil
}

// drainPrinter prints how far drains are, a line for each.
type drainPrinter struct {
	out io.Writer
	// terminal lets new lines take the place of the old ones; otherwise there is at most one within
	// the interval, as long as the state is the same.
	terminal bool
	interval time.Duration
	now      func() time.Time

	lines   int                     // that the next ones take the place of
	printed map[string]printedDrain // by VIP and backend
}

type printedDrain struct {
	state remorav1.DrainState
	at    time.Time
}

func (p *drainPrinter) print(drains []*remorav1.DrainProgress) error {
	var text strings.Builder
	if p.terminal && p.lines > 0 {
		fmt.Fprintf(&text, "\x1b[%dA\x1b[J", p.lines) // up, and clear to the end (ECMA-48)
	}
	p.lines = len(drains)
	for _, d := range drains {
		if p.terminal || p.due(d) {
			fmt.Fprintln(&text, drainLine(d, p.now()))
		}
	}
	_, err := io.WriteString(p.out, text.String())
	return err
}

// due tells whether a line is to be printed, and remembers that it is.
func (p *drainPrinter) due(d *remorav1.DrainProgress) bool {
	name, now := d.Vip+" "+d.Backend, p.now()
	last, ok := p.printed[name]
	if ok && last.state == d.State && now.Sub(last.at) < p.interval {
		return false
	}
	if p.printed == nil {
		p.printed = make(map[string]printedDrain)
	}
	p.printed[name] = printedDrain{d.State, now}
	return true
}

func drainLine(d *remorav1.DrainProgress, now time.Time) string {
	name := d.Vip + " " + d.Backend + ": "
	switch d.State {
	case remorav1.DrainState_DRAIN_STATE_DONE:
		return name + "done, " + flowsOf(d)
	case remorav1.DrainState_DRAIN_STATE_EXPIRED:
		return name + "deadline passed, " + flowsOf(d) + " were given to others"
	case remorav1.DrainState_DRAIN_STATE_ENDED:
		return name + "ended, " + flowsOf(d) + " were left"
	}
	deadline := d.Deadline.AsTime()
	return fmt.Sprintf("%sdraining, %s and %d slots left, until %s (%s)", name, flowsOf(d),
		d.SlotsLeft, deadline.Local().Format(time.DateTime), max(0, deadline.Sub(now)).Round(time.Second))
}

func flowsOf(d *remorav1.DrainProgress) string {
	return fmt.Sprintf("%d active of %d known flows", d.ActiveFlows, d.FlowsLeft)
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
