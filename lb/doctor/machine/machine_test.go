// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/decap"
	"github.com/remora-lb/remora/lb/doctor"
	"github.com/remora-lb/remora/test/require"
)

func open(t *testing.T) *doctor.Machine {
	t.Helper()
	m, done, err := Open()
	require.NoError(t, err)
	t.Cleanup(done)
	return m
}

// enterNamespace gives the test's thread a network namespace with lb0, peer0, and a way to others.
func enterNamespace(t *testing.T) {
	t.Helper()
	require.Root(t)
	runtime.LockOSThread() // and never unlocked: the namespace goes with the thread
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lb0", MTU: 1600}, PeerName: "peer0"}))
	for _, name := range []string{"lo", "lb0", "peer0"} {
		require.NoError(t, netlink.LinkSetUp(device(t, name)))
	}
	address, err := netlink.ParseAddr("10.10.1.2/24")
	require.NoError(t, err)
	require.NoError(t, netlink.AddrAdd(device(t, "lb0"), address))
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	require.NoError(t, err)
	require.NoError(t, netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.IPv4(10, 10, 1, 1), MTU: 1480, AdvMSS: 1400}))
	require.NoError(t, netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 66, 0, 0), Mask: net.CIDRMask(16, 32)}, Type: unix.RTN_UNREACHABLE}))
	require.NoError(t, netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: device(t, "lb0").Attrs().Index, IP: net.IPv4(10, 10, 1, 1), State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	}))
}

func device(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	require.NoError(t, err)
	return l
}

func TestNetwork(t *testing.T) {
	enterNamespace(t)
	n := open(t).Network
	links, err := n.Links()
	require.NoError(t, err)
	i := slices.IndexFunc(links, func(l doctor.Link) bool { return l.Name == "lb0" })
	if i < 0 || links[i].Type != "veth" || links[i].MTU != 1600 || !links[i].Up || !links[i].Ethernet || links[i].Program != 0 {
		t.Errorf("links %+v", links)
	}
	addresses, err := n.Addresses()
	require.NoError(t, err)
	want := doctor.Address{Link: "lb0", Prefix: netip.MustParsePrefix("10.10.1.2/24"), Scope: "global"}
	if !slices.Contains(addresses, want) {
		t.Errorf("addresses %+v lack %+v", addresses, want)
	}
	ports, err := n.GUEPorts()
	if err != nil && !errors.Is(err, errors.ErrUnsupported) || len(ports) > 0 {
		t.Errorf("GUE ports %v, error %v", ports, err)
	}
	neighbour, err := n.Neighbour(links[i].Index, netip.MustParseAddr("10.10.1.1"))
	if want := (doctor.Neighbour{State: "permanent", MAC: "02:00:00:00:00:01"}); err != nil || neighbour != want {
		t.Errorf("neighbour %+v, error %v", neighbour, err)
	}
	neighbour, err = n.Neighbour(links[i].Index, netip.MustParseAddr("10.10.1.9"))
	if err != nil || neighbour != (doctor.Neighbour{}) {
		t.Errorf("neighbour that is not there: %+v, error %v", neighbour, err)
	}
}

func TestRoutes(t *testing.T) {
	enterNamespace(t)
	n := open(t).Network
	for _, tc := range []struct {
		to, problem string
		gateway     netip.Addr
		mtu, advMSS int
	}{
		{to: "198.51.100.1", gateway: netip.MustParseAddr("10.10.1.1"), mtu: 1480, advMSS: 1400},
		{to: "10.10.1.7"},
		{to: "10.66.1.1", problem: "no route leads to 10.66.1.1"},
		{to: "10.10.1.2", problem: "is an address of this host"},
		{to: "2001:db8::1", problem: "no route leads to 2001:db8::1"},
	} {
		t.Run(tc.to, func(t *testing.T) {
			r, err := n.Route(netip.MustParseAddr(tc.to))
			require.NoError(t, err)
			if tc.problem != "" {
				if !strings.Contains(r.Problem, tc.problem) || len(r.Hops) > 0 {
					t.Errorf("route %+v, want the problem %q", r, tc.problem)
				}
				return
			}
			want := []doctor.Hop{{Link: "lb0", Gateway: tc.gateway}}
			if !slices.Equal(r.Hops, want) || r.MTU != tc.mtu || r.AdvMSS != tc.advMSS || r.Problem != "" {
				t.Errorf("route %+v, want hops %+v, MTU %d, MSS %d", r, want, tc.mtu, tc.advMSS)
			}
		})
	}
	four, err := n.DefaultRoutes(false)
	if err != nil || len(four) != 1 || four[0].AdvMSS != 1400 {
		t.Errorf("default routes %+v, error %v", four, err)
	}
	six, err := n.DefaultRoutes(true)
	if err != nil || len(six) != 0 {
		t.Errorf("default routes of IPv6 %+v, error %v", six, err)
	}
}

