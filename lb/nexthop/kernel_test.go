// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
)

// The tests of this file run on real interfaces, in namespaces of their own.

func hop(mac [6]byte) lb.NextHop { return lb.NextHop{MAC: mac, MTU: 1500} }

func TestKernelOnLink(t *testing.T) {
	w := newWire(t)
	o := w.watch(t, Config{}, nil, "10.0.0.1", "2001:db8::1")
	o.await(t, "both families are resolved", func(hops map[netip.Addr]lb.NextHop) bool {
		return hops[netip.MustParseAddr("10.0.0.1")] == hop(mac1) && hops[netip.MustParseAddr("2001:db8::1")] == hop(mac1)
	})
	if s := o.Stats(); s.Unresolved != 0 || s.Wanted != 2 || s.Probes < 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestKernelByGateway(t *testing.T) {
	w := newWire(t)
	r := w.routed(t, "10.9.0.0/16", "eth0=10.0.0.1")
	r.MTU = 1400
	check(t, w.RouteAdd(r))
	check(t, w.RouteAdd(w.routed(t, "2001:db8:9::/48", "eth0=2001:db8::1")))
	o := w.watch(t, Config{}, nil, "10.9.1.1", "2001:db8:9::1")
	o.await(t, "both families are resolved", func(hops map[netip.Addr]lb.NextHop) bool {
		return hops[netip.MustParseAddr("10.9.1.1")] == lb.NextHop{MAC: mac1, MTU: 1400} &&
			hops[netip.MustParseAddr("2001:db8:9::1")] == hop(mac1)
	})
	check(t, w.LinkSetMTU(w.device(t, "eth0"), 1300))
	o.awaitHop(t, "10.9.1.1", lb.NextHop{MAC: mac1, MTU: 1300})
}

// TestKernelRoutes compares what becomes of each kind of route that the kernel knows.
func TestKernelRoutes(t *testing.T) {
	w := newWire(t)
	check(t, w.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth3", TxQLen: -1}, PeerName: "p3"}))
	w.setUp(t, "p3")
	w.setUp(t, "eth3", "10.3.0.100/24")
	for _, r := range []struct {
		prefix string
		kind   int
	}{
		{"10.10.0.0/16", unix.RTN_BLACKHOLE}, {"2001:db8:10::/48", unix.RTN_BLACKHOLE},
		{"10.11.0.0/16", unix.RTN_UNREACHABLE}, {"2001:db8:11::/48", unix.RTN_UNREACHABLE},
		{"10.12.0.0/16", unix.RTN_PROHIBIT}, {"2001:db8:12::/48", unix.RTN_PROHIBIT},
		{"10.13.0.0/16", unix.RTN_THROW},
	} {
		blocked := w.routed(t, r.prefix)
		blocked.Type = r.kind
		check(t, w.RouteAdd(blocked))
	}
	check(t, w.RouteAdd(w.routed(t, "10.14.0.0/16", "eth0=fe80::1")))
	check(t, w.RouteAdd(w.routed(t, "10.15.0.0/16", "eth3=10.3.0.1", "eth0=10.0.0.1")))
	check(t, w.RouteAdd(w.routed(t, "10.16.0.0/16", "eth0=fe80::1", "eth3=10.3.0.1")))
	check(t, w.RouteAdd(w.routed(t, "2001:db8:15::/48", "eth0=2001:db8::1", "eth0=2001:db8::2")))
	w.setNeighbour(t, "eth0", "fe80::1", mac2, netlink.NUD_PERMANENT)

	tests := []struct {
		dst  string
		want lb.NextHop
	}{
		{"172.31.1.1", lb.NextHop{Problem: "no route to 172.31.1.1"}},
		{"2001:db8:ff::1", lb.NextHop{Problem: "no route to 2001:db8:ff::1"}},
		{"10.10.0.1", lb.NextHop{Problem: "route to 10.10.0.1 is a blackhole"}},
		{"2001:db8:10::1", lb.NextHop{Problem: "route to 2001:db8:10::1 is a blackhole"}},
		{"10.11.0.1", lb.NextHop{Problem: "route to 10.11.0.1 says unreachable"}},
		{"2001:db8:11::1", lb.NextHop{Problem: "route to 2001:db8:11::1 says unreachable"}},
		{"10.12.0.1", lb.NextHop{Problem: "route to 10.12.0.1 says prohibited"}},
		{"2001:db8:12::1", lb.NextHop{Problem: "route to 2001:db8:12::1 says prohibited"}},
		{"10.13.0.1", lb.NextHop{Problem: "no route to 10.13.0.1"}},
		{"10.0.0.100", lb.NextHop{Problem: "10.0.0.100 is an address of this host"}},
		{"2001:db8::100", lb.NextHop{Problem: "2001:db8::100 is an address of this host"}},
		{"10.0.0.255", lb.NextHop{Problem: "10.0.0.255 is a broadcast address"}},
		{"10.3.0.5", lb.NextHop{Problem: "route to 10.3.0.5 leaves by eth3, not eth0"}},
		{"10.14.0.1", hop(mac2)},      // an IPv4 route by an IPv6 gateway
		{"10.15.0.1", hop(mac1)},      // the one of two ways that is ours
		{"10.16.0.1", hop(mac2)},      // the same, by an IPv6 gateway
		{"2001:db8:15::1", hop(mac1)}, // the one of two gateways that answers
	}
	var wanted []string
	for _, tt := range tests {
		wanted = append(wanted, tt.dst)
	}
	o := w.watch(t, Config{}, nil, wanted...)
	for _, tt := range tests {
		t.Run(tt.dst, func(t *testing.T) {
			o.Want(addrs(tt.dst))
			o.awaitHop(t, tt.dst, tt.want)
		})
	}
}

// nexthopMessage is struct nhmsg of linux/nexthop.h: family, scope, protocol, reserved, flags.
type nexthopMessage [8]byte

func (m nexthopMessage) Len() int          { return len(m) }
func (m nexthopMessage) Serialize() []byte { return m[:] }

func TestKernelNexthopObject(t *testing.T) {
	for _, compat := range []string{"1", "0"} {
		t.Run("compat mode "+compat, func(t *testing.T) {
			w := newWire(t)
			w.sysctl(t, "ipv4/nexthop_compat_mode", compat)
			const id = 7
			const rtaNHID = 30 // RTA_NH_ID of linux/rtnetlink.h
			w.inside(t, func() error {
				add := nl.NewNetlinkRequest(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_ACK)
				add.AddData(nexthopMessage{unix.AF_INET, 0, unix.RTPROT_STATIC})
				add.AddData(nl.NewRtAttr(unix.NHA_ID, nl.Uint32Attr(id)))
				add.AddData(nl.NewRtAttr(unix.NHA_OIF, nl.Uint32Attr(uint32(w.device(t, "eth0").Attrs().Index))))
				add.AddData(nl.NewRtAttr(unix.NHA_GATEWAY, []byte{10, 0, 0, 2}))
				if _, err := add.Execute(unix.NETLINK_ROUTE, 0); err != nil {
					return fmt.Errorf("add nexthop object: %v", err)
				}
				route := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK)
				m := nl.NewRtMsg()
				m.Family, m.Dst_len = unix.AF_INET, 16
				route.AddData(m)
				route.AddData(nl.NewRtAttr(unix.RTA_DST, []byte{10, 9, 0, 0}))
				route.AddData(nl.NewRtAttr(rtaNHID, nl.Uint32Attr(id)))
				if _, err := route.Execute(unix.NETLINK_ROUTE, 0); err != nil {
					return fmt.Errorf("add route: %v", err)
				}
				return nil
			})
			w.setNeighbour(t, "eth0", "10.0.0.2", mac2, netlink.NUD_PERMANENT)
			o := w.watch(t, Config{}, nil, "10.9.0.1")
			o.awaitHop(t, "10.9.0.1", hop(mac2))
		})
	}
}

func TestKernelGatewayMACChanges(t *testing.T) {
	w := newWire(t)
	check(t, w.RouteAdd(w.routed(t, "10.9.0.0/16", "eth0=10.0.0.1")))
	check(t, w.RouteAdd(w.routed(t, "2001:db8:9::/48", "eth0=2001:db8::1")))
	o := w.watch(t, Config{}, nil, "10.9.1.1", "2001:db8:9::1")
	both := func(mac [6]byte) func(map[netip.Addr]lb.NextHop) bool {
		return func(hops map[netip.Addr]lb.NextHop) bool {
			return hops[netip.MustParseAddr("10.9.1.1")] == hop(mac) && hops[netip.MustParseAddr("2001:db8:9::1")] == hop(mac)
		}
	}
	o.await(t, "first MAC", both(mac1))
	// The peer announces its new address by itself (arp_notify, ndisc_notify).
	check(t, w.peer.LinkSetHardwareAddr(w.peer.device(t, "p0"), net.HardwareAddr(mac2[:])))
	o.await(t, "second MAC", both(mac2))
}

// TestKernelStaleIsConfirmed: an entry that nobody uses in the kernel is made reachable again.
func TestKernelStaleIsConfirmed(t *testing.T) {
	w := newWire(t)
	for _, a := range []string{"10.0.0.1", "2001:db8::1"} {
		w.setNeighbour(t, "eth0", a, mac1, netlink.NUD_STALE)
	}
	o := w.watch(t, Config{}, nil, "10.0.0.1", "2001:db8::1")
	for _, a := range addrs("10.0.0.1", "2001:db8::1") {
		eventually(t, a.String()+" is reachable", func() bool {
			entries, err := o.kernel.neighbours(w.device(t, "eth0").Attrs().Index)
			check(t, err)
			return entries[a] == neighbour{mac1, netlink.NUD_REACHABLE}
		})
	}
	eventually(t, "no neighbour is counted as stale", func() bool { return o.Stats().Stale == 0 })
}

// TestKernelStaleAndWrong: a stale MAC address that nobody has any more is not used for good.
func TestKernelStaleAndWrong(t *testing.T) {
	w := newWire(t)
	for _, a := range []string{"10.0.0.1", "2001:db8::1"} {
		t.Run(a, func(t *testing.T) {
			w.setNeighbour(t, "eth0", a, mac2, netlink.NUD_STALE)
			o := w.watch(t, Config{}, nil, a)
			o.awaitHop(t, a, hop(mac2))
			o.awaitHop(t, a, hop(mac1))
		})
	}
}

func TestKernelRouteChanges(t *testing.T) {
	w := newWire(t)
	w.setNeighbour(t, "eth0", "10.0.0.2", mac2, netlink.NUD_PERMANENT)
	check(t, w.RouteAdd(w.routed(t, "10.9.0.0/16", "eth0=10.0.0.1")))
	o := w.watch(t, Config{}, nil, "10.9.1.1")
	o.awaitHop(t, "10.9.1.1", hop(mac1))
	check(t, w.RouteReplace(w.routed(t, "10.9.0.0/16", "eth0=10.0.0.2")))
	o.awaitHop(t, "10.9.1.1", hop(mac2))
	check(t, w.RouteDel(w.routed(t, "10.9.0.0/16")))
	o.awaitHop(t, "10.9.1.1", lb.NextHop{Problem: "no route to 10.9.1.1"})
	w.addAddress(t, "lo", "10.9.1.1/32")
	o.awaitHop(t, "10.9.1.1", lb.NextHop{Problem: "10.9.1.1 is an address of this host"})
}

func TestKernelNeighbourFails(t *testing.T) {
	w := newWire(t)
	o := w.watch(t, Config{}, nil, "10.0.0.7", "2001:db8::7")
	o.await(t, "both have failed", func(hops map[netip.Addr]lb.NextHop) bool {
		return hops[netip.MustParseAddr("10.0.0.7")].Problem == "no neighbour entry for 10.0.0.7 on eth0 (failed)" &&
			hops[netip.MustParseAddr("2001:db8::7")].Problem == "no neighbour entry for 2001:db8::7 on eth0 (failed)"
	})
	if s := o.Stats(); s.Unresolved != 2 {
		t.Errorf("stats %+v, want 2 unresolved", s)
	}
	w.peer.addAddress(t, "p0", "10.0.0.7/24")
	o.awaitHop(t, "10.0.0.7", hop(mac1)) // found by a further probe
}

func TestKernelInterfaceDownAndUp(t *testing.T) {
	w := newWire(t)
	o := w.watch(t, Config{}, nil, "10.0.0.1")
	o.awaitHop(t, "10.0.0.1", hop(mac1))
	check(t, w.peer.LinkSetDown(w.peer.device(t, "p0")))
	o.awaitHop(t, "10.0.0.1", lb.NextHop{Problem: "interface eth0 has no carrier"})
	check(t, w.LinkSetDown(w.device(t, "eth0")))
	o.awaitHop(t, "10.0.0.1", lb.NextHop{Problem: "interface eth0 is down"})
	check(t, w.LinkSetUp(w.device(t, "eth0")))
	check(t, w.peer.LinkSetUp(w.peer.device(t, "p0")))
	o.awaitHop(t, "10.0.0.1", hop(mac1))
}

func TestKernelInterfaceMadeAnew(t *testing.T) {
	w := newWire(t)
	o := w.watch(t, Config{}, nil, "10.0.0.1")
	o.awaitHop(t, "10.0.0.1", hop(mac1))
	before := w.device(t, "eth0").Attrs().Index
	check(t, w.LinkDel(w.device(t, "eth0")))
	o.awaitHop(t, "10.0.0.1", lb.NextHop{Problem: "interface eth0 does not exist"})
	w.plug(t)
	if after := w.device(t, "eth0").Attrs().Index; after == before {
		t.Fatalf("the new interface has index %d like the old one", after)
	}
	o.awaitHop(t, "10.0.0.1", hop(mac1))
}

func TestKernelFixedFollowsMTU(t *testing.T) {
	w := newWire(t)
	o := w.watch(t, Config{Fixed: &lb.NextHop{MAC: mac2}}, nil, "192.0.2.1")
	o.awaitHop(t, "192.0.2.1", hop(mac2))
	check(t, w.LinkSetMTU(w.device(t, "eth0"), 1280))
	o.awaitHop(t, "192.0.2.1", lb.NextHop{MAC: mac2, MTU: 1280})
}

// TestKernelResolveInOwnNamespace also covers a session whose thread needs no change of namespace.
func TestKernelResolveInOwnNamespace(t *testing.T) {
	w := newWire(t)
	var got map[netip.Addr]lb.NextHop
	w.inside(t, func() error {
		watcher, err := New(Config{Interface: "eth0"})
		if err != nil {
			return err
		}
		defer watcher.Close()
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		got = watcher.Resolve(ctx, addrs("10.0.0.1", "2001:db8::1"))
		return ctx.Err()
	})
	for _, a := range addrs("10.0.0.1", "2001:db8::1") {
		if got[a] != hop(mac1) {
			t.Errorf("%s: got %+v, want %+v", a, got[a], hop(mac1))
		}
	}
}

// burstAddrs are addresses on the link of eth0, besides its own.
func burstAddrs(count int) []string {
	var list []string
	for i := range count {
		list = append(list, fmt.Sprintf("10.20.%d.%d", i>>8, i&0xff))
	}
	return list
}

func allHave(count int, mac [6]byte) func(map[netip.Addr]lb.NextHop) bool {
	return func(hops map[netip.Addr]lb.NextHop) bool {
		for _, h := range hops {
			if h != hop(mac) {
				return false
			}
		}
		return len(hops) == count
	}
}

func TestKernelBurst(t *testing.T) {
	const count = 2000
	w := newWire(t)
	check(t, w.RouteAdd(w.routed(t, "10.20.0.0/16", "eth0")))
	wanted := burstAddrs(count)
	for _, a := range wanted {
		w.setNeighbour(t, "eth0", a, mac1, netlink.NUD_PERMANENT)
	}
	o := w.watch(t, Config{}, nil, wanted...)
	o.await(t, "all are found", allHave(count, mac1))
	for _, a := range wanted {
		w.setNeighbour(t, "eth0", a, mac2, netlink.NUD_PERMANENT)
	}
	o.await(t, "all have changed", allHave(count, mac2))
	if s := o.Stats(); s.Resyncs != 0 {
		t.Errorf("stats %+v: notifications were lost in spite of the buffer", s)
	}
}

// smallKernel is the kernel with a subscription that overruns: its buffer is small, and it is
// not read while the gate is held.
type smallKernel struct {
	*netlinkKernel
	gate chan struct{} // capacity 1; full while somebody holds it
}

func (k smallKernel) subscribe() (subscription, error) {
	s, err := k.netlinkKernel.subscribe()
	if err != nil {
		return nil, err
	}
	err = s.(netlinkSubscription).socket.SetReceiveBufferSize(1, false) // the kernel raises it to its least
	return smallSubscription{s, k.gate}, err
}

type smallSubscription struct {
	subscription
	gate chan struct{}
}

func (s smallSubscription) receive() ([]event, error) {
	s.gate <- struct{}{}
	defer func() { <-s.gate }()
	return s.subscription.receive()
}

func TestKernelOverrun(t *testing.T) {
	const count = 2000
	w := newWire(t)
	check(t, w.RouteAdd(w.routed(t, "10.20.0.0/16", "eth0")))
	wanted := burstAddrs(count)
	for _, a := range wanted {
		w.setNeighbour(t, "eth0", a, mac1, netlink.NUD_PERMANENT)
	}
	gate := make(chan struct{}, 1)
	o := w.watch(t, Config{}, func(w *Watcher) {
		w.kernel = smallKernel{w.kernel.(*netlinkKernel), gate}
	}, wanted...)
	o.await(t, "all are found", allHave(count, mac1))
	// A receive that waits holds the gate: one notification ends it, and then this test has it.
	taken := make(chan struct{})
	go func() {
		gate <- struct{}{}
		close(taken)
	}()
	for closed := false; !closed; {
		w.setNeighbour(t, "eth0", "10.20.255.1", mac1, netlink.NUD_PERMANENT)
		w.setNeighbour(t, "eth0", "10.20.255.1", mac2, netlink.NUD_PERMANENT)
		select {
		case <-taken:
			closed = true
		default:
		}
	}
	for _, a := range wanted {
		w.setNeighbour(t, "eth0", a, mac2, netlink.NUD_PERMANENT)
	}
	<-gate
	o.await(t, "all have changed", allHave(count, mac2))
	if s := o.Stats(); s.Resyncs == 0 {
		t.Errorf("stats %+v: no resync, though nothing was read during the burst", s)
	}
	// The subscription goes on.
	w.setNeighbour(t, "eth0", wanted[0], mac1, netlink.NUD_PERMANENT)
	o.awaitHop(t, wanted[0], hop(mac1))
}

// TestKernelLeavesNothing: neither goroutines nor file descriptors outlive a watcher.
func TestKernelLeavesNothing(t *testing.T) {
	w := newWire(t)
	files := openFiles(t)
	for range 3 {
		o := w.watch(t, Config{}, nil, "10.0.0.1")
		o.awaitHop(t, "10.0.0.1", hop(mac1))
		check(t, o.stop())
		o.Close()
		o.Close() // does nothing
	}
	eventually(t, "no goroutine of the package is left", func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !strings.Contains(string(stacks), "nexthop.(*inbox)") && !strings.Contains(string(stacks), "nexthop.(*session)")
	})
	eventually(t, fmt.Sprintf("%d files are open as before", files), func() bool { return openFiles(t) <= files })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}
