// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/plan"
)

const planLong = `Say what applying a configuration file would change, without doing it: VIPs and backends that come,
go or change; the slots of each ring whose new connections would get another backend, and how many
of these moves no other way could avoid; what becomes of connections; maps that would grow; and
prefixes that BGP would begin or cease to announce.

The present state is read from the pinned maps, whether or not the daemon runs, for which it must be
root. A backend that is down or drained now is taken to stay so. Backends of services that have them
from Consul are taken to stay as they are: what Consul will say, and what the governor will make of
that, is not foreseen. Neither are shares that health checks give (percentages of a weight), source
routes, settings that need a restart, and what of BGP depends on health, routers or aggregates.

Exit status: 0 nothing would change, 2 something would, 1 error.`

// planFlags are the command's flags as given.
type planFlags struct {
	instanceFlags
	file, output    string
	drains, weights []string
}

func newPlanCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan -c FILE",
		Short: "Say what applying a configuration file would change",
		Long:  planLong,
		Example: `  remora plan -c new.yaml
  remora plan -c /etc/remora/remora.yaml --drain 192.0.2.10:80/tcp/10.20.0.11
  remora plan -c /etc/remora/remora.yaml --weight 192.0.2.10:80/tcp/10.20.0.11=50 -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.plan(cmd.OutOrStdout()) },
	}
	addConfigFlag(cmd, &f.file)
	f.add(cmd)
	cmd.Flags().StringArrayVar(&f.drains, "drain", nil, "VIP/BACKEND: as if the backend were drained on that VIP; may be repeated")
	cmd.Flags().StringArrayVar(&f.weights, "weight", nil, "VIP/BACKEND=WEIGHT: as if it had this weight there; may be repeated")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

// planReport is the JSON form.
type planReport struct {
	*plan.Plan
	Memory []mapGrowth  `json:"memory,omitempty"`
	Routes *plan.Routes `json:"routes,omitempty"` // nil without BGP
}

// mapGrowth is a map that would be replaced by a greater one.
type mapGrowth struct {
	Map  string `json:"map"`
	From int    `json:"from"`
	To   int    `json:"to"`
}

func (f *planFlags) plan(out io.Writer) error {
	c, want, err := f.wanted()
	if err != nil {
		return err
	}
	i, err := dataplane.Inspect(f.bpffs, f.instance)
	if errors.Is(err, dataplane.ErrNoInstance) {
		return fmt.Errorf("%v: is `remora run` running, with this --instance and --bpffs?", err)
	}
	if err != nil {
		return err
	}
	defer i.Close()
	r, err := newPlanReport(c, want, i)
	if err != nil {
		return err
	}
	if err := r.print(out, f.output); err != nil {
		return err
	}
	if r.Changes {
		return &statusError{status: 2, text: "something would change"}
	}
	return nil
}

// wanted reads the file, and what is put on top of it.
func (f *planFlags) wanted() (c *config.Config, want plan.Wanted, err error) {
	if err := f.check(); err != nil {
		return nil, want, err
	}
	if f.output != "text" && f.output != "json" {
		return nil, want, fmt.Errorf("output %q is not text or json", f.output)
	}
	want.Drains, want.Weights = make(map[lb.Target]bool), make(map[lb.Target]uint32)
	for _, text := range f.drains {
		t, err := parseTarget(text)
		if err != nil {
			return nil, want, fmt.Errorf("read --drain: %v", err)
		}
		want.Drains[t] = true
	}
	for _, text := range f.weights {
		target, weight, _ := strings.Cut(text, "=")
		t, err := parseTarget(target)
		if err != nil {
			return nil, want, fmt.Errorf("read --weight: %v", err)
		}
		w, err := strconv.ParseUint(weight, 10, 16)
		if err != nil {
			return nil, want, fmt.Errorf("read --weight: %q is not VIP/BACKEND=WEIGHT with a weight of 0 to 65535", text)
		}
		want.Weights[t] = uint32(w)
	}
	if c, err = config.Load(f.file); err != nil {
		return nil, want, err
	}
	want.Services, want.Backends, want.Dynamic = c.Services, c.Backends, make(map[string]bool)
	for service := range c.Sources {
		want.Dynamic[service] = true
	}
	return c, want, want.Check()
}

// parseTarget reads VIP/BACKEND, for example 192.0.2.10:80/tcp/10.20.0.11.
func parseTarget(text string) (t lb.Target, err error) {
	cut := strings.LastIndexByte(text, '/')
	if cut < 0 {
		return t, fmt.Errorf("%q is not VIP/BACKEND", text)
	}
	if t.VIP, err = lb.ParseVIP(text[:cut]); err != nil {
		return t, err
	}
	t.Backend, err = lb.ParseBackendAddr(text[cut+1:])
	return t, err
}

func newPlanReport(c *config.Config, want plan.Wanted, i *dataplane.Inspection) (*planReport, error) {
	have := plan.Present{VIPs: i.VIPs, Reals: i.Reals, Slots: i.Slots, Flows: i.Flows}
	p, err := plan.Compute(have, want)
	if err != nil {
		return nil, err
	}
	r := &planReport{Plan: p}
	for _, m := range i.Growth(p.Capacity) {
		r.Memory = append(r.Memory, mapGrowth{Map: m.Name, From: m.From, To: m.To})
	}
	if c.BGP != nil {
		routes := p.Routes(have)
		r.Routes = &routes
	}
	if c.Interface != i.Interface {
		p.Notes = append(p.Notes, fmt.Sprintf("the interface is %s, not %s: that needs a restart", i.Interface, c.Interface))
	}
	if len(c.Sources) > 0 {
		p.Notes = append(p.Notes, "backends from Consul are taken to stay as they are")
	}
	return r, nil
}

func (r *planReport) print(out io.Writer, output string) error {
	if output == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	if err := r.Plan.Print(out); err != nil {
		return err
	}
	for _, m := range r.Memory {
		fmt.Fprintf(out, "map %s grows from %d to %d entries\n", m.Map, m.From, m.To)
	}
	if r.Routes == nil {
		return nil
	}
	printPrefixes(out, "announces", r.Routes.Announce)
	printPrefixes(out, "withdraws", r.Routes.Withdraw)
	return nil
}

func printPrefixes(out io.Writer, what string, prefixes []netip.Prefix) {
	for _, p := range prefixes {
		fmt.Fprintf(out, "BGP %s %s\n", what, p)
	}
}
