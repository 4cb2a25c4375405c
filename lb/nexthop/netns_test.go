// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// deadline bounds every wait for something that the kernel does.
const deadline = 20 * time.Second

// namespace is a network namespace of a test.
type namespace struct {
	ns netns.NsHandle
	*netlink.Handle
}

// newNamespace makes a namespace that goes away with the test.
func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{ns: netns.None()}
	onOwnThread(t, func() (err error) {
		if n.ns, err = netns.New(); err != nil {
			return fmt.Errorf("make network namespace: %v", err)
		}
		n.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	t.Cleanup(func() {
		n.Handle.Close()
		n.ns.Close()
	})
	n.up(t, "lo")
	return n
}

// onOwnThread runs f on a thread that ends with it, so that f may change the thread's namespace.
func onOwnThread(t *testing.T, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		result <- f()
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// inside runs f on a thread inside the namespace.
func (n *namespace) inside(t *testing.T, f func() error) {
	t.Helper()
	onOwnThread(t, func() error {
		if err := netns.Set(n.ns); err != nil {
			return fmt.Errorf("enter network namespace: %v", err)
		}
		return f()
	})
}

// sysctl writes a setting, given as a path below /proc/sys/net.
func (n *namespace) sysctl(t *testing.T, path, value string) {
	t.Helper()
	n.inside(t, func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) })
}

// device reads an interface.
func (n *namespace) device(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := n.LinkByName(name)
	if err != nil {
		t.Fatalf("read interface %s: %v", name, err)
	}
	return l
}

func (n *namespace) up(t *testing.T, name string) {
	t.Helper()
	check(t, n.LinkSetUp(n.device(t, name)))
}

// setUp gives an interface quick timers and addresses, and sets it up.
func (n *namespace) setUp(t *testing.T, name string, prefixes ...string) {
	t.Helper()
	n.sysctl(t, "ipv6/conf/"+name+"/accept_dad", "0")
	for _, family := range []string{"ipv4", "ipv6"} {
		n.sysctl(t, family+"/neigh/"+name+"/retrans_time_ms", "50")
	}
	n.up(t, name)
	for _, p := range prefixes {
		n.addAddress(t, name, p)
	}
}

func (n *namespace) addAddress(t *testing.T, name, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	check(t, err)
	if a.IP.To4() == nil {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := n.AddrAdd(n.device(t, name), a); err != nil {
		t.Fatalf("add %s to %s: %v", prefix, name, err)
	}
}

// setNeighbour writes an entry of the neighbour table.
func (n *namespace) setNeighbour(t *testing.T, name, addr string, mac [6]byte, state int) {
	t.Helper()
	err := n.NeighSet(&netlink.Neigh{LinkIndex: n.device(t, name).Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: mac[:], State: state})
	if err != nil {
		t.Fatalf("set neighbour %s on %s: %v", addr, name, err)
	}
}

// routed is a route by gateways on interfaces, NAME or NAME=GATEWAY.
func (n *namespace) routed(t *testing.T, prefix string, ways ...string) *netlink.Route {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	check(t, err)
	r := &netlink.Route{Dst: dst}
	for _, way := range ways {
		name, gw, _ := strings.Cut(way, "=")
		hop := &netlink.NexthopInfo{LinkIndex: n.device(t, name).Attrs().Index}
		if ip := net.ParseIP(gw); ip != nil && (ip.To4() == nil) != (dst.IP.To4() == nil) {
			hop.Via = &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: ip}
		} else {
			hop.Gw = ip
		}
		r.MultiPath = append(r.MultiPath, hop)
	}
	if len(ways) == 1 {
		r.LinkIndex, r.Gw, r.Via = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw, r.MultiPath[0].Via
		r.MultiPath = nil
	}
	return r
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wire is the usual topology: the watched eth0 in one namespace, and its peer p0, whose addresses
// answer, in another. Both interfaces have fixed MAC addresses.
type wire struct {
	*namespace // the watcher's
	peer       *namespace
}

func newWire(t *testing.T) *wire {
	t.Helper()
	require.Root(t)
	w := &wire{newNamespace(t), newNamespace(t)}
	w.plug(t)
	return w
}

// plug makes the pair of interfaces.
func (w *wire) plug(t *testing.T) {
	t.Helper()
	check(t, w.LinkAdd(&netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: "eth0", MTU: 1500, TxQLen: -1, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xee}},
		PeerName:         "p0",
		PeerHardwareAddr: net.HardwareAddr(mac1[:]),
		PeerNamespace:    netlink.NsFd(w.peer.ns),
	}))
	w.peer.sysctl(t, "ipv4/conf/p0/arp_notify", "1")
	w.peer.sysctl(t, "ipv6/conf/p0/ndisc_notify", "1")
	w.peer.setUp(t, "p0", "10.0.0.1/24", "10.0.0.2/24", "2001:db8::1/64")
	w.setUp(t, "eth0", "10.0.0.100/24", "2001:db8::100/64")
}

// observer is a running watcher and what it handed over last.
type observer struct {
	*Watcher
	latest chan map[netip.Addr]lb.NextHop // capacity 1
	stop   func() error                   // ends Run
}

// watch starts a watcher of eth0; change may alter the watcher before.
func (w *wire) watch(t *testing.T, cfg Config, change func(*Watcher), wanted ...string) *observer {
	t.Helper()
	o := &observer{latest: make(chan map[netip.Addr]lb.NextHop, 1)}
	cfg.Interface = "eth0"
	cfg.RetryMin, cfg.RetryMax, cfg.StaleInterval = 100*time.Millisecond, time.Second, 100*time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.OnChange = func(hops map[netip.Addr]lb.NextHop) {
		select {
		case <-o.latest:
		default:
		}
		o.latest <- hops
	}
	w.inside(t, func() (err error) {
		o.Watcher, err = New(cfg)
		return err
	})
	t.Cleanup(o.Close)
	if change != nil {
		change(o.Watcher)
	}
	o.Want(addrs(wanted...))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	o.stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(deadline):
			return fmt.Errorf("Run did not end within %v", deadline)
		}
	}
	t.Cleanup(func() { check(t, o.stop()) })
	return o
}

// await waits until the next hops fulfil a condition.
func (o *observer) await(t *testing.T, what string, ok func(map[netip.Addr]lb.NextHop) bool) {
	t.Helper()
	timeout := time.After(deadline)
	var last map[netip.Addr]lb.NextHop
	for {
		select {
		case last = <-o.latest:
			if ok(last) {
				return
			}
		case <-timeout:
			if len(last) > 10 {
				last = nil
			}
			t.Fatalf("%s: not within %v; stats %+v, last seen %+v", what, deadline, o.Stats(), last)
		}
	}
}

// awaitHop waits until addr has a next hop.
func (o *observer) awaitHop(t *testing.T, addr string, want lb.NextHop) {
	t.Helper()
	o.await(t, fmt.Sprintf("%s gets %+v", addr, want), func(hops map[netip.Addr]lb.NextHop) bool {
		return hops[netip.MustParseAddr(addr)] == want
	})
}

// eventually waits for something that no notification tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%s: not within %v", what, deadline)
		}
	}
}
