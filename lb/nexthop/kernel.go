// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// kernel is what a session asks of the kernel. Tests have a fake.
type kernel interface {
	// link reads an interface; one that does not exist has index 0.
	link(name string) (link, error)
	// route looks up the route to dst as seen from l. A route that forbids to go is no error.
	route(dst netip.Addr, l link) (route, error)
	// neighbours reads the entries of an interface.
	neighbours(index int) (map[netip.Addr]neighbour, error)
	// probe asks for a missing neighbour to be resolved or a stale one to be confirmed, and does
	// not wait for it.
	probe(index int, addr netip.Addr, c condition) error
	// subscribe begins to receive notifications.
	subscribe() (subscription, error)
}

// requestTimeout ends a request that the kernel does not answer.
const requestTimeout = 10 * time.Second

// netlinkKernel is the kernel by netlink, in one network namespace. Its methods may be called
// concurrently.
type netlinkKernel struct {
	handle *netlink.Handle
	ns     netns.NsHandle
}

// openKernel opens the kernel in the network namespace of the calling thread.
func openKernel() (*netlinkKernel, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %v", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("open netlink socket: %v", err)
	}
	k := &netlinkKernel{handle: h, ns: ns}
	if err := h.SetSocketTimeout(requestTimeout); err != nil {
		k.close()
		return nil, fmt.Errorf("set time-out of netlink socket: %v", err)
	}
	return k, nil
}

func (k *netlinkKernel) close() {
	k.handle.Close()
	k.ns.Close()
}

func (k *netlinkKernel) link(name string) (link, error) {
	found, err := k.handle.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return link{name: name}, nil
	}
	if err != nil {
		return link{}, fmt.Errorf("read interface %q: %v", name, err)
	}
	a := found.Attrs()
	return link{
		name:     name,
		index:    a.Index,
		mtu:      a.MTU,
		up:       a.RawFlags&unix.IFF_UP != 0,
		carrier:  a.RawFlags&unix.IFF_RUNNING != 0,
		ethernet: a.EncapType == "ether",
	}, nil
}

func (k *netlinkKernel) nameOf(index int) string {
	l, err := k.handle.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("interface number %d", index)
	}
	return l.Attrs().Name
}

func (k *netlinkKernel) route(dst netip.Addr, l link) (route, error) {
	if !dst.IsValid() {
		return noRoute(dst), nil
	}
	// The whole route is asked for, since otherwise the kernel picks one way of a multipath route.
	answers, err := k.handle.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err == nil && len(answers) > 0 && len(hopsOf(answers[0])) == 0 {
		// With net.ipv4.nexthop_compat_mode=0, a route that uses a nexthop object names only that.
		answers, err = k.handle.RouteGet(dst.AsSlice())
	}
	if err != nil {
		if r, ok := routeRefused(dst, err); ok {
			return r, nil
		}
		return route{}, fmt.Errorf("look up route to %s: %v", dst, err)
	}
	if len(answers) == 0 {
		return noRoute(dst), nil
	}
	return routeTo(dst, answers[0], l, k.nameOf), nil
}

func (k *netlinkKernel) neighbours(index int) (map[netip.Addr]neighbour, error) {
	entries := make(map[netip.Addr]neighbour)
	if index == 0 {
		return entries, nil
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := k.handle.NeighList(index, family)
		if err != nil {
			return nil, fmt.Errorf("read neighbours: %v", err)
		}
		for i := range list {
			if addr, n, ok := neighbourOf(&list[i]); ok {
				entries[addr] = n
			}
		}
	}
	return entries, nil
}

// probe works through the neighbour table, so it needs CAP_NET_ADMIN and no raw socket.
func (k *netlinkKernel) probe(index int, addr netip.Addr, c condition) error {
	// NeighAppend is the one verb that takes an entry as it is, there or not; NeighSet would clear
	// the flag of IPv6 routers.
	n := &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, IP: addr.AsSlice()}
	if addr.Is6() {
		n.Family = netlink.FAMILY_V6
	}
	if c == stale {
		// The state "probe" has the kernel ask the neighbour itself, at once. If the entry lost its
		// link address meanwhile, that is invalid.
		n.State = netlink.NUD_PROBE
		err := k.handle.NeighAppend(n)
		if !errors.Is(err, unix.EINVAL) {
			return probeError(addr, err)
		}
	}
	// NTF_USE is what a packet to the neighbour would do: create the entry and ask for it. It must
	// not be set on a permanent entry, which would not be permanent any more.
	n.State, n.Flags = netlink.NUD_NONE, netlink.NTF_USE
	return probeError(addr, k.handle.NeighAppend(n))
}

func probeError(addr netip.Addr, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOBUFS):
		family := "ipv4"
		if addr.Is6() {
			family = "ipv6"
		}
		return fmt.Errorf("the kernel's neighbour table is full: raise net.%s.neigh.default.gc_thresh3", family)
	case errors.Is(err, unix.EPERM):
		return errors.New("CAP_NET_ADMIN is missing")
	}
	return err
}
