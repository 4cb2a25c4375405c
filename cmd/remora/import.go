// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/remora-lb/remora/lb/katran"
)

func newImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make a configuration file of another balancer's",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newImportKatranCommand())
	return cmd
}

// katranImport is the verb's flags.
type katranImport struct {
	output, iface, flows string
	strict               bool
}

func newImportKatranCommand() *cobra.Command {
	var f katranImport
	cmd := &cobra.Command{
		Use:   "katran DUMP",
		Short: "Make a configuration file of a dump of Katran's configuration",
		Long: `Make a configuration file of a dump of Katran's configuration, in JSON as docs/katran-migration.md has it.
DUMP is a file, or - for standard input. A dump that is not of that form is refused.

What remora does not have, or has otherwise, is said on standard error, and in comments at the head of the
file. Each VIP gets a service of its own. Equal dumps make equal files.

Exit status: 0 the file is written, 1 it is not: the dump is refused, or something of it would be lost and
--strict was given.`,
		Example: `  remora import katran -o remora.yaml --interface eth0 dump.json

  # With every flow remembered, as Katran does, and only if all is carried over:
  remora import katran --flows katran --strict -o remora.yaml dump.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "", "file to write, which is replaced; standard output without it")
	flags.StringVar(&f.iface, "interface", "", "network interface of the file, in place of the dump's")
	flags.StringVar(&f.flows, "flows", "transitions", "transitions: flows are remembered while a ring changes; katran: all are")
	flags.BoolVar(&f.strict, "strict", false, "write nothing if something of the dump is not carried over")
	return cmd
}

func (f *katranImport) run(cmd *cobra.Command, path string) error {
	if f.flows != "transitions" && f.flows != "katran" {
		return fmt.Errorf("--flows %q: expected transitions or katran", f.flows)
	}
	dump, err := readKatranDump(cmd.InOrStdin(), path)
	if err != nil {
		return err
	}
	text, notes, err := dump.Convert(katran.Choices{Interface: f.iface, KatranFlows: f.flows == "katran"})
	if err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "remora: %s\n", n)
	}
	if f.strict && len(notes) > 0 {
		return fmt.Errorf("%s not carried over: nothing is written", plural(len(notes), "thing"))
	}
	if f.output == "" {
		_, err = cmd.OutOrStdout().Write(text)
	} else {
		err = os.WriteFile(f.output, text, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write configuration: %v", err)
	}
	return nil
}

func readKatranDump(stdin io.Reader, path string) (*katran.Dump, error) {
	if path == "-" {
		return katran.Read(stdin)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read dump: %v", err)
	}
	defer file.Close()
	dump, err := katran.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %v", path, err)
	}
	return dump, nil
}
