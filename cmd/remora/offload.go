// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/offload"
)

func newOffloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "offload",
		Short: "About cards that run the packet program themselves",
		Args:  noArguments,
	}
	cmd.AddCommand(newOffloadCheckCommand())
	return cmd
}

const offloadCheckHelp = `Tell whether a card would take an XDP object, and which rules it breaks, each with its source line.
Without OBJECT it is remora's own program for cards, with room for what --vips, --reals and
--ring-size say.

Nothing is loaded; no privilege and no card is needed. The check may refuse what a card takes, where it
cannot follow a program; what it accepts was also accepted by the card's driver wherever that was tried.
The length of the translated program is estimated.

Profiles, --profile:
`

// exitRefused is for objects that a card would refuse.
const exitRefused = 2

// offloadCheck is the verb's flags.
type offloadCheck struct {
	profile               string
	vips, reals, ringSize int
	output                string
}

func newOffloadCheckCommand() *cobra.Command {
	var f offloadCheck
	profiles := offload.Profiles()
	help := offloadCheckHelp
	for _, p := range profiles {
		help += fmt.Sprintf("  %-11s %s\n", p.Name, p.Description)
	}
	cmd := &cobra.Command{
		Use:   "check [OBJECT]",
		Short: "Tell whether a card would take a packet program",
		Long:  help + "\nExit status: 0 a card would take it, 1 not told (a mistake, or no XDP object), 2 it would not.",
		Example: `  remora offload check
  remora offload check --vips 300 --reals 20000 -o json
  remora offload check --profile array-hash build/filter.o`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (cmd.Flags().Changed("vips") || cmd.Flags().Changed("reals") || cmd.Flags().Changed("ring-size")) {
				return errors.New("--vips, --reals and --ring-size are about remora's own program: an object says itself how many elements its maps have")
			}
			return f.run(cmd.OutOrStdout(), args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.profile, "profile", profiles[0].Name, "kind of card")
	flags.IntVar(&f.vips, "vips", 64, "VIPs of either family to have room for")
	flags.IntVar(&f.reals, "reals", 4096, "reals (backends of VIPs) to have room for")
	flags.IntVar(&f.ringSize, "ring-size", lb.DefaultRingSize, "slots of each VIP's ring")
	flags.StringVarP(&f.output, "output", "o", "table", "table or json")
	return cmd
}

// offloadReport is the JSON form.
type offloadReport struct {
	Object string `json:"object"`
	offload.Report
	// MostVIPs is how many there would be room for with these reals and rings; of remora's own program,
	// for cards whose limit is known.
	MostVIPs *int `json:"most_vips,omitempty"`
}

func (f *offloadCheck) run(out io.Writer, args []string) error {
	if f.output != "table" && f.output != "json" {
		return fmt.Errorf("--output %q: expected table or json", f.output)
	}
	profile, err := offload.ParseProfile(f.profile)
	if err != nil {
		return fmt.Errorf("--profile: %v", err)
	}
	report, err := f.check(profile, args)
	if err != nil {
		return err
	}
	print := printOffloadTable
	if f.output == "json" {
		print = printOffloadJSON
	}
	if err := print(out, report); err != nil {
		return fmt.Errorf("print report: %v", err)
	}
	if !report.Accepted {
		return &statusError{exitRefused, fmt.Sprintf("%s: a card of profile %s would refuse it", report.Object, profile.Name)}
	}
	return nil
}

func (f *offloadCheck) check(profile offload.Profile, args []string) (r offloadReport, err error) {
	if len(args) == 0 {
		r.Object = "remora's program for cards"
		r.Report, err = f.checkOwn(profile)
		if most := offload.MostVIPs(profile, f.reals, f.ringSize); most >= 0 {
			r.MostVIPs = &most
		}
		return r, err
	}
	r.Object = args[0]
	file, err := os.Open(args[0])
	if err != nil {
		return r, err
	}
	defer file.Close()
	if r.Report, err = offload.Check(file, profile); err != nil {
		err = fmt.Errorf("%s: %v", args[0], err)
	}
	return r, err
}

// checkOwn judges remora's program with the room that the flags say.
func (f *offloadCheck) checkOwn(profile offload.Profile) (offload.Report, error) {
	if f.ringSize < 1 || f.ringSize > lb.MaxRingSize {
		return offload.Report{}, fmt.Errorf("--ring-size %d: expected 1 to %d", f.ringSize, lb.MaxRingSize)
	}
	if f.vips < 0 || f.vips > offload.MaxVIPs {
		return offload.Report{}, fmt.Errorf("--vips %d: expected 0 to %d", f.vips, offload.MaxVIPs)
	}
	if f.reals < 0 || f.reals > int(lb.MaxRealID) {
		return offload.Report{}, fmt.Errorf("--reals %d: expected 0 to %d", f.reals, lb.MaxRealID)
	}
	spec, err := offload.Spec(offload.SizesFor(f.vips, f.reals, f.ringSize))
	if err != nil {
		return offload.Report{}, err
	}
	return offload.CheckSpec(spec, profile)
}

func printOffloadJSON(out io.Writer, r offloadReport) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func printOffloadTable(out io.Writer, r offloadReport) error {
	said := "accepted"
	if !r.Accepted {
		said = "refused"
	}
	fmt.Fprintf(out, "%s: %s by profile %s\n\n", r.Object, said, r.Profile)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROGRAM\tINSTRUCTIONS\tOF THE CARD, ABOUT\tSTACK BYTES\tPACKET BYTES")
	for _, p := range r.Programs {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", p.Name, p.Instructions, p.Estimated, p.StackBytes, p.PacketBytes)
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, "MAP\tTYPE\tELEMENT BYTES\tELEMENTS")
	for _, m := range r.Maps {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", m.Name, m.Type, m.ElementBytes, m.Elements)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d elements", r.Elements)
	if r.MostVIPs != nil {
		fmt.Fprintf(out, "; with these reals and rings a card has room for %d VIPs", *r.MostVIPs)
	}
	fmt.Fprintln(out)
	for _, f := range r.Findings {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	return nil
}
