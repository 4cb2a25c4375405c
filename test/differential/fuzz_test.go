// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"testing"

	"github.com/remora-lb/remora/test/frames"
)

// FuzzProgram compares the outcome of any frame, with the tables of seed 1. testdata has short frames
// of the generator: for each family one of every reason, one of every way to be forwarded, for packets
// and for ICMP errors, errors that just are and just are not about a flow that can be told, and one frame
// whose outer UDP length carries beyond 32 bits where it is added to the protocol number (length-carry).
func FuzzProgram(f *testing.F) {
	tables := frames.Tables(1)
	c, err := newComparison(tables.Process, load(f, tables))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < frames.HeaderLen || len(frame) > frames.MaxLen {
			t.Skip("the kernel's test run does not take the length")
		}
		found, err := c.alone(frame)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			report(t, tables, frame, found)
		}
	})
}
