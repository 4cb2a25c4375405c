// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// lab is a network namespace with a pair of interfaces, lb0 and peer0, and a BPF file system that
// nobody else sees. Both belong to the test's thread and go with it.
type lab struct {
	*testing.T
	bpffs string
	log   bytes.Buffer
}

func newLab(t *testing.T) *lab {
	t.Helper()
	require.Root(t)
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	// Otherwise the kernel sends packets of its own, which the program counts.
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0))
	l := &lab{T: t, bpffs: t.TempDir()}
	require.NoError(t, unix.Mount("bpf", l.bpffs, "bpf", 0, "mode=0700"))
	t.Cleanup(func() {
		if err := unix.Unmount(l.bpffs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	l.addPair("lb0", "peer0", 1500)
	return l
}

func (l *lab) addPair(name, peer string, mtu int) {
	l.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: peer}
	require.NoError(l.T, netlink.LinkAdd(veth))
	for _, n := range []string{name, peer} {
		require.NoError(l.T, netlink.LinkSetUp(l.device(n)))
	}
}

func (l *lab) device(name string) netlink.Link {
	l.Helper()
	dev, err := netlink.LinkByName(name)
	require.NoError(l.T, err)
	return dev
}

func (l *lab) config(iface string, mode attach.Mode) Config {
	log := slog.New(slog.NewTextHandler(&l.log, nil))
	return Config{Instance: "test", BPFFS: l.bpffs, Interface: iface, Mode: mode, Flows: testFlows, Log: log}
}

func (l *lab) open(iface string, mode attach.Mode) *Dataplane {
	l.Helper()
	d, err := Open(l.config(iface, mode))
	require.NoError(l.T, err)
	l.Cleanup(func() { d.Close() })
	return d
}

// attached opens a data plane, lets it serve web, and attaches it.
func (l *lab) attached(iface string, mode attach.Mode) *Dataplane {
	l.Helper()
	d := l.open(iface, mode)
	fill(l.T, d, web())
	require.NoError(l.T, d.Attach())
	return d
}

// program is what the interface runs; nil if nothing.
func (l *lab) program(iface string) *ebpf.Program {
	l.Helper()
	xdp := l.device(iface).Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return nil
	}
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId))
	require.NoError(l.T, err)
	l.Cleanup(func() { prog.Close() })
	return prog
}

// wantForwarding fails unless the interface's program forwards to web.
func (l *lab) wantForwarding(iface string) {
	l.Helper()
	prog := l.program(iface)
	if prog == nil {
		l.Fatalf("%s runs no program", iface)
	}
	wantReal(l.T, prog, tcpFrame(client, webTarget), webReal)
}

// wantBare fails if the interface runs a program.
func (l *lab) wantBare(iface string) {
	l.Helper()
	if l.program(iface) != nil {
		l.Errorf("%s runs a program", iface)
	}
}

// readOnly makes the BPF file system refuse changes, or accept them again.
func (l *lab) readOnly(yes bool) {
	l.Helper()
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND)
	if yes {
		flags |= unix.MS_RDONLY
	}
	require.NoError(l.T, unix.Mount("", l.bpffs, "", flags, ""))
}

// tree lists what is below the BPF file system, links with their target.
func (l *lab) tree() []string {
	l.Helper()
	var names []string
	require.NoError(l.T, filepath.WalkDir(l.bpffs, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(l.bpffs, path)
		if err != nil || name == "." || filepath.Ext(name) == ".debug" { // the kernel's own
			return err
		}
		if target, err := os.Readlink(path); err == nil {
			name += " -> " + target
		} else if d.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return nil
	}))
	slices.Sort(names)
	return names
}

// wantNothingPinned fails if anything is left below the BPF file system.
func (l *lab) wantNothingPinned() {
	l.Helper()
	wantEqual(l.T, "what is pinned", l.tree(), nil)
}

func (l *lab) pin(parts ...string) string {
	return filepath.Join(append([]string{l.bpffs, "remora", "test"}, parts...)...)
}

func (l *lab) snapshot() *Snapshot {
	l.Helper()
	s, err := ReadSnapshot(l.bpffs, "test")
	require.NoError(l.T, err)
	return s
}

// linkID is the id of the attachment; a detachment in between would change it.
func linkID(t *testing.T, d *Dataplane) uint32 {
	t.Helper()
	if d.link == nil {
		t.Fatal("not attached")
	}
	info, err := d.link.link.Info()
	require.NoError(t, err)
	return uint32(info.ID)
}

// stranger is a program that is not ours.
func (l *lab) stranger() *ebpf.Program {
	l.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "stranger",
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, int32(lb.Pass)), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	require.NoError(l.T, err)
	l.Cleanup(func() { prog.Close() })
	return prog
}

var webCounts = counts{Reasons: map[lb.Reason]uint64{lb.ReasonForwarded: 1}, Reals: map[lb.RealID]Counter{3: {1, 45}}}
