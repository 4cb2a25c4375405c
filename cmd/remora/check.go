// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

func newCheckCommand() *cobra.Command {
	var file, compat string
	var ask bool
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Validate a configuration file and print what it would load",
		Long: `Validate a configuration file and print what it would load.

All mistakes of the file are reported in one run, each with its line and field. Nothing is loaded,
no privilege is needed, and neither the interface nor the servers need to be there. To whom VIPs
would be announced by BGP is printed, and no session is opened.

Backends that come from Consul are shown as such. With --consul, Consul is asked once, with the
file's addresses and token, and what it says now is shown: without the governor, which keeps the
last known good backends and limits losses (docs/consul.md).

` + compatHelp + `

Exit status: 0 the file is valid, 1 it is not, or Consul was asked and did not say all; with --compat
also 2: it must not run beside the other balancer, since there are differences of choice or packet.`,
		Example: `  remora check -c /etc/remora/remora.yaml

  # With the backends that Consul has now:
  remora check -c /etc/remora/remora.yaml --consul

  # May it share VIPs with Katran?
  remora check -c /etc/remora/remora.yaml --compat katran`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkCompat(compat); err != nil {
				return err
			}
			c, err := config.Load(file)
			if err != nil {
				return err
			}
			if compat != "" {
				return printCompat(cmd.OutOrStdout(), file, c)
			}
			routes, err := c.ReadSourceRoutes()
			if err != nil {
				return err
			}
			if !ask {
				return printPlan(cmd.OutOrStdout(), file, c, routes, nil)
			}
			answers, err := askConsul(cmd.Context(), c)
			if err != nil {
				return err
			}
			if err := printPlan(cmd.OutOrStdout(), file, c, routes, answers); err != nil {
				return err
			}
			return printAsked(cmd.OutOrStdout(), answers)
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().BoolVar(&ask, "consul", false, "ask Consul which backends there are now")
	cmd.Flags().StringVar(&compat, "compat", "", "print what would differ from another balancer: katran")
	cmd.MarkFlagsMutuallyExclusive("compat", "consul")
	return cmd
}

func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration file (YAML)")
	// The only error is a flag that does not exist.
	_ = cmd.MarkFlagRequired("config")
}

// slotBytes is the memory of one ring slot.
const slotBytes = 8

// printPlan prints what would be loaded. Answers are what Consul says, nil if it was not asked.
func printPlan(out io.Writer, file string, c *config.Config, routes []lb.SourceRoute, answers map[string]asked) error {
	fmt.Fprintf(out, "%s is valid: interface %s, mode %s, on exit %s\n", file, c.Interface, c.Mode, c.OnExit)
	if c.BGP != nil {
		fmt.Fprintf(out, "VIPs that can be served are announced by BGP as AS %d to %d routers\n", c.BGP.ASN, len(c.BGP.Peers))
	}
	if len(routes) > 0 {
		fmt.Fprintf(out, "%d prefixes of clients have backends of their own\n", len(routes))
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tVIP\tENCAPSULATION\tRING\tBACKENDS\tWEIGHT")
	slots, reals, unknown := 0, 0, false
	for _, s := range c.Services {
		backends := c.Backends[s.Name]
		_, dynamic := c.Sources[s.Name]
		answer, ok := answers[s.Name]
		known := !dynamic || ok && answer.problem == ""
		if dynamic {
			backends = answer.backends
		}
		count, weight := fmt.Sprint(len(backends)), fmt.Sprint(totalWeight(backends))
		if !known {
			count, weight, unknown = "from Consul", "", true
		}
		for _, v := range s.VIPs {
			fmt.Fprintf(w, "%s\t%v\t%v\t%d %v\t%s\t%s\n", s.Name, v.VIP, v.Encap, v.Ring.Size, v.Ring.Hash, count, weight)
			slots += int(v.Ring.Size)
			reals += len(backends)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	more := ""
	if unknown {
		more = " beside those from Consul"
	}
	_, err := fmt.Fprintf(out, "\n%d reals%s; rings take %.1f MiB of memory\n", reals, more, float64(slots*slotBytes)/(1<<20))
	return err
}

// printAsked prints what of Consul's answers cannot be used. The error says that not all was answered.
func printAsked(out io.Writer, answers map[string]asked) error {
	bad := 0
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		if p := answers[name].problem; p != "" {
			bad++
			fmt.Fprintf(out, "  %s: not known: %s\n", name, p)
		}
		for _, r := range answers[name].refused {
			fmt.Fprintf(out, "  %s: %s is not used: %s\n", name, r.Object, r.Reason)
		}
	}
	if bad > 0 {
		return fmt.Errorf("the file is valid, but what Consul has of %d services is not known", bad)
	}
	return nil
}

// totalWeight is that of the backends that get new flows.
func totalWeight(backends []lb.Backend) (sum uint64) {
	for _, b := range backends {
		if !b.Down {
			sum += uint64(b.Weight)
		}
	}
	return sum
}
