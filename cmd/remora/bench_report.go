// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
)

func newBenchReportCommand() *cobra.Command {
	var page, document string
	c := &cobra.Command{
		Use:   "report IN.json...",
		Short: "Make a page or the tables of a document of saved reports",
		Long: `Make one HTML page of reports that were saved with --save, or renew the tables of a document.

The page is one file that needs no network: bars beside their reference, rates, loss curves, latency,
tables, and the machine that all was measured on. It can be printed.

A document has regions between the lines <!-- bench:KIND --> and <!-- bench:end -->, where KIND is
prog, veth, ring, churn, traffic or control. What is between them is replaced by the facts and tables
of the reports of that kind; everything else stays.`,
		Example: `  remora bench prog --save prog.json
  remora bench report prog.json -o report.html
  remora bench report prog.json --into docs/performance.md`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if page == "" && document == "" {
				return errors.New("neither --output nor --into says where the report goes")
			}
			reports, err := readReports(args)
			if err != nil {
				return err
			}
			if document != "" {
				if err := renewDocument(document, reports); err != nil {
					return err
				}
			}
			if page == "" {
				return nil
			}
			return writeOutput(page, func(w io.Writer) error { return bench.WriteHTML(w, reports) })
		},
	}
	c.Flags().StringVarP(&page, "output", "o", "", "write an HTML page to this `FILE`")
	c.Flags().StringVar(&document, "into", "", "renew the regions of this `FILE`")
	return c
}

func renewDocument(name string, reports []bench.Report) error {
	before, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("renew document: %w", err)
	}
	after, err := bench.RenewDocument(before, reports)
	if err != nil {
		return fmt.Errorf("renew document %q: %w", name, err)
	}
	return writeOutput(name, func(w io.Writer) error {
		_, err := w.Write(after)
		return err
	})
}

func newBenchCompareCommand() *cobra.Command {
	var o benchOutput
	c := &cobra.Command{
		Use:   "compare OLD.json NEW.json",
		Short: "Judge by two saved reports whether a program has become dearer",
		Long: `Compare two reports of bench prog, or two of bench veth, that were saved with --save.

Compared are ratios to the reference that ran beside the program, not nanoseconds, and what differs
is named: kernel, CPU, mitigations, hashes of programs. If each report has one program that the other
has not, those two are compared with each other.

  worse    even the best of the second report's reloads is dearer than the median of the first one's by
           more than 5 % with one flow, or 20 % with more: where memory lies moves those from load to load
  better   the same the other way round
  equal    anything else
  refused  the program does not do what it did, or what it must
  missing  in one of the reports only

The exit code is 1 if anything is worse or refused, or if the reports have nothing in common.`,
		Example: `  remora bench prog --save old.json
  remora bench prog --object new.o --save new.json
  remora bench compare old.json new.json`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.begin(c); err != nil {
				return err
			}
			reports, err := readReports(args)
			if err != nil {
				return err
			}
			compared, err := bench.Compare(reports[0], reports[1])
			if err != nil {
				return err
			}
			return errors.Join(writeTables(c.OutOrStdout(), compared, o.format), compared.Err())
		},
	}
	c.Flags().StringVar(&o.format, "format", "table", "table, markdown or json")
	return c
}
