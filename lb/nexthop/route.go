// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// route is the kernel's route to one address, as far as it leads out of the watched interface.
type route struct {
	// gateways are the neighbours that frames may go to, in order of address: gateways, or the
	// address itself if it is on the link. Empty if problem is set.
	gateways []netip.Addr
	// mtu is the MTU that the route itself sets, in bytes; 0 if none.
	mtu     int
	problem string
}

func (r route) equal(o route) bool {
	return r.mtu == o.mtu && r.problem == o.problem && slices.Equal(r.gateways, o.gateways)
}

// routeTo translates the kernel's answer about dst; nameOf gives the name of other interfaces.
func routeTo(dst netip.Addr, answer netlink.Route, l link, nameOf func(index int) string) route {
	if p := typeProblem(dst, answer.Type); p != "" {
		return route{problem: p}
	}
	var gateways []netip.Addr
	var others []string
	down := false
	for _, h := range hopsOf(answer) {
		switch {
		case h.LinkIndex != l.index:
			others = append(others, nameOf(h.LinkIndex))
		case h.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0:
			down = true
		case h.Encap != nil:
			return route{problem: fmt.Sprintf("route to %s has an encapsulation of its own", dst)}
		default:
			gateways = append(gateways, gatewayOf(h, dst))
		}
	}
	switch {
	case len(gateways) > 0:
		slices.SortFunc(gateways, netip.Addr.Compare)
		return route{gateways: slices.Compact(gateways), mtu: answer.MTU}
	case down:
		return route{problem: fmt.Sprintf("route to %s is down on %s", dst, l.name)}
	case len(others) > 0:
		slices.Sort(others)
		return route{problem: fmt.Sprintf("route to %s leaves by %s, not %s", dst, strings.Join(slices.Compact(others), ", "), l.name)}
	}
	return noRoute(dst)
}

func noRoute(dst netip.Addr) route { return route{problem: fmt.Sprintf("no route to %s", dst)} }

// routeRefused translates the error that the kernel answers instead of a route: fib_props of
// net/ipv4/fib_semantics.c gives one to each type of route that forbids to go, and
// ip6_rt_type_to_error of net/ipv6/route.c the same. ok is false if err is no answer but a failure
// to ask, so that asking again may help.
func routeRefused(dst netip.Addr, err error) (r route, ok bool) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return route{}, false
	}
	switch errno {
	case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM, unix.EBADF:
		return route{}, false
	case unix.ENETUNREACH:
		return noRoute(dst), true
	case unix.EHOSTUNREACH:
		return route{problem: typeProblem(dst, unix.RTN_UNREACHABLE)}, true
	case unix.EACCES:
		return route{problem: typeProblem(dst, unix.RTN_PROHIBIT)}, true
	case unix.EINVAL:
		return route{problem: typeProblem(dst, unix.RTN_BLACKHOLE)}, true
	}
	return route{problem: fmt.Sprintf("route to %s cannot be looked up: %v", dst, errno)}, true
}

// typeProblem says why no frame can be sent along a route of a type; empty if one can.
func typeProblem(dst netip.Addr, kind int) string {
	switch kind {
	case unix.RTN_UNICAST:
		return ""
	case unix.RTN_LOCAL, unix.RTN_ANYCAST:
		return fmt.Sprintf("%s is an address of this host", dst)
	case unix.RTN_BROADCAST:
		return fmt.Sprintf("%s is a broadcast address", dst)
	case unix.RTN_MULTICAST:
		return fmt.Sprintf("%s is a multicast address", dst)
	case unix.RTN_BLACKHOLE:
		return fmt.Sprintf("route to %s is a blackhole", dst)
	case unix.RTN_UNREACHABLE:
		return fmt.Sprintf("route to %s says unreachable", dst)
	case unix.RTN_PROHIBIT:
		return fmt.Sprintf("route to %s says prohibited", dst)
	}
	return fmt.Sprintf("route to %s is of type %d, which leads nowhere", dst, kind)
}

// hopsOf lists the ways of a route, whether it has several or one.
func hopsOf(r netlink.Route) []*netlink.NexthopInfo {
	if len(r.MultiPath) > 0 {
		return r.MultiPath
	}
	if r.LinkIndex == 0 {
		return nil
	}
	return []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags, Encap: r.Encap}}
}

// gatewayOf is the neighbour that a way leads to.
func gatewayOf(h *netlink.NexthopInfo, dst netip.Addr) netip.Addr {
	gw := h.Gw
	if via, ok := h.Via.(*netlink.Via); ok { // an IPv6 gateway of an IPv4 route
		gw = via.Addr
	}
	if a := addrOf(gw); a.IsValid() && !a.IsUnspecified() {
		return a
	}
	return dst.Unmap()
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
