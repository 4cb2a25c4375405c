// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// control asks the daemon, and returns what it answers.
func (b *bed) control(t *testing.T, command ...string) string {
	t.Helper()
	out, err := b.tryControl(t, command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryControl asks the daemon; the error is that of the command.
func (b *bed) tryControl(t *testing.T, command ...string) (string, error) {
	t.Helper()
	command = b.remora.Control(command...)
	return b.balancer.Run(within(t), command[0], command[1:]...)
}

// exited tells whether a command ended with a status above 0.
func exited(err error, status int) bool {
	return err != nil && strings.Contains(err.Error(), fmt.Sprintf(": exit status %d: ", status))
}
