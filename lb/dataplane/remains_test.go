// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// TestRemains: what another version left is listed and removed too, wherever in the folder it is.
func TestRemains(t *testing.T) {
	l := newLab(t)
	_, err := OpenRemains(l.bpffs, "test")
	wantIs(t, err, ErrNoInstance)
	d := l.attached("lb0", attach.Auto)
	_, err = OpenRemains(l.bpffs, "test")
	wantIs(t, err, ErrLocked)
	require.NoError(t, d.Close())

	l.addPair("lb1", "peer1", 1500)
	stranger := l.stranger()
	of, err := link.AttachXDP(link.XDPOptions{Program: stranger, Interface: l.device("lb1").Attrs().Index})
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(l.pin("layout_of_before"), 0o700))
	require.NoError(t, of.Pin(l.pin("layout_of_before", "lb1")))
	defer of.Close()

	r, err := OpenRemains(l.bpffs, "test")
	require.NoError(t, err)
	defer r.Close()
	_, err = Open(l.config("lb0", attach.Auto))
	wantIs(t, err, ErrLocked)
	generation := fmt.Sprintf("generations/%d/", d.gen.number)
	l.wantListed(r, map[string]string{
		"links/lb0": ": lb0 runs program id ", "layout_of_before/lb1": ": lb1 runs program id ", "maps": "points to " + generation,
		generation + "maps/reals": "Array map of ", generation + "progs/native": "program id ",
	})
	l.wantForwarding("lb0")
	require.NoError(t, r.Remove())
	l.wantBare("lb0")
	l.wantBare("lb1")
	l.wantNothingPinned()
	list, err := r.List()
	if err != nil || len(list) != 0 {
		t.Errorf("afterwards there are %v, error %v", list, err)
	}
}

// wantListed fails unless the list has everything that is there, and says these things of some.
func (l *lab) wantListed(r *Remains, says map[string]string) {
	l.Helper()
	list, err := r.List()
	require.NoError(l.T, err)
	files := 0
	for _, name := range l.tree() {
		if !strings.HasSuffix(name, "/") {
			files++
		}
	}
	if len(list) != files {
		l.Errorf("%d pins are listed, and there are %d", len(list), files)
	}
	for _, p := range list {
		name, _ := filepath.Rel(l.pin(), p.Path)
		if !strings.Contains(p.What, says[name]) {
			l.Errorf("%s is %q, want %q", name, p.What, says[name])
		}
		delete(says, name)
	}
	if len(says) != 0 {
		l.Errorf("not listed: %v", says)
	}
}
