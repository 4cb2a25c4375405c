// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// maxWalked is what docs/performance.md promises.
const maxWalked = 20000

// TestVerifierWalk keeps the program far from the verifier's limit of a million instructions, which
// kernels reach at different sizes of program.
func TestVerifierWalk(t *testing.T) {
	require.Root(t)
	d, err := Open(Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	info, err := d.Program().Info()
	if err != nil {
		t.Fatal(err)
	}
	walked, ok := info.VerifiedInstructions()
	if !ok {
		t.Skip("this kernel does not tell how many instructions the verifier walked")
	}
	if walked == 0 || walked >= maxWalked {
		t.Errorf("the verifier walked %d instructions, want 1 to %d", walked, maxWalked)
	}
}
