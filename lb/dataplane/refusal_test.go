// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// wantRefused opens and attaches, wants an error that says the parts, and nothing left behind.
func (l *lab) wantRefused(iface string, mode attach.Mode, parts ...string) {
	l.Helper()
	d := l.open(iface, mode)
	fill(l.T, d, web())
	require.ErrorSays(l.T, d.Attach(), parts...)
	if d.link != nil {
		l.Error("it holds an attachment all the same")
	}
	require.NoError(l.T, d.Close())
	l.wantNothingPinned()
}

func TestInterfaceOccupied(t *testing.T) {
	for _, mode := range []attach.Mode{attach.Native, attach.Generic, attach.Auto} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t)
			other, err := link.AttachXDP(link.XDPOptions{Program: l.stranger(), Interface: l.device("lb0").Attrs().Index})
			require.NoError(t, err)
			defer other.Close()
			before := programID(l.program("lb0"))
			l.wantRefused("lb0", mode, `"lb0"`, `XDP program "stranger"`, "take it off first")
			if now := l.program("lb0"); now == nil || programID(now) != before {
				t.Error("the other program was taken off")
			}
		})
	}
}

func TestNoSuchInterface(t *testing.T) {
	l := newLab(t)
	l.wantRefused("lb9", attach.Auto, `"lb9"`, "lb0", "peer0", "lo")
}

func TestLargeMTU(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"lb0", "peer0"} {
		require.NoError(t, netlink.LinkSetMTU(l.device(name), 9000))
	}
	l.wantRefused("lb0", attach.Native, `"lb0" in native mode`, "MTU is 9000", "generic mode")

	d := l.attached("lb0", attach.Auto)
	s := l.snapshot()
	if s.Mode != attach.Generic {
		t.Errorf("mode %v, want generic", s.Mode)
	}
	require.ErrorSays(t, errors.New(s.ModeReason), "not native", "MTU is 9000")
	l.wantForwarding("lb0")
	require.NoError(t, d.Close())
}

// Where nothing can be pinned, nothing is attached; and where a program is, it stays.
func TestPinsRefused(t *testing.T) {
	l := newLab(t)
	d := l.open("lb0", attach.Auto)
	fill(t, d, web())
	l.readOnly(true)
	require.ErrorSays(t, d.Attach(), "pin folder", "read-only")
	l.wantBare("lb0")
	l.readOnly(false)
	require.NoError(t, os.Symlink("nowhere", l.pin("links"))) // a file in the way of the link's pin
	require.ErrorSays(t, d.Attach(), "pin folder", l.pin("links"))
	l.wantBare("lb0")
	require.NoError(t, os.Remove(l.pin("links")))
	require.NoError(t, d.Attach())
	l.wantForwarding("lb0")
	require.NoError(t, d.Close())

	program, tree := programID(l.program("lb0")), l.tree()
	l.readOnly(true)
	_, err := Open(l.config("lb0", attach.Auto))
	require.ErrorSays(t, err, "pin folder", "read-only")
	if programID(l.program("lb0")) != program {
		t.Error("the interface has another program")
	}
	l.wantForwarding("lb0")
	l.readOnly(false)
	wantEqual(t, "pins", l.tree(), tree)

	d = l.open("lb0", attach.Auto)
	program, tree = programID(d.gen.prog), l.tree()
	l.readOnly(true)
	require.ErrorSays(t, d.Reserve(capacityOf(1, 0, 1000, 70000)), "pin folder", "read-only")
	if programID(d.gen.prog) != program || programID(l.program("lb0")) != program {
		t.Error("the program was replaced in spite of it")
	}
	l.wantForwarding("lb0")
	l.readOnly(false)
	wantEqual(t, "pins", l.tree(), tree)
	require.NoError(t, d.Reserve(capacityOf(1, 0, 1000, 70000)))
	l.wantForwarding("lb0")
	wantEqual(t, "pins", l.tree(), pinTree("lb0", d.gen.number))
}

// What follows the attachment fails: another try must complete it.
func TestAttachIsCompletedByAnother(t *testing.T) {
	l := newLab(t)
	d := l.open("lb0", attach.Auto)
	fill(t, d, web())
	require.NoError(t, os.MkdirAll(l.pin("maps", "in_the_way"), 0o700))
	require.ErrorSays(t, d.Attach(), "point to generation ")
	l.wantForwarding("lb0")
	require.NoError(t, os.RemoveAll(l.pin("maps")))
	require.NoError(t, d.Attach())
	wantEqual(t, "pins", l.tree(), pinTree("lb0", d.gen.number))
	if s := l.snapshot(); s.Interface != "lb0" || s.Mode != attach.Native {
		t.Errorf("snapshot %+v", s)
	}
	l.wantForwarding("lb0")
}
