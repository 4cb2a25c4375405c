// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// FuzzLoad: a file of any content is a value that can be saved and loaded again, or is set aside,
// or is of another version and stays.
func FuzzLoad(f *testing.F) {
	whole := sealed(f, `{"Number":1,"Text":"one"}`)
	for _, cut := range []int{0, 1, len(whole) / 2, len(whole) - 1, len(whole)} {
		f.Add(whole[:cut])
	}
	f.Add(sealed(f, `null`))
	f.Add(sealed(f, `{"Number":"x"}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`{"format":1,"payload":{}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state.json"), text, 0o600))
		s := open(t, dir)
		got := value{7, "before"}
		_, err := s.Load("state", 1, &got)
		switch {
		case err == nil:
			save(t, s, got)
			wantLoad(t, dir, got)
		case errors.Is(err, ErrUnreadable):
			wantError(t, s, ErrNone)
		case errors.Is(err, ErrVersion):
			wantFiles(t, dir, "state.json")
		default:
			t.Fatal(err)
		}
		if err != nil && got != (value{7, "before"}) {
			t.Errorf("the value became %+v", got)
		}
	})
}
