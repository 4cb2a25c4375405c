// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb/dataplane"
)

func newDetachCommand() *cobra.Command {
	var f instanceFlags
	cmd := &cobra.Command{
		Use:   "detach",
		Short: "Take the packet program off its interface and remove everything pinned",
		Long: `Take the packet program off its interface and remove everything pinned for the instance. Packets
to VIPs then go to the host's network stack. Refused while a daemon runs for the instance. An
instance that is not there is an error. ` + "`remora reset`" + ` lists what it removes, and takes state too.`,
		Example: `  remora detach
  remora detach --instance lab`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			if err := dataplane.Remove(f.bpffs, f.instance); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "instance %s: detached, pins removed\n", f.instance)
			return err
		},
	}
	f.add(cmd)
	return cmd
}
