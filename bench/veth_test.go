// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// namespacesLeft returns those of this process's lab that exist.
func namespacesLeft(t *testing.T) (left []string) {
	t.Helper()
	generator, tested := namespaceNames()
	for _, name := range []string{generator, tested} {
		if _, err := os.Stat(namespacePath(name)); err == nil {
			left = append(left, name)
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return left
}

func TestVethMeasures(t *testing.T) {
	require.Root(t)
	bad := expecting(t, "tx", Expectation{lb.TX, 20})
	r, err := Veth(t.Context(), quick(), []Target{floor(t, "encap_const"), bad}, []Case{caseNamed(t, "tcp4-ack")}, []int{1, 16})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 6 {
		t.Errorf("%d rows, want three targets by two numbers of flows", len(r.Rows))
	}
	for _, row := range r.Rows {
		if row.Target == "tx" {
			if !strings.Contains(row.Error, "tx +0, expected tx +20") || row.PathP10 != 0 {
				t.Errorf("a wrong program gives %+v", row)
			}
			continue
		}
		if row.Error != "" || row.PathP10 <= 0 || row.Ratio <= 0 {
			t.Errorf("no figures: %+v", row)
		}
	}
	if left := namespacesLeft(t); left != nil {
		t.Errorf("namespaces left: %v", left)
	}
}

func TestVethRemovesNamespaces(t *testing.T) {
	require.Root(t)
	ctx, cancel := context.WithCancel(t.Context())
	for _, tc := range []struct {
		name string
		load func(Target) (*ebpf.Program, io.Closer, error)
		want string
	}{
		{"failure", func(Target) (*ebpf.Program, io.Closer, error) { return nil, nil, errors.New("no such program") }, "no such program"},
		{"cancellation", func(target Target) (*ebpf.Program, io.Closer, error) { cancel(); return target.Load() }, context.Canceled.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target, inside := floor(t, "tx"), 0
			target.Load = func() (*ebpf.Program, io.Closer, error) {
				inside = len(namespacesLeft(t))
				return tc.load(floor(t, "tx"))
			}
			_, err := Veth(ctx, quick(), []Target{target}, []Case{caseNamed(t, "tcp4-ack")}, []int{1})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("it gives %v, want %q", err, tc.want)
			}
			if inside != 2 {
				t.Errorf("%d namespaces while measuring, want 2", inside)
			}
			if left := namespacesLeft(t); left != nil {
				t.Errorf("namespaces left: %v", left)
			}
		})
	}
}

// A name that is taken is left to its owner.
func TestVethLeavesForeignNamespace(t *testing.T) {
	require.Root(t)
	_, tested := namespaceNames()
	if err := onThread(func() error {
		ns, err := netns.NewNamed(tested)
		if err != nil {
			return err
		}
		return ns.Close()
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.DeleteNamed(tested); err != nil {
			t.Error(err)
		}
	})
	if _, err := openLab(); err == nil {
		t.Error("a lab was made on a foreign namespace")
	}
	if left := namespacesLeft(t); len(left) != 1 || left[0] != tested {
		t.Errorf("namespaces left: %v, want only the foreign one", left)
	}
}

func TestVethRefusesCasesWithoutWayBack(t *testing.T) {
	_, err := Veth(t.Context(), quick(), Floors(), []Case{caseNamed(t, "not-a-vip")}, []int{1})
	if err == nil || !strings.Contains(err.Error(), `case "not-a-vip" is not sent out again`) {
		t.Errorf("it gives %v", err)
	}
	_, err = Veth(t.Context(), quick(), []Target{{Name: "x", Options: true}}, []Case{caseNamed(t, "tcp4-id")}, []int{1})
	if err == nil || !strings.Contains(err.Error(), `case "tcp4-id" is for programs alone`) {
		t.Errorf("a case of options gives %v", err)
	}
}

// Half of the frames are the target's. If it drops them while they are expected back, that half is
// lost; if nothing is expected back, none is.
func TestVethCountsLostFrames(t *testing.T) {
	require.Root(t)
	l, err := openLab()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	c := caseNamed(t, "tcp4-ack")
	program, _ := loadTarget(t, floor(t, "drop"))
	coll, err := loadVethPrograms(c, 1, l.generator.index, program)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	attached, err := l.tested.attach(coll.Programs["alternate"])
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	for verdict, want := range map[lb.Verdict]uint64{lb.Drop: 0, lb.TX: chunksLen * vethPackets / 2} {
		var lost uint64
		err := onThread(func() (err error) {
			if err := netns.Set(l.generator.ns); err != nil {
				return err
			}
			settle(-1, true)
			_, lost, err = runPath(l, coll, c.Frame, verdict)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if lost != want {
			t.Errorf("%s expected: %d frames lost, want %d", verdict, lost, want)
		}
	}
}

// The constants of both languages agree.
func TestVethChunkLength(t *testing.T) {
	require.Root(t)
	spec, err := loadVeth()
	if err != nil {
		t.Fatal(err)
	}
	if err := keepProgram(spec, "generate"); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	frame := caseNamed(t, "tcp4-ack").Frame
	o := ebpf.RunOptions{Data: frame, Repeat: 3*vethPackets + 1, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 1}
	if _, err := coll.Programs["generate"].Run(&o); err != nil {
		t.Fatal(err) // interface 0 takes none of the frames
	}
	checkChunks(t, coll, 4)
}
