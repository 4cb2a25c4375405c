// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// noArguments refuses arguments of a verb that has neither those nor verbs of its own: cobra.NoArgs takes
// them for unknown commands.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no arguments, and there is %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
}
