// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"net"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// pktgenArgs choose the kernel's generator, and a load that emulation bears. What it measures here
// means nothing; that packets come back, and in order, is what the command's success says.
func pktgenArgs(more ...string) []string {
	return append([]string{"bench", "pktgen", "--generator", "pktgen", "--sizes", "64", "--rate", "1000", "--duration", "2s"}, more...)
}

// TestForwardPktgen: packets of the kernel's generator go through the program and come back, in a lab
// of veth pairs, and by way of two network cards.
func TestForwardPktgen(t *testing.T) {
	inMachine(t)
	t.Run("veth", func(t *testing.T) {
		n := newBed(t).Client // has nothing to do with the lab, but is a namespace to be in
		out, err := n.Run(within(t), remoraBinary, pktgenArgs("--across=false", "--fifo=false")...)
		t.Log(out)
		require.NoError(t, err)
	})
	t.Run("virtio-net", func(t *testing.T) {
		vip := netip.AddrPortFrom(vip4(), 53)
		b := newBed(t, vip4())
		router, balancer := virtioCard(t, 0), virtioCard(t, 1)
		mac := cardAddress(t, balancer)
		b.join(t, router, balancer, vip4())
		b.start(t, balancer, service{"ipip", b.server.IPv4, []string{vip.String() + "/udp"}})
		out, err := b.Router.Run(within(t), remoraBinary, pktgenArgs("--tx-if", router, "--dst-mac", mac, "--dst", vip.String()+"/udp")...)
		t.Log(out)
		require.NoError(t, err)
		if b.forwarded(t, vip.String()+"/udp") == 0 {
			t.Error("the balancer forwarded nothing")
		}
	})
}

func cardAddress(t *testing.T, name string) string {
	t.Helper()
	card, err := net.InterfaceByName(name)
	require.NoError(t, err)
	return card.HardwareAddr.String()
}
