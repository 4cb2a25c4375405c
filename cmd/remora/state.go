// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
)

func newStateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Carry the history of rings and the remembered flows to another balancer",
		Long: `Carry the history of rings and the remembered flows to another balancer.

Around changes, a balancer remembers which backend a flow has. Another balancer that gets these
flows, because the one that had them ends, sends them to the same backends if it has imported the
state. The document is JSON with a version; it names VIPs and backends, and no client's address.`,
		Args: cobra.NoArgs,
		// Without it, a verb that is misspelt would be no error.
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newStateExportCommand(), newStateImportCommand())
	return cmd
}

func newStateExportCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write the state to a file, or to standard output",
		Long: `Write the history of rings and the remembered flows to a file, or to standard output without FILE
or if it is -. The file is written as a whole or not at all; one that is there is replaced.` + clientHelp + `

Exit status: 0 written, 1 not written.`,
		Example: `  remora state export /var/tmp/state.json

  # Straight into another balancer:
  remora state export | ssh balancer2 remora state import`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				export := func(w io.Writer) error { return c.ExportState(ctx, w) }
				if file := fileArg(args); file != "-" {
					return writeFile(file, export)
				}
				return export(cmd.OutOrStdout())
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newStateImportCommand() *cobra.Command {
	var f clientFlags
	cmd := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Take over the state of another balancer",
		Long: `Take over what another balancer exported, from a file, or from standard input without FILE or if it
is -. A document that is not whole, or of a version that is not known, changes nothing. What is here
already stays: the import adds to it. Rings that are not here, or are of another size or hash, are
skipped with their flows, and so are flows of backends that are not here. A history that would take
longer than a second or two to compute is taken over in part: its last rings are skipped.` + clientHelp + `

Exit status: 0 taken over, 1 nothing is changed.`,
		Example: `  remora state import /var/tmp/state.json
  ssh balancer1 remora state export | remora state import -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd.Context(), func(ctx context.Context, c *control.Client) error {
				res, err := importState(ctx, c, fileArg(args), cmd.InOrStdin())
				if err != nil {
					return err
				}
				if f.json() {
					return printJSON(cmd.OutOrStdout(), res)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d rings (%d skipped), %d flows (%d skipped)\n",
					res.Rings, res.RingsSkipped, res.Flows, res.FlowsSkipped)
				return err
			})
		},
	}
	f.add(cmd)
	f.addOutput(cmd)
	return cmd
}

// fileArg is "-" if there is none.
func fileArg(args []string) string {
	if len(args) == 0 {
		return "-"
	}
	return args[0]
}

func importState(ctx context.Context, c *control.Client, file string, in io.Reader) (*remorav1.ImportStateResponse, error) {
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return c.ImportState(ctx, in)
}

// writeFile makes what write writes the content of a file, for its owner alone. The old content is
// there until all of the new is on disk.
func writeFile(file string, write func(io.Writer) error) (err error) {
	info, err := os.Lstat(file)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("write %s: it is there and is no regular file; - is standard output", file)
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %v", file, err)
	}
	defer func() {
		if err != nil {
			temp.Close()
			os.Remove(temp.Name())
		}
	}()
	if err := write(temp); err != nil {
		return err
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write %s: %v", file, err)
	}
	return os.Rename(temp.Name(), file)
}
