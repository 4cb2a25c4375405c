// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

func vip4() netip.Addr { return netip.MustParseAddr("192.0.2.10") }
func vip6() netip.Addr { return netip.MustParseAddr("2001:db8:ff::10") }

func vipText(addr netip.Addr) string { return netip.AddrPortFrom(addr, echoPort).String() + "/tcp" }

// TestForward: TCP goes from the client through the balancer's program, in native mode, to a server
// that runs remora decap.
func TestForward(t *testing.T) {
	for _, tt := range []struct {
		name  string
		iface func(t *testing.T, b *bed) string
	}{
		{"veth", func(*testing.T, *bed) string { return rig.BalancerInterface }},
		{"virtio-net", func(t *testing.T, b *bed) string {
			router, balancer := virtioCard(t, 0), virtioCard(t, 1)
			b.join(t, router, balancer, vip4(), vip6())
			return balancer
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t, vip4(), vip6())
			iface := tt.iface(t, b)
			_, err := b.remora.StartDecap(within(t), b.server, []netip.Addr{b.server.IPv4}, []netip.Addr{vip4(), vip6()})
			require.NoError(t, err)
			b.start(t, iface, service{"ipip", b.server.IPv4, []string{vipText(vip4()), vipText(vip6())}})
			for _, vip := range []netip.Addr{vip4(), vip6()} {
				b.transfer(t, vip)
				b.wantForwarded(t, vip)
			}
		})
	}
}

// wantForwarded demands that the packets of a transfer went through the program, in native mode.
func (b *bed) wantForwarded(t *testing.T, vip netip.Addr) {
	t.Helper()
	s, err := b.status(t)
	require.NoError(t, err)
	if s.Mode != "native" {
		t.Errorf("the program runs in %s mode", s.Mode)
	}
	const atLeast = transferBytes / labMTU
	if n := b.forwarded(t, vipText(vip)); n < atLeast {
		t.Errorf("%d packets to %s were forwarded, want at least %d", n, vip, atLeast)
	}
}

// TestForwardToKernel: servers that run nothing of ours, but open tunnels with the devices of their
// kernel, understand every form in which the program wraps packets.
func TestForwardToKernel(t *testing.T) {
	inMachine(t)
	type form struct {
		encapsulation string
		outer6        bool
		vip           netip.Addr
		device        string
	}
	var forms []form
	var vips []netip.Addr
	for i, encapsulation := range []string{"ipip", "gue"} {
		for j, outer6 := range []bool{false, true} {
			v4 := netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + 2*i + j)})
			v6 := netip.MustParseAddr(fmt.Sprintf("2001:db8:ff::%d", 20+2*i+j))
			vips = append(vips, v4, v6)
			for _, vip := range []netip.Addr{v4, v6} {
				forms = append(forms, form{encapsulation, outer6, vip, deviceFor(outer6, vip)})
			}
		}
	}
	b := newBed(t, vips...)
	openTunnels(t, b.server, openGUE)
	var services []service
	for _, f := range forms {
		backend := b.server.IPv4
		if f.outer6 {
			backend = b.server.IPv6
		}
		services = append(services, service{f.encapsulation, backend, []string{vipText(f.vip)}})
	}
	b.start(t, rig.BalancerInterface, services...)
	for i, f := range forms {
		t.Run(fmt.Sprintf("%s, %s to %s by %s", f.encapsulation, family(f.vip), family(services[i].backend), f.device), func(t *testing.T) {
			b.transferBy(t, f.vip, f.device)
		})
	}
}

// TestForwardToFOU: what the program calls GUE is, but for its port, also what the kernel calls FOU.
func TestForwardToFOU(t *testing.T) {
	for _, tt := range []struct {
		vip      netip.Addr
		protocol uint8
		device   string
	}{
		{vip4(), unix.IPPROTO_IPIP, "in4"},
		{vip6(), unix.IPPROTO_IPV6, sitDevice},
	} {
		t.Run(family(tt.vip), func(t *testing.T) {
			b := newBed(t, tt.vip)
			openTunnels(t, b.server, openFOU(tt.protocol))
			b.start(t, rig.BalancerInterface, service{"gue", b.server.IPv4, []string{vipText(tt.vip)}})
			b.transferBy(t, tt.vip, tt.device)
		})
	}
}

// transferBy demands that a tunnel device of the server opened the packets of a transfer.
func (b *bed) transferBy(t *testing.T, vip netip.Addr, device string) {
	t.Helper()
	before, err := b.server.Counters(device)
	require.NoError(t, err)
	b.transfer(t, vip)
	b.wantForwarded(t, vip)
	after, err := b.server.Counters(device)
	require.NoError(t, err)
	if n := after.RxPackets - before.RxPackets; n < transferBytes/labMTU {
		t.Errorf("%s opened %d packets only", device, n)
	}
}

func family(a netip.Addr) string {
	if a.Is6() {
		return "IPv6"
	}
	return "IPv4"
}
