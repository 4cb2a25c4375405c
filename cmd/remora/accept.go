// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

func newAcceptCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "accept SERVICE",
		Short: "Let changes through that are held back",
		Long: `Let through all changes of a service that are held back now; ` + "`remora status --why`" + ` shows them. It does
not make up for an answer of Consul that is not whole: what is held comes from the last one that was.
A service that is frozen has to be unfrozen instead.` + serviceHelp + `

Exit status: 0 let through, 1 nothing was held back.`,
		Example: `  remora status --why
  remora accept web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := c.Accept(ctx, &remorav1.AcceptRequest{Service: args[0]})
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d changes let through\n", res.Service, res.Changes)
				return err
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	return cmd
}
