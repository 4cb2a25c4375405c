// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// TestOpenAttached: the program that is in use and runs is opened, with and without the daemon; what is
// not there, or is another's, is told apart from what cannot be found out.
func TestOpenAttached(t *testing.T) {
	l := newLab(t)
	d := l.open("lb0", attach.Generic)
	fill(t, d, web())
	open := func(iface string) error {
		p, err := OpenAttached(d.cfg.BPFFS, d.cfg.Instance, iface)
		if err == nil {
			require.NoError(t, p.Close())
		}
		return err
	}
	wantIs(t, open("lb0"), ErrNotAttached)
	require.NoError(t, d.Attach())
	require.NoError(t, open("lb0"))
	wantIs(t, open("lo"), ErrNotAttached)
	require.NoError(t, d.Close())
	require.NoError(t, open("lb0"))
	_, err := OpenAttached(d.cfg.BPFFS, "another", "lb0")
	wantIs(t, err, ErrNotAttached)
}
