// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

func newCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Validate a configuration file and print what it would load",
		Long: `Validate a configuration file and print what it would load.

All mistakes of the file are reported in one run, each with its line and field. Nothing is loaded,
no privilege is needed, and neither the interface nor the servers need to be there.`,
		Example: `  remora check -c /etc/remora/remora.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return err
			}
			return printPlan(cmd.OutOrStdout(), file, c)
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration file (YAML)")
	// The only error is a flag that does not exist.
	_ = cmd.MarkFlagRequired("config")
}

// slotBytes is the memory of one ring slot.
const slotBytes = 8

func printPlan(out io.Writer, file string, c *config.Config) error {
	fmt.Fprintf(out, "%s is valid: interface %s, mode %s, on exit %s\n\n", file, c.Interface, c.Mode, c.OnExit)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tVIP\tENCAPSULATION\tRING\tBACKENDS\tWEIGHT")
	slots, reals := 0, 0
	for _, s := range c.Services {
		backends := c.Backends[s.Name]
		for _, v := range s.VIPs {
			fmt.Fprintf(w, "%s\t%v\t%v\t%d %v\t%d\t%d\n", s.Name, v.VIP, v.Encap, v.Ring.Size, v.Ring.Hash, len(backends), totalWeight(backends))
			slots += int(v.Ring.Size)
			reals += len(backends)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d reals; rings take %.1f MiB of memory\n", reals, float64(slots*slotBytes)/(1<<20))
	return err
}

func totalWeight(backends []lb.Backend) (sum uint64) {
	for _, b := range backends {
		sum += uint64(b.Weight)
	}
	return sum
}
