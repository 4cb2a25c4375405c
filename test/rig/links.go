// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// cable joins interface a of node n to interface b of peer; both are up, take packets of mtu
// bytes, and compute whole checksums.
func (n *Node) cable(a string, peer *Node, b string, mtu int) error {
	handle, err := netns.GetFromName(peer.Namespace)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %v", peer.Namespace, err)
	}
	defer handle.Close()
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: a, MTU: mtu},
		PeerName:      b,
		PeerNamespace: netlink.NsFd(handle),
	}
	if err := n.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("add cable %s in %s to %s in %s: %v", a, n.Namespace, b, peer.Namespace, err)
	}
	for _, end := range []struct {
		node *Node
		name string
	}{{n, a}, {peer, b}} {
		if err := end.node.setMTU(end.name, mtu); err != nil {
			return err
		}
		if err := end.node.disableOffloads(end.name); err != nil {
			return err
		}
		if err := end.node.setUp(end.name); err != nil {
			return err
		}
	}
	return nil
}

// bridge adds a bridge that forwards at once.
func (n *Node) bridge(name string, mtu int) error {
	snooping := false
	err := n.links.LinkAdd(&netlink.Bridge{
		LinkAttrs: netlink.LinkAttrs{
			Name: name,
			MTU:  mtu,
			// An address of its own: without one it changes with each port that comes.
			HardwareAddr: net.HardwareAddr{0x02, 0, 0, 0x20, 0, 0x01},
		},
		MulticastSnooping: &snooping,
	})
	if err != nil {
		return fmt.Errorf("add bridge %s in %s: %v", name, n.Namespace, err)
	}
	return n.setUp(name)
}

// plug makes a link a port of a bridge.
func (n *Node) plug(port, bridge string) error {
	p, err := n.link(port)
	if err != nil {
		return err
	}
	b, err := n.link(bridge)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMaster(p, b); err != nil {
		return fmt.Errorf("plug %s into %s in %s: %v", port, bridge, n.Namespace, err)
	}
	return nil
}

func (n *Node) link(name string) (netlink.Link, error) {
	l, err := n.links.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s in %s: %v", name, n.Namespace, err)
	}
	return l, nil
}

func (n *Node) setUp(name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s in %s up: %v", name, n.Namespace, err)
	}
	return nil
}

func (n *Node) setMTU(name string, mtu int) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("set MTU %d of %s in %s: %v", mtu, name, n.Namespace, err)
	}
	return nil
}

// addAddr gives a link an address, without waiting for duplicate address detection.
func (n *Node) addAddr(link string, prefix netip.Prefix) error {
	l, err := n.link(link)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := n.links.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("add address %s to %s in %s: %v", prefix, link, n.Namespace, err)
	}
	if prefix.Addr().Is6() {
		n.addrs = append(n.addrs, prefix.Addr())
	}
	return nil
}

// settled tells whether the kernel has done what it does later than it was asked: it takes note
// of a cable's carrier, without which packets are dropped, and receives packets for an IPv6
// address.
func (n *Node) settled() error {
	links, err := n.links.LinkList()
	if err != nil {
		return fmt.Errorf("list links in %s: %v", n.Namespace, err)
	}
	for _, l := range links {
		// The kernel may have made links of other types by itself.
		if t := l.Type(); (t == "veth" || t == "bridge") && l.Attrs().OperState != netlink.OperUp {
			return fmt.Errorf("%s in %s is %s", l.Attrs().Name, n.Namespace, l.Attrs().OperState)
		}
	}
	routes, err := n.links.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_LOCAL}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list local routes in %s: %v", n.Namespace, err)
	}
	local := make(map[string]bool)
	for _, r := range routes {
		local[r.Dst.String()] = true
	}
	for _, a := range n.addrs {
		if !local[hostPrefix(a).String()] {
			return fmt.Errorf("%s in %s has no local route", a, n.Namespace)
		}
	}
	return nil
}

// replaceRoute sends packets for dst to the gateways, by ECMP if there are several, and no longer
// to where they went.
func (n *Node) replaceRoute(dst netip.Prefix, gateways ...netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(dst)}
	if len(gateways) == 1 {
		route.Gw = gateways[0].AsSlice()
	} else {
		for _, gw := range gateways {
			route.MultiPath = append(route.MultiPath, &netlink.NexthopInfo{Gw: gw.AsSlice()})
		}
	}
	if err := n.links.RouteReplace(route); err != nil {
		return fmt.Errorf("set route %s by way of %v in %s: %v", dst, gateways, n.Namespace, err)
	}
	return nil
}

// Counters are what passed an interface since it was made.
type Counters struct {
	RxPackets, RxBytes, TxPackets, TxBytes uint64
}

// Counters reads the counters of an interface of the node.
func (n *Node) Counters(link string) (Counters, error) {
	l, err := n.link(link)
	if err != nil {
		return Counters{}, err
	}
	s := l.Attrs().Statistics
	if s == nil {
		return Counters{}, fmt.Errorf("read counters of %s in %s: the kernel sent none", link, n.Namespace)
	}
	return Counters{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes}, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
