// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

func newDrainsCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "drains",
		Short: "List the drains, and how far they are",
		Long: `List the drains of backends, and how far they are.

ACTIVE are the flows that had a packet within the last minute, KNOWN all that are remembered: also
those that ended, since nothing tells them from flows that pause. SLOTS are those of the ring
whose flows may be the backend's though nothing is known of them yet.

  draining         flows were active within the last minute, or that is not known yet
  done             none was; those that are known stay the backend's until the deadline
  deadline passed  flows were active in the minute before it, or no daemon ran then; they were
                   given to other backends. ACTIVE and KNOWN are as they were

A drain is listed until ` + "`remora undrain`" + ` ends it, or its backend is gone.` + clientHelp + `

Exit status: 0 listed, also if there is none; 1 not listed.`,
		Example: `  remora drains

  # Those that are not done:
  remora drains -o json | jq -r '.drains[]? | select(.state == "DRAIN_STATE_RUNNING") | .backend'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := c.Drains(ctx)
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				return printDrains(cmd.OutOrStdout(), res.Drains, time.Now())
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	return cmd
}

func drainState(s remorav1.DrainState) string {
	switch s {
	case remorav1.DrainState_DRAIN_STATE_DONE:
		return "done"
	case remorav1.DrainState_DRAIN_STATE_EXPIRED:
		return "deadline passed"
	}
	return "draining"
}

func printDrains(out io.Writer, drains []*remorav1.DrainProgress, now time.Time) error {
	if len(drains) == 0 {
		_, err := fmt.Fprintln(out, "no backend is drained")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VIP\tREAL\tSTATE\tACTIVE\tKNOWN\tSLOTS\tSINCE\tDEADLINE")
	for _, d := range drains {
		deadline := d.Deadline.AsTime()
		left := ""
		if wait := deadline.Sub(now); wait > 0 {
			left = fmt.Sprintf(" (%s)", wait.Round(time.Second))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s%s\n", d.Vip, d.Backend, drainState(d.State), d.ActiveFlows, d.FlowsLeft,
			d.SlotsLeft, d.Since.AsTime().Local().Format(time.DateTime), deadline.Local().Format(time.DateTime), left)
	}
	return w.Flush()
}
