// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// Whoever reads while generations come and go reads one of them.
func TestReadSnapshotWhileReplaced(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	// The way of other threads to what only this one has mounted.
	bpffs := fmt.Sprintf("/proc/self/task/%d/root%s", unix.Gettid(), l.bpffs)
	var readers errgroup.Group
	stop := make(chan struct{})
	for range 4 { // so many that each is often made to wait between two pins
		readers.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if _, err := ReadSnapshot(bpffs, "test"); err != nil {
					return err
				}
			}
		})
	}
	var err error
	for i := 0; i < 30 && err == nil; i++ {
		err = d.replace(d.gen.sizes())
	}
	close(stop)
	require.NoError(t, readers.Wait())
	require.NoError(t, err)
}
