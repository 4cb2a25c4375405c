// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/bench"
)

// benchOutput is where a report goes, and what is shown meanwhile.
type benchOutput struct {
	format, save string
	progress     *bench.Progress
}

func (o *benchOutput) add(c *cobra.Command) {
	c.Flags().StringVar(&o.format, "format", "table", "table, markdown or json")
	c.Flags().StringVar(&o.save, "save", "", "also write the report to this `FILE`, in JSON: for `remora bench report` and compare")
}

// begin checks the flags and shows progress, if standard error is a terminal.
func (o *benchOutput) begin(c *cobra.Command) error {
	if !slices.Contains([]string{"table", "markdown", "json"}, o.format) {
		return fmt.Errorf("format %q is not table, markdown or json", o.format)
	}
	o.progress = bench.NewProgress(c.ErrOrStderr())
	return nil
}

// log writes to where it does not disturb the report.
func (o *benchOutput) log(c *cobra.Command) *slog.Logger {
	w := c.ErrOrStderr()
	if o.progress != nil {
		w = o.progress
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// measure runs a measurement until it ends or a signal comes. What it has made is removed then, too, and
// what was measured until then is written.
func measure[R bench.Report](c *cobra.Command, o *benchOutput, f func(context.Context) (R, error)) error {
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := f(ctx)
	o.progress.Done()
	if !bench.Measured(r) {
		return err
	}
	return errors.Join(err, o.write(c.OutOrStdout(), r), r.Err())
}

// write writes the report as the flags say.
func (o *benchOutput) write(w io.Writer, r bench.Report) (err error) {
	if o.save != "" {
		if err := saveReport(o.save, r); err != nil {
			return err
		}
	}
	return writeTables(w, r, o.format)
}

func writeTables(w io.Writer, t bench.Tabular, format string) error {
	switch format {
	case "markdown":
		return bench.WriteMarkdown(w, t)
	case "json":
		return bench.WriteJSON(w, t)
	}
	return bench.WriteText(w, t)
}

func saveReport(name string, r bench.Report) error {
	return writeOutput(name, func(w io.Writer) error { return bench.WriteJSON(w, r) })
}

// writeOutput writes a file, whose end is an error of its own.
func writeOutput(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

// readReports reads files that --save has written.
func readReports(names []string) (all []bench.Report, err error) {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open report: %w", err)
		}
		r, err := bench.ReadReport(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		all = append(all, r)
	}
	return all, nil
}
