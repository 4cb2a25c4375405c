// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

// enterNamespace gives the test's thread a network namespace with the interfaces lb0 and peer0,
// which are a pair. It goes with the thread, and that with the test.
func enterNamespace(t *testing.T, mtu, peerMTU int) {
	t.Helper()
	require.Root(t)
	runtime.LockOSThread() // and never unlocked
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lb0", MTU: mtu}, PeerName: "peer0"}))
	peer, err := netlink.LinkByName("peer0")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetMTU(peer, peerMTU))
}

// program is one that passes everything.
func program(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	const pass = 2 // XDP_PASS, linux/bpf.h
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         name,
		Type:         ebpf.XDP,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
		License:      "Dual BSD/GPL",
	})
	require.NoError(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

// running is the name of the program on an interface; empty if there is none.
func running(t *testing.T, ifname string) string {
	t.Helper()
	l, err := netlink.LinkByName(ifname)
	require.NoError(t, err)
	xdp := l.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return ""
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(xdp.ProgId))
	require.NoError(t, err)
	defer p.Close()
	info, err := p.Info()
	require.NoError(t, err)
	return info.Name
}
