// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

func newUndrainCommand() *cobra.Command {
	var f clientFlags
	var node bool
	cmd := &cobra.Command{
		Use:   "undrain {[VIP] REAL | --node}",
		Short: "End a drain: the backend gets new flows again",
		Long: `End a drain: the backend gets new flows again, unless it is down or its weight is 0.

VIP is written ADDRESS:PORT/PROTOCOL, REAL as the backend's address. Without VIP the backend's
drains are ended for all VIPs that have it. Flows that were given to others at the deadline do not
come back. A backend that is not drained is no error. With --node the balancer itself is
taken in again.` + clientHelp + `

Exit status: 0 the backend is not drained any more, 1 not done.`,
		Example: `  remora undrain 192.0.2.10:80/tcp 10.20.0.11
  remora undrain 10.20.0.11
  remora undrain --node`,
		Args: nodeArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if node {
				return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
					return f.undrainNode(ctx, c, cmd.OutOrStdout())
				})
			}
			req := &remorav1.UndrainRequest{}
			req.Vip, req.Backend = splitBackend(args)
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := c.Undrain(ctx, req)
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				return printUndrained(cmd.OutOrStdout(), req.Backend, res.Vips)
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	cmd.Flags().BoolVar(&node, "node", false, "end the drain of the balancer itself")
	return cmd
}

func printUndrained(out io.Writer, backend string, vips []string) error {
	if len(vips) == 0 {
		_, err := fmt.Fprintf(out, "%s: was not drained\n", backend)
		return err
	}
	for _, vip := range vips {
		if _, err := fmt.Fprintf(out, "%s %s: not drained any more\n", vip, backend); err != nil {
			return err
		}
	}
	return nil
}
