// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/decap"
	"github.com/remora-lb/remora/lb/probetunnel"
	"github.com/remora-lb/remora/test/require"
)

// TestLoad: all programs load and attach in native mode, on the two kinds of interfaces that this
// machine has. The log says what each program costs the verifier of this kernel.
func TestLoad(t *testing.T) {
	inMachine(t)
	t.Logf("kernel %s", kernelRelease(t))
	for _, iface := range []string{addVeth(t), virtioCard(t, 0)} {
		t.Run(iface, func(t *testing.T) {
			t.Run("native", func(t *testing.T) { loadNative(t, iface) })
			t.Run("decap", func(t *testing.T) { loadDecap(t, iface) })
			t.Run("probe", func(t *testing.T) { loadProbe(t, iface) })
		})
	}
}

func loadNative(t *testing.T, iface string) {
	t.Helper()
	cfg := dataplane.Config{Instance: "load-" + iface, Interface: iface, Mode: attach.Native}
	d, err := dataplane.Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(d.Detach(), d.Close())) })
	require.NoError(t, d.Attach())
	wantNative(t, iface)
	logPrograms(t)
}

func loadDecap(t *testing.T, iface string) {
	t.Helper()
	d, err := decap.New(decap.Config{Interface: iface, Mode: attach.Native, TunnelAddrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	_, err = d.Attach()
	require.NoError(t, err)
	wantNative(t, iface)
	logPrograms(t)
}

func loadProbe(t *testing.T, iface string) {
	t.Helper()
	p, err := probetunnel.New(probetunnel.Config{Interface: iface})
	if !kernelFrom(t, 6, 6) {
		require.ErrorSays(t, err, "the kernel has no TCX, which came with Linux 6.6")
		return
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	logPrograms(t)
}

func wantNative(t *testing.T, iface string) {
	t.Helper()
	mode, err := attach.CurrentMode(iface)
	require.NoError(t, err)
	if mode != attach.Native {
		t.Errorf("%s runs its program in %s mode", iface, mode)
	}
}

// logPrograms logs all programs that the kernel has: nobody else's are in this machine.
func logPrograms(t *testing.T) {
	t.Helper()
	count := 0
	for id, err := ebpf.ProgramGetNextID(0); ; id, err = ebpf.ProgramGetNextID(id) {
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		require.NoError(t, err)
		prog, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // it went just now
		}
		require.NoError(t, err)
		logProgram(t, prog)
		count++
		require.NoError(t, prog.Close())
	}
	if count == 0 {
		t.Error("the kernel has no program")
	}
}

func logProgram(t *testing.T, prog *ebpf.Program) {
	t.Helper()
	info, err := prog.Info()
	require.NoError(t, err)
	walked, ok := info.VerifiedInstructions()
	if !ok || walked == 0 {
		t.Errorf("program %s: the kernel does not say what its verifier walked", info.Name)
	}
	t.Logf("program %-15s %-10s the verifier walked %6d instructions", info.Name, info.Type, walked)
}

// addVeth makes a virtual cable, of whose ends the first is returned.
func addVeth(t *testing.T) string {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "veth1"}
	require.NoError(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { require.NoError(t, netlink.LinkDel(veth)) })
	require.NoError(t, netlink.LinkSetUp(veth))
	return veth.Name
}

// virtioCard finds a network card of the machine by the address that it was given. One that is in the
// namespace of a test that has ended comes back a little later.
func virtioCard(t *testing.T, n byte) (name string) {
	t.Helper()
	want := net.HardwareAddr{2, 0, 0, 0, 1, n + 1}.String()
	waitFor(t, "a network card with address "+want, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Attrs().HardwareAddr.String() == want {
				name = l.Attrs().Name
				return netlink.LinkSetUp(l)
			}
		}
		return errors.New("there is none")
	})
	return name
}
