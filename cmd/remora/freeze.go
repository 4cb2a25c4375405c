// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

const serviceHelp = `

SERVICE is a service whose backends come from Consul: its name in the configuration, or one of its
VIPs, written ADDRESS:PORT/PROTOCOL.` + clientHelp

func newFreezeCommand() *cobra.Command {
	var f clientFlags
	var author, reason string
	var during time.Duration
	cmd := &cobra.Command{
		Use:   "freeze SERVICE --for TIME --reason TEXT",
		Short: "Keep the backends of a service as they are for a time",
		Long: `Keep the backends of a service as they are for a time, whatever Consul says of them. Health checks
and drains go on. What changed meanwhile is judged when the freeze ends, as if it had just been said.
A freeze lasts over restarts of the daemon; to freeze again replaces it.` + serviceHelp + `

Exit status: 0 frozen, 1 not frozen.`,
		Example: `  remora freeze web --for 2h --reason "Consul is being upgraded"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &remorav1.FreezeRequest{Service: args[0], Author: author, Reason: reason, Duration: durationpb.New(during)}
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := c.Freeze(ctx, req)
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: frozen until %s\n", res.Service, res.Until.AsTime().Local().Format(time.DateTime))
				return err
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	cmd.Flags().StringVar(&author, "author", userName(), "who wants it")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who find it frozen")
	cmd.Flags().DurationVar(&during, "for", 0, "how long, for example 30m or 2h")
	for _, name := range []string{"reason", "for"} {
		// The only error is a flag that does not exist.
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// userName is who calls, behind sudo too; empty if that cannot be told.
func userName() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func newUnfreezeCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "unfreeze SERVICE",
		Short: "End a freeze",
		Long: `End a freeze. What Consul says of the service's backends now is judged as if it had just been said: it
may be held back by other rules.` + serviceHelp + `

Exit status: 0 the freeze is ended, 1 there was none.`,
		Example: `  remora unfreeze web`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := c.Unfreeze(ctx, &remorav1.UnfreezeRequest{Service: args[0]})
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: not frozen any more\n", res.Service)
				return err
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	return cmd
}
