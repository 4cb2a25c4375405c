// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/rig"
)

// narrowMTU is the longest packet that gets to the client in these tests. No fixed guess of the
// kernel (net.ipv4.tcp_base_mss, the least MTU of IPv6) comes to this number: who knows it was
// told.
const narrowMTU = 1300

// flowsPerVIP is so many that each of three servers has one; which has which is the same in every
// run, because the client's ports are.
const flowsPerVIP = 12

// firstFlowPort is the client's port of the first flow.
const firstFlowPort = 40001

// TestPathMTU downloads large files over a path that is narrower than the client's announced
// segment size. The router then tells the VIP that packets are too big, and the router's way to
// the VIP is the balancer. A server that is not told sends the same packet until it gives up:
// packets must not be fragmented, no other message says so, and the guessing of TCP is off.
func TestPathMTU(t *testing.T) {
	for _, tun := range tunnels() {
		t.Run(tun.name, func(t *testing.T) {
			b := newBed(t, rig.Config{})
			b.disableGuessing(t)
			if err := b.NarrowClient(narrowMTU); err != nil {
				t.Fatal(err)
			}
			b.startServers(t, tun.pick)
			b.write(t, b.Servers, tun.pick, tun.config(b.balancer))
			b.startDaemon(t)
			for _, vip := range []netip.Addr{vip4(), vip6()} {
				t.Run(vip.String(), func(t *testing.T) { b.tryPathMTU(t, vip) })
			}
		})
	}
}

// disableGuessing has the servers not look for a smaller segment size by themselves when nothing
// gets through.
func (b *bed) disableGuessing(t *testing.T) {
	t.Helper()
	for _, s := range b.Servers {
		if err := s.SetSysctl("net.ipv4.tcp_mtu_probing", "0"); err != nil {
			t.Fatal(err)
		}
		got, err := s.Run(within(t), "cat", "/proc/sys/net/ipv4/tcp_mtu_probing")
		if err != nil || strings.TrimSpace(got) != "0" {
			t.Fatalf("net.ipv4.tcp_mtu_probing of %s is %q, error %v", s.Name, got, err)
		}
	}
}

// tryPathMTU downloads from all servers, over connections that are open before any server knows
// the path. What one server learns helps no other.
func (b *bed) tryPathMTU(t *testing.T, vip netip.Addr) {
	t.Helper()
	client := b.clientAddr(vip)
	byServer := make(map[string][]*connection)
	for i := range flowsPerVIP {
		c := b.connect(t, vip, firstFlowPort+i) // and a short answer, which fits
		byServer[c.server] = append(byServer[c.server], c)
	}
	forwarded := b.steer(t, func() {
		for _, s := range b.Servers {
			conns := byServer[s.Name]
			if len(conns) < 2 {
				t.Fatalf("%s has %d connections, want several", s.Name, len(conns))
			}
			if got, err := s.PathMTU(client); err != nil || got != 0 {
				t.Fatalf("%s knows the path MTU %d before its first long packet, error %v", s.Name, got, err)
			}
			for _, c := range conns {
				c.assertDownload(t, b.webs[s].Large)
			}
			if got, err := s.PathMTU(client); err != nil || got != narrowMTU {
				t.Errorf("%s knows the path MTU %d, want %d, error %v", s.Name, got, narrowMTU, err)
			}
		}
	})
	// More exact is not possible: acknowledgements are forwarded too.
	if forwarded < flowsPerVIP {
		t.Errorf("%d packets were forwarded for %d downloads", forwarded, flowsPerVIP)
	}
}

// assertDownload downloads the large file over the connection.
func (c *connection) assertDownload(t *testing.T, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c.limit(t)
	if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: vip\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if got := c.answer(t, http.StatusOK); !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes that are not the %d of the file", c.LocalAddr(), len(got), len(want))
	}
}

// clientAddr is the client's address of a VIP's family.
func (b *bed) clientAddr(vip netip.Addr) netip.Addr {
	if vip.Is6() {
		return b.Client.IPv6
	}
	return b.Client.IPv4
}

// steer runs something that causes ICMP errors about flows and demands that the balancer left
// none of them to its host. It returns by how much the count of forwarded packets grew.
func (b *bed) steer(t *testing.T, cause func()) uint64 {
	t.Helper()
	host := b.sniffHost(t)
	before, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	cause()
	after, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	toVIPs, others := host.countICMP(t)
	if toVIPs != 0 {
		t.Errorf("the balancer passed %d ICMP packets for the VIPs", toVIPs)
	}
	// Neighbours look for each other by ICMPv6 at any time, which has the same reason.
	if passed := after.Reasons["icmp"] - before.Reasons["icmp"]; passed > others {
		t.Errorf("the balancer counts %d passed ICMP packets; neighbours sent %d", passed, others)
	}
	return after.Reasons["forwarded"] - before.Reasons["forwarded"]
}

