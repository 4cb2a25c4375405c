// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

func TestAttach(t *testing.T) {
	for _, tt := range []struct {
		mode, want attach.Mode
		reason     string
	}{
		{attach.Native, attach.Native, "as configured"},
		{attach.Generic, attach.Generic, "as configured"},
		{attach.Auto, attach.Native, "the driver runs the program"},
	} {
		t.Run(tt.mode.String(), func(t *testing.T) {
			l := newLab(t)
			d := l.open("lb0", tt.mode)
			fill(t, d, web())
			l.wantBare("lb0")
			require.NoError(t, d.Attach())
			mode, err := attach.CurrentMode("lb0")
			require.NoError(t, err)
			s := l.snapshot()
			if mode != tt.want || s.Mode != tt.want || s.ModeReason != tt.reason || s.Interface != "lb0" || s.Attached.IsZero() {
				t.Errorf("mode %v, snapshot %+v", mode, s)
			}
			l.wantForwarding("lb0")

			id, program, tree := linkID(t, d), programID(d.gen.prog), l.tree()
			require.NoError(t, d.Attach())
			if linkID(t, d) != id || programID(d.gen.prog) != program {
				t.Error("attaching twice changed the attachment")
			}
			wantEqual(t, "pins", l.tree(), tree)

			require.NoError(t, d.Close())
			l.wantForwarding("lb0")
		})
	}
}

func TestAttachWithoutInstance(t *testing.T) {
	require.ErrorSays(t, testOpen(t).Attach(), "no instance name")
}

func TestOpenAdopts(t *testing.T) {
	l := newLab(t)
	first := l.open("lb0", attach.Auto)
	fill(t, first, workedServices(lb.GUE)...)
	require.NoError(t, first.Attach())
	frame := tcpFrame(client, webTarget)
	wantReal(t, first.Program(), frame, webReal)
	send(t, first.Program(), tcpFrame(client, "203.0.113.10:444"))
	require.NoError(t, first.DeleteReals([]lb.RealID{9})) // none of the flows here is its
	contentsBefore, rings := contents(t, first)
	id, program := linkID(t, first), programID(first.gen.prog)
	require.NoError(t, first.Close())

	second := l.open("lb0", attach.Auto)
	if linkID(t, second) != id {
		t.Error("the attachment was cycled")
	}
	if programID(second.gen.prog) == program || programID(second.gen.prog) != programID(l.program("lb0")) {
		t.Error("the interface does not run the new program")
	}
	contentsAfter, ringsAfter := contents(t, second)
	wantEqual(t, "contents", contentsAfter, contentsBefore)
	if !slices.Equal(ringsAfter, rings) {
		t.Error("rings changed")
	}
	reals, entries := second.Adopted()
	if len(reals) != 8 || len(entries) != 3 {
		t.Errorf("adopted %d reals and %d VIPs, want 8 and 3", len(reals), len(entries))
	}
	want := webCounts
	want.Reasons = map[lb.Reason]uint64{lb.ReasonForwarded: 1, lb.ReasonNotVIP: 1}
	wantCounts(t, second, want)
	for _, s := range workedServices(lb.GUE)[:2] {
		require.NoError(t, second.SetReals(s.reals(t)))
		written, err := second.SetRing(s.ring, s.slots(t))
		require.NoError(t, err)
		if written != 0 {
			t.Errorf("ring %d: %d slots written though it was adopted", s.ring, written)
		}
	}
	require.NoError(t, second.Attach())
	if linkID(t, second) != id {
		t.Error("the attachment was cycled by Attach")
	}
	l.wantForwarding("lb0")
}

func TestModeChange(t *testing.T) {
	l := newLab(t)
	first := l.attached("lb0", attach.Generic)
	id := linkID(t, first)
	require.NoError(t, first.Close())

	second := l.open("lb0", attach.Native)
	l.wantForwarding("lb0") // still generic
	require.NoError(t, second.Attach())
	if s := l.snapshot(); s.Mode != attach.Native || linkID(t, second) == id {
		t.Errorf("mode %v, link %d after %d", s.Mode, linkID(t, second), id)
	}
	l.wantForwarding("lb0")
	require.NoError(t, second.Close())

	// Whoever asks for the best mode keeps what is there.
	third := l.open("lb0", attach.Auto)
	id = linkID(t, third)
	require.NoError(t, third.Attach())
	if linkID(t, third) != id {
		t.Error("the attachment was cycled")
	}
}

