// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

// wire is a server in a network namespace of its own, and the other end of its link in a second
// one. The test's goroutine is in the server's namespace until the test ends; other goroutines,
// subtests included, are not.
type wire struct {
	server, peer netlink.Link
	peerSocket   int
}

// newWire makes both namespaces with a veth pair that is up: "srv0" at the server.
func newWire(t *testing.T, mtu int) *wire {
	t.Helper()
	require.Root(t)
	runtime.LockOSThread()
	home := must(netns.Get())(t)
	peerNS := must(netns.New())(t)
	serverNS := must(netns.New())(t)
	t.Cleanup(func() {
		// A thread that cannot go home stays locked, and ends with the goroutine.
		if err := netns.Set(home); err != nil {
			t.Errorf("go back to the first namespace: %v", err)
			return
		}
		runtime.UnlockOSThread()
		for _, h := range []netns.NsHandle{home, peerNS, serverNS} {
			h.Close()
		}
	})
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "srv0", mtu
	require.NoError(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0", PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(peerNS)}))

	w := &wire{}
	require.NoError(t, netns.Set(peerNS))
	w.peer = quietLink(t, "peer0")
	w.peerSocket = must(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0))(t)
	t.Cleanup(func() { unix.Close(w.peerSocket) })
	require.NoError(t, netns.Set(serverNS))
	w.server = must(netlink.LinkByName("srv0"))(t)
	require.NoError(t, netlink.LinkSetUp(w.server))
	require.NoError(t, netns.Set(peerNS))
	awaitUp(t, "peer0")
	require.NoError(t, netns.Set(serverNS))
	awaitUp(t, "srv0")
	return w
}

// awaitUp waits until the kernel has seen that both ends of a link are up, which it does at a time
// of its own; until then it drops what is sent.
func awaitUp(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(receiveTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for must(netlink.LinkByName(name))(t).Attrs().OperState != netlink.OperUp {
		if time.Now().After(deadline) {
			t.Fatalf("link %s does not come up", name)
		}
		<-tick.C
	}
}

// quietLink sets a link up that sends nothing of its own, so that counters are exact.
func quietLink(t *testing.T, name string) netlink.Link {
	t.Helper()
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0))
	l := must(netlink.LinkByName(name))(t)
	require.NoError(t, netlink.LinkSetUp(l))
	return l
}

// addVIPs puts both VIPs on the server's loopback interface.
func (w *wire) addVIPs(t *testing.T) {
	t.Helper()
	lo := must(netlink.LinkByName("lo"))(t)
	require.NoError(t, netlink.LinkSetUp(lo))
	for _, a := range []netip.Addr{vip4, vip6} {
		addAddr(t, lo, netip.PrefixFrom(a, a.BitLen()))
	}
}

// addAddr adds an address without waiting for duplicates to be detected.
func addAddr(t *testing.T, l netlink.Link, p netip.Prefix) {
	t.Helper()
	ipNet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	require.NoError(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet, Flags: unix.IFA_F_NODAD}))
}

// send puts a frame on the wire, addressed to the server's interface.
func (w *wire) send(t *testing.T, frame []byte) {
	t.Helper()
	frame = with(frame, 0, w.server.Attrs().HardwareAddr...)
	to := &unix.SockaddrLinklayer{Ifindex: w.peer.Attrs().Index, Halen: 6}
	if err := unix.Sendto(w.peerSocket, frame, 0, to); err != nil {
		t.Fatalf("send frame from the peer: %v", err)
	}
}

// listen opens a datagram socket in the namespace of the calling goroutine.
func listen(t *testing.T, addr netip.Addr) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, vipPort)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// must unwraps a value, or ends the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(fmt.Errorf("set up the test: %w", err))
		}
		return v
	}
}