// sniffHost begins to keep what the packet program of the first balancer passes to the host.
func (b *bed) sniffHost(t *testing.T) sniffer {
	t.Helper()
	var s sniffer
	err := b.balancer.Do(func() (err error) {
		s, err = openSniffer(rig.BalancerInterface)
		return err
	})
	if err != nil {
		t.Fatalf("open packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// countICMP counts the ICMP packets that were received: those to a VIP's address, and others.
func (s sniffer) countICMP(t *testing.T) (toVIPs, others uint64) {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(s.fd, buf)
		if errors.Is(err, unix.EAGAIN) {
			return toVIPs, others
		}
		if err != nil {
			t.Fatalf("read packet: %v", err)
		}
		switch p := buf[:n]; {
		case describe(p) != "" || n < 20:
			// Not ICMP.
		case p[0]>>4 == 4 && netip.AddrFrom4([4]byte(p[16:20])) == vip4(),
			p[0]>>4 == 6 && n >= 40 && netip.AddrFrom16([16]byte(p[24:40])) == vip6():
			toVIPs++
		default:
			others++
		}
	}
}

// TestPortUnreachable has servers send datagrams to ports of the client that are closed. The
// client's kernel tells the VIP, and the server's socket is to hear of it.
func TestPortUnreachable(t *testing.T) {
	b := newBed(t, rig.Config{})
	for _, key := range []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"} {
		if err := b.Client.SetSysctl(key, "0"); err != nil { // every datagram is answered
			t.Fatal(err)
		}
	}
	const port = 7
	flows := make(chan flow)
	text := fmt.Sprintf("interface: %s\nservices:\n  - name: late\n    vips:\n", rig.BalancerInterface)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		text += fmt.Sprintf("      - %q\n", netip.AddrPortFrom(vip, port).String()+"/udp")
	}
	text += "    backends:\n"
	for _, s := range b.Servers {
		text += fmt.Sprintf("      - %s\n", s.IPv4)
		b.startDecap(t, s, s.IPv4)
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			receiveFlows(t, s, netip.AddrPortFrom(vip, port), flows)
		}
	}
	b.writeText(t, text)
	b.startDaemon(t)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		t.Run(vip.String(), func(t *testing.T) { b.tryPortUnreachable(t, netip.AddrPortFrom(vip, port), flows) })
	}
}

// flow is one of the client's ports that sent a datagram, and the server that it came to.
type flow struct {
	server *rig.Node
	client netip.AddrPort
}

// tryPortUnreachable begins flows, closes the client's ports, and has the servers answer.
func (b *bed) tryPortUnreachable(t *testing.T, vip netip.AddrPort, flows <-chan flow) {
	t.Helper()
	var begun []flow
	have := make(map[*rig.Node]bool)
	for i := range flowsPerVIP {
		f := b.beginFlow(t, netip.AddrPortFrom(b.clientAddr(vip.Addr()), uint16(firstFlowPort+i)), vip, flows)
		begun = append(begun, f)
		have[f.server] = true
	}
	for _, s := range b.Servers {
		if !have[s] {
			t.Fatalf("%s has no flow", s.Name)
		}
	}
	forwarded := b.steer(t, func() {
		for _, f := range begun {
			f.assertRefused(t, vip)
		}
	})
	if forwarded != flowsPerVIP {
		t.Errorf("%d packets were forwarded, want one error for each of %d flows", forwarded, flowsPerVIP)
	}
}

// beginFlow sends a datagram from a port of the client, which is closed afterwards, and returns
// where it came to.
func (b *bed) beginFlow(t *testing.T, from, to netip.AddrPort, flows <-chan flow) flow {
	t.Helper()
	conn := dialUDP(t, b.Client, from, to)
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-flows:
		if f.client != from {
			t.Fatalf("%s received a datagram of %s, want one of %s", f.server.Name, f.client, from)
		}
		return f
	case <-within(t).Done():
		t.Fatalf("no server received the datagram of %s", from)
	}
	return flow{}
}

// assertRefused sends a datagram to the client from a socket that is this flow's alone, as QUIC
// servers have them, and demands that the socket hears that nobody receives it.
func (f flow) assertRefused(t *testing.T, vip netip.AddrPort) {
	t.Helper()
	conn := dialUDP(t, f.server, vip, f.client)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "too late"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 64)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%s waits for %s: %v, want %v", f.server.Name, f.client, err, syscall.ECONNREFUSED)
	}
}

// receiveFlows tells of every datagram that comes to an address of a server.
func receiveFlows(t *testing.T, n *rig.Node, addr netip.AddrPort, flows chan<- flow) {
	t.Helper()
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		listen := net.ListenConfig{Control: shareAddress}
		conn, err = listen.ListenPacket(t.Context(), "udp", addr.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // the test closed it
			}
			select {
			case flows <- flow{n, from.(*net.UDPAddr).AddrPort()}:
			case <-t.Context().Done():
				return
			}
		}
	}()
}

// dialUDP opens a socket of a node between two addresses; a server's may be in use already.
func dialUDP(t *testing.T, n *rig.Node, from, to netip.AddrPort) net.Conn {
	t.Helper()
	var conn net.Conn
	err := n.Do(func() (err error) {
		dial := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from), Control: shareAddress}
		conn, err = dial.DialContext(t.Context(), "udp", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// shareAddress lets several sockets have the same local address.
func shareAddress(_, _ string, raw syscall.RawConn) error {
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	return errors.Join(failed, err)
}