// A mode that the interface refuses must not cost it the program that it has.
func TestModeChangeRefused(t *testing.T) {
	l := newLab(t)
	require.NoError(t, netlink.LinkSetMTU(l.device("peer0"), 9000))
	first := l.attached("lb0", attach.Generic)
	require.NoError(t, first.Close())
	second := l.open("lb0", attach.Native)
	require.ErrorSays(t, second.Attach(), "native", "MTU")
	l.wantForwarding("lb0")
	require.NoError(t, second.Close())
	l.wantForwarding("lb0")
	if s := l.snapshot(); s.Mode != attach.Generic {
		t.Errorf("mode %v, want generic", s.Mode)
	}
}

func TestInterfaceMadeAnew(t *testing.T) {
	l := newLab(t)
	first := l.attached("lb0", attach.Auto)
	wantReal(t, first.Program(), tcpFrame(client, webTarget), webReal)
	require.NoError(t, first.Close())
	old := l.device("lb0").Attrs().Index
	require.NoError(t, netlink.LinkDel(l.device("lb0")))
	l.addPair("x0", "y0", 1500) // takes the index, where the kernel would give it again
	l.addPair("lb0", "peer0", 1500)
	if l.device("lb0").Attrs().Index == old {
		t.Fatal("the new interface has the old one's index")
	}

	second := l.open("lb0", attach.Auto)
	l.wantBare("lb0")
	if _, err := os.Lstat(l.pin("links", "lb0")); !os.IsNotExist(err) {
		t.Errorf("the pin of the gone interface's link is still there: %v", err)
	}
	require.NoError(t, second.Attach())
	l.wantForwarding("lb0")
	s := countsOf(l.snapshot())
	if s.Reals[3].Packets != 2 {
		t.Errorf("real 3 has %+v, want the packet before and the one after", s.Reals[3])
	}
}

func TestOtherInterface(t *testing.T) {
	l := newLab(t)
	l.addPair("lb1", "peer1", 1500)
	require.NoError(t, l.attached("lb0", attach.Auto).Close())

	second := l.open("lb1", attach.Auto)
	l.wantForwarding("lb0")
	l.wantBare("lb1")
	require.NoError(t, second.Attach())
	l.wantForwarding("lb1")
	l.wantBare("lb0")
	wantEqual(t, "pins", l.tree(), pinTree("lb1", second.gen.number))
	if s := l.snapshot(); s.Interface != "lb1" {
		t.Errorf("interface %q", s.Interface)
	}
}

// The BPF file system forbids dots in names, and interfaces of VLANs have them.
func TestInterfaceWithDots(t *testing.T) {
	l := newLab(t)
	l.addPair("lb0.100", "peer0.100", 1500)
	require.NoError(t, l.attached("lb0.100", attach.Auto).Close())
	l.wantForwarding("lb0.100")
	second := l.open("lb0.100", attach.Auto)
	if second.link == nil {
		t.Fatal("the attachment was not adopted")
	}
	require.NoError(t, second.Attach())
	l.wantForwarding("lb0.100")
}

func TestDetach(t *testing.T) {
	l := newLab(t)
	d := l.attached("lb0", attach.Auto)
	require.NoError(t, d.Detach())
	l.wantBare("lb0")
	require.NoError(t, d.Close())
	l.wantNothingPinned()
	require.NoError(t, testOpen(t).Detach()) // nothing was attached
}

func TestDetachBeforeAttach(t *testing.T) {
	l := newLab(t)
	require.NoError(t, l.attached("lb0", attach.Auto).Close())
	l.addPair("lb1", "peer1", 1500)
	d := l.open("lb1", attach.Auto)
	require.NoError(t, d.Detach())
	require.NoError(t, d.Close())
	l.wantBare("lb0")
	l.wantNothingPinned()
}

func TestOpenWithoutAttachLeavesNothing(t *testing.T) {
	l := newLab(t)
	d := l.open("lb0", attach.Auto)
	fill(t, d, web())
	require.NoError(t, d.Close())
	l.wantNothingPinned()
}
