// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"
)

// The interfaces of the nodes. The router's are called to-NODE; its bridge joins the servers.
const (
	// BalancerInterface is the balancers' interface towards the router.
	BalancerInterface = "lan0"
	// ServerInterface is the servers' interface.
	ServerInterface = "eth0"

	clientInterface       = "eth0"
	routerClientInterface = "to-client"
	serverBridge          = "servers"
)

// Sizes of the longest IP packet, in bytes.
const (
	clientMTU = 1500
	innerMTU  = 1600
)

// build makes the nodes and joins them.
func (l *Lab) build(balancers, servers int) error {
	if err := l.addClient(); err != nil {
		return err
	}
	if err := l.addDir(); err != nil {
		return err
	}
	if err := l.addRouter(); err != nil {
		return err
	}
	if err := l.joinClient(); err != nil {
		return err
	}
	for i := 1; i <= balancers; i++ {
		name := "lb"
		if balancers > 1 {
			name = fmt.Sprintf("lb%d", i)
		}
		if err := l.addBalancer(name, i); err != nil {
			return err
		}
	}
	if err := l.addServerNetwork(); err != nil {
		return err
	}
	for i := 1; i <= servers; i++ {
		if err := l.addServer(i); err != nil {
			return err
		}
	}
	if err := l.RouteVIPs(l.Balancers...); err != nil {
		return err
	}
	return l.settle()
}

// settleTimeout is how long the kernel may take until packets pass.
const settleTimeout = 5 * time.Second

// settle waits until no packet is lost any more.
func (l *Lab) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	return WaitFor(ctx, "links and addresses", func() error {
		for _, n := range l.Nodes() {
			if err := n.settled(); err != nil {
				return err
			}
		}
		return nil
	})
}

// addClient makes the first node, and with it a name for the lab that no other lab has.
func (l *Lab) addClient() error {
	for i := 1; ; i++ {
		l.Name = fmt.Sprintf("remora-%d-%d", os.Getpid(), i)
		client, err := l.addNode("client")
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		l.Client = client
		return err
	}
}

func (l *Lab) addRouter() error {
	router, err := l.addNode("router")
	if err != nil {
		return err
	}
	l.Router = router
	for _, s := range []struct{ key, value string }{
		{"net.ipv4.ip_forward", "1"},
		{"net.ipv6.conf.all.forwarding", "1"},
		{"net.ipv6.conf.default.forwarding", "1"},
		// Packets of one client spread over the balancers by connection.
		{"net.ipv4.fib_multipath_hash_policy", "1"},
		{"net.ipv6.fib_multipath_hash_policy", "1"},
	} {
		if err := router.SetSysctl(s.key, s.value); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) joinClient() error {
	if err := l.Router.cable(routerClientInterface, l.Client, clientInterface, clientMTU); err != nil {
		return err
	}
	return l.address(l.Client, clientInterface, routerClientInterface,
		netip.MustParsePrefix("198.51.100.2/24"), netip.MustParsePrefix("2001:db8:c::2/64"))
}

func (l *Lab) addBalancer(name string, i int) error {
	lb, err := l.addNode(name)
	if err != nil {
		return err
	}
	l.Balancers = append(l.Balancers, lb)
	if err := l.Router.cable("to-"+name, lb, BalancerInterface, innerMTU); err != nil {
		return err
	}
	if err := l.Router.passXDP("to-" + name); err != nil {
		return err
	}
	return l.address(lb, BalancerInterface, "to-"+name,
		netip.MustParsePrefix(fmt.Sprintf("10.10.%d.2/24", i)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:10:%d::2/64", i)))
}

// The router's addresses on the servers' network.
func serverGateways() (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix("10.20.0.1/24"), netip.MustParsePrefix("2001:db8:20::1/64")
}

func (l *Lab) addServerNetwork() error {
	if err := l.Router.bridge(serverBridge, innerMTU); err != nil {
		return err
	}
	v4, v6 := serverGateways()
	return errors.Join(l.Router.addAddr(serverBridge, v4), l.Router.addAddr(serverBridge, v6))
}

// addServer adds server i with addresses that end in 10+i, and the VIPs on its loopback interface.
func (l *Lab) addServer(i int) error {
	name := fmt.Sprintf("server%d", i)
	server, err := l.addNode(name)
	if err != nil {
		return err
	}
	l.Servers = append(l.Servers, server)
	if err := l.Router.cable("to-"+name, server, ServerInterface, innerMTU); err != nil {
		return err
	}
	if err := l.Router.plug("to-"+name, serverBridge); err != nil {
		return err
	}
	v4 := netip.MustParsePrefix(fmt.Sprintf("10.20.0.%d/24", 10+i))
	v6 := netip.MustParsePrefix(fmt.Sprintf("2001:db8:20::%d/64", 10+i))
	gw4, gw6 := serverGateways()
	if err := server.connect(ServerInterface, v4, v6, gw4.Addr(), gw6.Addr()); err != nil {
		return err
	}
	// No server answers on the network for the address that all of them have.
	if err := server.SetSysctl("net.ipv4.conf.all.arp_ignore", "1"); err != nil {
		return err
	}
	if err := server.SetSysctl("net.ipv4.conf.all.arp_announce", "2"); err != nil {
		return err
	}
	for _, vip := range l.vips {
		if err := server.addAddr("lo", hostPrefix(vip)); err != nil {
			return err
		}
	}
	return nil
}

// RouteVIPs has the router send packets for the VIPs to these balancers, and to no others.
func (l *Lab) RouteVIPs(balancers ...*Node) error {
	for _, vip := range l.vips {
		var gateways []netip.Addr
		for _, lb := range balancers {
			gw := lb.IPv4
			if vip.Is6() {
				gw = lb.IPv6
			}
			gateways = append(gateways, gw)
		}
		if err := l.Router.replaceRoute(hostPrefix(vip), gateways...); err != nil {
			return err
		}
	}
	return nil
}

// address gives both ends of a cable their addresses, the router's ending in 1, and the node its
// default routes.
func (l *Lab) address(n *Node, link, routerLink string, v4, v6 netip.Prefix) error {
	gw4, gw6 := gateway(v4), gateway(v6)
	if err := errors.Join(l.Router.addAddr(routerLink, gw4), l.Router.addAddr(routerLink, gw6)); err != nil {
		return err
	}
	return n.connect(link, v4, v6, gw4.Addr(), gw6.Addr())
}

// connect gives a node its addresses and default routes.
func (n *Node) connect(link string, v4, v6 netip.Prefix, gw4, gw6 netip.Addr) error {
	n.IPv4, n.IPv6 = v4.Addr(), v6.Addr()
	return errors.Join(
		n.addAddr(link, v4),
		n.addAddr(link, v6),
		n.replaceRoute(netip.MustParsePrefix("0.0.0.0/0"), gw4),
		n.replaceRoute(netip.MustParsePrefix("::/0"), gw6),
	)
}

// gateway is the first address of a prefix, the router's.
func gateway(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())
}