func TestDriver(t *testing.T) {
	enterNamespace(t)
	d := open(t).Driver
	name, err := d.Name("lb0")
	if err != nil || name != "veth" {
		t.Errorf("driver %q, error %v", name, err)
	}
	features, err := d.Features("lb0")
	if _, there := features["rx-gro"]; err != nil || !there {
		t.Errorf("features %v, error %v", features, err)
	}
	now, most, err := d.Queues("lb0")
	if err != nil || now < 1 || most < now {
		t.Errorf("%d queues of %d, error %v", now, most, err)
	}
	if _, _, err = d.Ring("lb0"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("receive ring of veth: error %v", err)
	}
	if _, err = d.Name("eth9"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("driver of no interface: error %v", err)
	}
}

// TestDecapsulator reads what a program of remora decap accepts, as it is attached.
func TestDecapsulator(t *testing.T) {
	enterNamespace(t)
	tunnel, vip := netip.MustParseAddr("10.10.1.2"), netip.MustParseAddr("2001:db8::a")
	d, err := decap.New(decap.Config{Interface: "lb0", TunnelAddrs: []netip.Addr{tunnel}, VIPs: []netip.Addr{vip}, Mode: attach.Generic})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	_, err = d.Attach()
	require.NoError(t, err)
	m := open(t)
	links, err := m.Network.Links()
	require.NoError(t, err)
	i := slices.IndexFunc(links, func(l doctor.Link) bool { return l.Name == "lb0" })
	if links[i].ProgramName != "remora_decap" || !links[i].Generic {
		t.Fatalf("link %+v", links[i])
	}
	got, err := m.BPF.Decapsulator(links[i].Program)
	require.NoError(t, err)
	if !slices.Equal(got.Addresses, []netip.Addr{tunnel}) || !slices.Equal(got.VIPs, []netip.Addr{vip}) {
		t.Errorf("it accepts %+v", got)
	}
	if err := m.BPF.Usable(); err != nil {
		t.Errorf("BPF: %v", err)
	}
	if _, err := m.BPF.Pinned("/sys/fs/bpf/remora/nobody/progs/native"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not pinned: error %v", err)
	}
}

func TestSystem(t *testing.T) {
	m := open(t)
	release, err := m.System.Release()
	if err != nil || release == "" || m.System.CPUs() < 1 {
		t.Errorf("release %q, %d CPUs, error %v", release, m.System.CPUs(), err)
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o640))
	owner, err := m.System.Owner(file)
	if err != nil || int(owner.UID) != os.Getuid() || owner.Mode != 0o640 {
		t.Errorf("owner %+v, error %v", owner, err)
	}
	fsys, err := m.System.FileSystem(file)
	if err != nil || fsys.BPF || fsys.ReadOnly || fsys.FreeBytes == 0 {
		t.Errorf("file system %+v, error %v", fsys, err)
	}
	if _, err := m.System.FileSystem(file + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file system of nothing: error %v", err)
	}
	if _, err := m.System.ClockSynchronised(); err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("clock: error %v", err)
	}
}

func TestConnect(t *testing.T) {
	m := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	to := l.Addr().(*net.TCPAddr).AddrPort()
	from := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	require.NoError(t, m.Connect(t.Context(), from, to))
	require.NoError(t, l.Close())
	if err := m.Connect(t.Context(), netip.AddrPort{}, to); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: error %v", err)
	}
}
