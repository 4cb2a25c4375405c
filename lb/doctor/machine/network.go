// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/doctor"
)

// network is the kernel's answers by netlink.
type network struct{ handle *netlink.Handle }

// Links implements doctor.Network.
func (n *network) Links() ([]doctor.Link, error) {
	list, err := n.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := make([]doctor.Link, 0, len(list))
	for _, l := range list {
		links = append(links, linkOf(l))
	}
	return links, nil
}

func linkOf(l netlink.Link) doctor.Link {
	a := l.Attrs()
	link := doctor.Link{
		Index: a.Index, Name: a.Name, Type: l.Type(), Parent: a.ParentIndex, MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_RUNNING != 0, Ethernet: a.EncapType == "ether",
	}
	if a.Xdp != nil && a.Xdp.Attached {
		link.Program, link.Generic = a.Xdp.ProgId, a.Xdp.AttachMode == nl.XDP_ATTACHED_SKB
		link.ProgramName = programName(a.Xdp.ProgId)
	}
	switch t := l.(type) {
	case *netlink.Iptun:
		link.Remote = addrOf(t.Remote)
	case *netlink.Ip6tnl:
		link.Remote = addrOf(t.Remote)
	case *netlink.Sittun:
		link.Remote = addrOf(t.Remote)
	}
	return link
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// Addresses implements doctor.Network.
func (n *network) Addresses() ([]doctor.Address, error) {
	list, err := n.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addresses := make([]doctor.Address, 0, len(list))
	for _, a := range list {
		bits, _ := a.Mask.Size()
		addresses = append(addresses, doctor.Address{
			Link: n.nameOf(a.LinkIndex), Prefix: netip.PrefixFrom(addrOf(a.IP), bits), Scope: scopeName(a.Scope),
			Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0, Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
		})
	}
	return addresses, nil
}

// scopeName is the name of a scope, as ip-address(8) has it.
func scopeName(scope int) string {
	if s := netlink.Scope(scope); s != netlink.SCOPE_UNIVERSE {
		return s.String()
	}
	return "global"
}

func (n *network) nameOf(index int) string {
	l, err := n.handle.LinkByIndex(index)
	if err != nil {
		return "interface number " + strconv.Itoa(index)
	}
	return l.Attrs().Name
}

// Route implements doctor.Network. The whole route is asked for, since otherwise the kernel picks
// one way of several.
func (n *network) Route(dst netip.Addr) (doctor.Route, error) {
	list, err := n.handle.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err == nil && len(list) > 0 && list[0].LinkIndex == 0 && len(list[0].MultiPath) == 0 {
		// With net.ipv4.nexthop_compat_mode=0, a route that uses a nexthop object names only that.
		list, err = n.handle.RouteGet(dst.AsSlice())
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && slices.Contains([]syscall.Errno{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL}, errno):
		return doctor.Route{Problem: fmt.Sprintf("no route leads to %s (%v)", dst, errno)}, nil
	case err != nil:
		return doctor.Route{}, fmt.Errorf("look up route to %s: %w", dst, err)
	case len(list) == 0:
		return doctor.Route{Problem: fmt.Sprintf("no route leads to %s", dst)}, nil
	}
	return n.routeOf(dst, list[0]), nil
}

// routeOf translates a route to an address, or to all if dst is not valid.
func (n *network) routeOf(dst netip.Addr, r netlink.Route) doctor.Route {
	switch r.Type {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL, unix.RTN_ANYCAST:
		return doctor.Route{Problem: fmt.Sprintf("%s is an address of this host", dst)}
	default:
		return doctor.Route{Problem: fmt.Sprintf("the route to %s leads nowhere (type %d)", dst, r.Type)}
	}
	route := doctor.Route{MTU: r.MTU, AdvMSS: r.AdvMSS}
	ways := r.MultiPath
	if len(ways) == 0 {
		ways = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}}
	}
	for _, w := range ways {
		gateway := w.Gw
		if via, ok := w.Via.(*netlink.Via); ok { // an IPv6 gateway of an IPv4 route
			gateway = via.Addr
		}
		hop := doctor.Hop{Link: n.nameOf(w.LinkIndex), Gateway: addrOf(gateway)}
		if hop.Gateway.IsUnspecified() {
			hop.Gateway = netip.Addr{}
		}
		route.Hops = append(route.Hops, hop)
	}
	return route
}

// DefaultRoutes implements doctor.Network.
func (n *network) DefaultRoutes(ipv6 bool) ([]doctor.Route, error) {
	family, all := netlink.FAMILY_V4, net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if ipv6 {
		family, all = netlink.FAMILY_V6, net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	list, err := n.handle.RouteListFiltered(family, &netlink.Route{Dst: &all, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list default routes: %w", err)
	}
	var routes []doctor.Route
	for _, r := range list {
		if r.Type == unix.RTN_UNICAST {
			routes = append(routes, n.routeOf(netip.Addr{}, r))
		}
	}
	return routes, nil
}

// Neighbour implements doctor.Network.
func (n *network) Neighbour(link int, addr netip.Addr) (doctor.Neighbour, error) {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := n.handle.NeighList(link, family)
	if err != nil {
		return doctor.Neighbour{}, fmt.Errorf("list neighbours: %w", err)
	}
	for _, e := range list {
		if addrOf(e.IP) == addr && e.Flags&netlink.NTF_PROXY == 0 {
			return doctor.Neighbour{State: stateName(e.State), MAC: e.HardwareAddr.String()}, nil
		}
	}
	return doctor.Neighbour{}, nil
}

// stateName is the name of a state, as ip-neighbour(8) has it.
func stateName(state int) string {
	switch state {
	case netlink.NUD_NONE:
		return "none"
	case netlink.NUD_INCOMPLETE:
		return "incomplete"
	case netlink.NUD_REACHABLE:
		return "reachable"
	case netlink.NUD_STALE:
		return "stale"
	case netlink.NUD_DELAY:
		return "delay"
	case netlink.NUD_PROBE:
		return "probe"
	case netlink.NUD_FAILED:
		return "failed"
	case netlink.NUD_NOARP:
		return "noarp"
	case netlink.NUD_PERMANENT:
		return "permanent"
	}
	return fmt.Sprintf("state %#x", state)
}

// GUEPorts implements doctor.Network.
func (n *network) GUEPorts() (ports []uint16, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := n.handle.FouList(family)
		switch {
		case errors.Is(err, unix.ENOENT): // the kernel has no such family of netlink
			return nil, fmt.Errorf("list ports of the fou module: %w", errors.ErrUnsupported)
		case err != nil:
			return nil, fmt.Errorf("list ports of the fou module: %w", err)
		}
		for _, f := range list {
			if f.EncapType == netlink.FOU_ENCAP_GUE {
				ports = append(ports, uint16(f.Port))
			}
		}
	}
	return ports, nil
}
