// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

const (
	// plainPort and stickyPort are those of the VIPs' UDP services, by what becomes of their flows.
	plainPort, stickyPort = 7, 9
	// firstUDPPort is the client's port of the first flow.
	firstUDPPort = 41001
)

// udpConfig has a service of each kind on both VIPs.
func udpConfig(servers []*rig.Node) string {
	var text strings.Builder
	fmt.Fprintf(&text, "interface: %s\nservices:\n", rig.BalancerInterface)
	for port, mode := range map[uint16]string{plainPort: "stateless", stickyPort: "sticky"} {
		fmt.Fprintf(&text, "  - name: %s\n    flows: {udp: %s}\n    vips:\n", mode, mode)
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			fmt.Fprintf(&text, "      - %q\n", netip.AddrPortFrom(vip, port).String()+"/udp")
		}
		fmt.Fprintf(&text, "    backends:\n")
		for _, s := range servers {
			fmt.Fprintf(&text, "      - %s\n", s.IPv4)
		}
	}
	return text.String()
}

// newUDPBed is a bed whose servers answer datagrams.
func newUDPBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, rig.Config{})
	for _, s := range b.Servers {
		b.startDecap(t, s, s.IPv4)
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			answerUDP(t, s, netip.AddrPortFrom(vip, plainPort))
			answerUDP(t, s, netip.AddrPortFrom(vip, stickyPort))
		}
	}
	b.writeText(t, udpConfig(b.Servers))
	b.startDaemon(t)
	return b
}

// TestUDP sends datagrams to a UDP service on both VIPs.
func TestUDP(t *testing.T) {
	b := newUDPBed(t)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		t.Run(vip.String(), func(t *testing.T) {
			answers := make(map[string]int)
			for range requestsPerVIP {
				answers[b.newUDPFlow(t, 0, netip.AddrPortFrom(vip, plainPort)).server]++
			}
			for _, s := range b.Servers {
				if answers[s.Name] == 0 {
					t.Errorf("no answer from %s: %v", s.Name, answers)
				}
			}
		})
	}
}

// TestUDPModes removes a server: flows that are remembered stay there, others go on elsewhere at once.
func TestUDPModes(t *testing.T) {
	b := newUDPBed(t)
	gone, stay := b.Servers[1], []*rig.Node{b.Servers[0], b.Servers[2]}
	plain, sticky := b.newUDPFlows(t, firstUDPPort, plainPort), b.newUDPFlows(t, firstUDPPort, stickyPort)
	for _, flows := range [][]*udpFlow{plain, sticky} {
		if !slices.ContainsFunc(flows, func(f *udpFlow) bool { return f.server == gone.Name }) {
			t.Fatalf("no flow is on %s", gone.Name)
		}
	}
	b.writeText(t, udpConfig(stay))
	b.reload(t, stay)
	for range 3 {
		for _, f := range sticky {
			if server := f.ask(t); server != f.server {
				t.Errorf("sticky flow %s to %s is on %s, was on %s", f.LocalAddr(), f.RemoteAddr(), server, f.server)
			}
		}
		for _, f := range plain {
			if server := f.ask(t); server == gone.Name {
				t.Errorf("stateless flow %s to %s is still on %s", f.LocalAddr(), f.RemoteAddr(), server)
			}
		}
	}
	for _, f := range b.newUDPFlows(t, firstUDPPort+flowsPerVIP, stickyPort) {
		if f.server == gone.Name {
			t.Errorf("new sticky flow %s to %s is on %s", f.LocalAddr(), f.RemoteAddr(), gone.Name)
		}
	}
}

// answerUDP answers every datagram to an address of a server with the server's name.
func answerUDP(t *testing.T, n *rig.Node, addr netip.AddrPort) {
	t.Helper()
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", addr.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // the test closed it
			}
			_, _ = conn.WriteTo([]byte(n.Name), from)
		}
	}()
}

// udpFlow is a socket of the client that sends to one port of a VIP.
type udpFlow struct {
	net.Conn
	// server is the name of the one that answered first.
	server string
}

// newUDPFlow sends a datagram from a port of the client; port 0 is any.
func (b *bed) newUDPFlow(t *testing.T, port int, to netip.AddrPort) *udpFlow {
	t.Helper()
	f := &udpFlow{Conn: dialUDP(t, b.Client, netip.AddrPortFrom(b.clientAddr(to.Addr()), uint16(port)), to)}
	t.Cleanup(func() { f.Close() })
	f.server = f.ask(t)
	return f
}

// newUDPFlows begins flows to a port of both VIPs, from the same ports of the client in every run.
func (b *bed) newUDPFlows(t *testing.T, from int, port uint16) (flows []*udpFlow) {
	t.Helper()
	for i := range flowsPerVIP {
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			flows = append(flows, b.newUDPFlow(t, from+i, netip.AddrPortFrom(vip, port)))
		}
	}
	return flows
}

// ask sends a datagram of full size and returns the name of the server that answers.
func (f *udpFlow) ask(t *testing.T) string {
	t.Helper()
	if err := f.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
	headers := 28
	if strings.HasPrefix(f.RemoteAddr().String(), "[") {
		headers = 48
	}
	if _, err := f.Write(make([]byte, fullPacketBytes-headers)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, err := f.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
