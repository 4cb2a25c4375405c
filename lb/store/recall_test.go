// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// TestRecall: what is not there is no trouble, and what cannot be used is told once and left out.
func TestRecall(t *testing.T) {
	s, err := Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	require.NoError(t, s.Save("there", 1, "text"))
	for _, tc := range []struct {
		name, saved string
		version     uint32
		want        string
		told        bool
	}{
		{"nothing is saved", "none", 1, "", false},
		{"it is there", "there", 1, "text", false},
		{"of another version", "there", 2, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			var got string
			ok := s.Recall(tc.saved, tc.version, &got, slog.New(slog.NewTextHandler(&log, nil)))
			if ok != (tc.want != "") || got != tc.want || (log.Len() > 0) != tc.told {
				t.Errorf("%t, %q, and the log says %q; want %q, told %t", ok, got, &log, tc.want, tc.told)
			}
		})
	}
}
