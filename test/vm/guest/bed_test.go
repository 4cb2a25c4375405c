// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// bed is a lab of one server in which the program runs as the balancer.
type bed struct {
	*rig.Lab
	balancer, server *rig.Node
	remora           rig.Remora
	daemon           *rig.Process
}

// newBed builds a lab in which nothing runs yet but a server that echoes.
func newBed(t *testing.T, vips ...netip.Addr) *bed {
	t.Helper()
	inMachine(t)
	lab, err := rig.New(rig.Config{Servers: 1, VIPs: vips})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	b := &bed{Lab: lab, balancer: lab.Balancers[0], server: lab.Servers[0]}
	b.remora = rig.Remora{Binary: remoraBinary, Instance: "vm", StateDir: filepath.Join(lab.Dir, "state"), RunDir: lab.Dir}
	lab.OnClose(b.remora.RemovePins)
	t.Cleanup(func() {
		if t.Failed() && b.daemon != nil {
			t.Logf("remora wrote:\n%s", b.daemon.Output())
		}
	})
	serveEcho(t, b.server)
	return b
}

// start starts the balancer, in native mode on one of its interfaces, with these services.
func (b *bed) start(t *testing.T, iface string, services ...service) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "interface: %s\nmode: native\nencapsulation:\n  gue: {source4: %s, source6: %q}\nservices:\n", iface, b.balancer.IPv4, b.balancer.IPv6)
	for i, s := range services {
		fmt.Fprintf(&text, "  - name: service%d\n    encapsulation: %s\n    backends: [%q]\n    vips:\n", i, s.encapsulation, s.backend)
		for _, v := range s.vips {
			fmt.Fprintf(&text, "      - %q\n", v)
		}
	}
	config := filepath.Join(b.Dir, "remora.yaml")
	require.NoError(t, os.WriteFile(config, []byte(text.String()), 0o600))
	command := b.remora.Run(config)
	daemon, err := b.balancer.Start(command[0], command[1:]...)
	require.NoError(t, err)
	b.daemon = daemon
	waitFor(t, "the balancer to be ready", func() error {
		if err := daemon.Running(); err != nil {
			return err
		}
		return b.ready(t, len(services))
	})
}

// service is one of a configuration.
type service struct {
	// encapsulation is ipip or gue.
	encapsulation string
	backend       netip.Addr
	// vips are written as in the configuration.
	vips []string
}

// status is the part of `remora status` that tests read.
type status struct {
	Mode string
	VIPs []struct {
		VIP   string
		Reals []struct {
			State   string
			Packets uint64
		}
	}
	Reasons map[string]uint64
}

func (b *bed) status(t *testing.T) (s status, err error) {
	t.Helper()
	command := b.remora.Status("--interval", "0", "-o", "json")
	out, err := b.balancer.Run(within(t), command[0], command[1:]...)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// ready tells what is missing until packets can be forwarded to the real of each VIP.
func (b *bed) ready(t *testing.T, services int) error {
	s, err := b.status(t)
	if err != nil {
		return err
	}
	if len(s.VIPs) < services {
		return fmt.Errorf("%d VIPs", len(s.VIPs))
	}
	for _, v := range s.VIPs {
		if len(v.Reals) != 1 || v.Reals[0].State != "ok" {
			return fmt.Errorf("%s has reals %+v", v.VIP, v.Reals)
		}
	}
	return nil
}

// forwarded is the number of packets that went to the real of a VIP, as in the configuration.
func (b *bed) forwarded(t *testing.T, vip string) uint64 {
	t.Helper()
	s, err := b.status(t)
	require.NoError(t, err)
	for _, v := range s.VIPs {
		if v.VIP == vip {
			return v.Reals[0].Packets
		}
	}
	t.Fatalf("status has no VIP %s: %+v", vip, s)
	return 0
}

// The cable between two network cards of the machine, which join moves into the lab.
var (
	routerEnd4   = netip.MustParsePrefix("10.10.99.1/24")
	routerEnd6   = netip.MustParsePrefix("2001:db8:10:99::1/64")
	balancerEnd4 = netip.MustParsePrefix("10.10.99.2/24")
	balancerEnd6 = netip.MustParsePrefix("2001:db8:10:99::2/64")
)

// labMTU leaves room for outer headers, as on the lab's other cables.
const labMTU = 1600

// join moves two network cards, which are the ends of one cable, to the router and to the balancer,
// and sends the VIPs that way.
func (b *bed) join(t *testing.T, router, balancer string, vips ...netip.Addr) {
	t.Helper()
	moveCard(t, router, b.Router, routerEnd4, routerEnd6)
	moveCard(t, balancer, b.balancer, balancerEnd4, balancerEnd6)
	b.replaceRoute(t, b.balancer, netip.MustParsePrefix("0.0.0.0/0"), routerEnd4.Addr())
	b.replaceRoute(t, b.balancer, netip.MustParsePrefix("::/0"), routerEnd6.Addr())
	for _, vip := range vips {
		gateway := balancerEnd4.Addr()
		if vip.Is6() {
			gateway = balancerEnd6.Addr()
		}
		b.replaceRoute(t, b.Router, netip.PrefixFrom(vip, vip.BitLen()), gateway)
	}
}

func (b *bed) replaceRoute(t *testing.T, n *rig.Node, dst netip.Prefix, gateway netip.Addr) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		return netlink.RouteReplace(&netlink.Route{Dst: ipNet(dst), Gw: gateway.AsSlice()})
	}))
}

// moveCard moves a network card of the machine to a node. It comes back when the node goes.
func moveCard(t *testing.T, name string, n *rig.Node, prefixes ...netip.Prefix) {
	t.Helper()
	var card netlink.Link
	waitFor(t, "network card "+name, func() (err error) {
		card, err = netlink.LinkByName(name)
		return err
	})
	namespace, err := os.Open(filepath.Join("/run/netns", n.Namespace))
	require.NoError(t, err)
	defer namespace.Close()
	require.NoError(t, netlink.LinkSetNsFd(card, int(namespace.Fd())))
	require.NoError(t, n.Do(func() error {
		moved, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(moved, labMTU); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(moved); err != nil {
			return err
		}
		for _, p := range prefixes {
			if err := netlink.AddrAdd(moved, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
