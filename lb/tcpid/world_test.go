// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// deadline only bounds a failing test.
const deadline = 30 * time.Second

// side is a node whose thread, and so the sockets that are opened on it, is in a cgroup of its own.
type side struct {
	*rig.Node
	cgroup string
}

// world is a client and a server, each in a network namespace and a cgroup, and what the client's link
// carried.
type world struct {
	router         *rig.Node
	client, server side
	packets        int       // socket
	kept           []segment // read from it so far
}

func newWorld(t *testing.T) *world {
	t.Helper()
	require.Root(t)
	lab, err := rig.New(rig.Config{Servers: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	w := &world{router: lab.Router}
	own := ownCgroup(t) // before any thread is moved: one of them may be the process's first
	w.client = newSide(t, lab.Client, own, lab.Name+"-client")
	w.server = newSide(t, lab.Servers[0], own, lab.Name+"-server")
	require.NoError(t, lab.Client.Do(func() error {
		w.packets, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})))
		return err
	}))
	t.Cleanup(func() { unix.Close(w.packets) })
	require.NoError(t, unix.SetsockoptInt(w.packets, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	return w
}

// newSide makes a threaded cgroup within the test's own one, and moves the node's thread there.
func newSide(t *testing.T, n *rig.Node, own, name string) side {
	t.Helper()
	s := side{n, filepath.Join(own, name)}
	require.NoError(t, os.Mkdir(s.cgroup, 0o700))
	t.Cleanup(func() { require.NoError(t, os.Remove(s.cgroup)) })
	require.NoError(t, os.WriteFile(filepath.Join(s.cgroup, "cgroup.type"), []byte("threaded"), 0))
	move := func(to string) error {
		return n.Do(func() error {
			return os.WriteFile(filepath.Join(to, "cgroup.threads"), fmt.Append(nil, unix.Gettid()), 0)
		})
	}
	require.NoError(t, move(s.cgroup))
	t.Cleanup(func() { require.NoError(t, move(own)) })
	return s
}

// ownCgroup is the folder of the cgroup of version 2 that the test is in.
func ownCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	groups, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	mount, group := "", ""
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			mount = f[1]
		}
	}
	for line := range strings.Lines(string(groups)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			group = path
		}
	}
	if mount == "" || group == "" {
		t.Fatalf("no cgroup of version 2: mounted at %q, own %q", mount, group)
	}
	return filepath.Join(mount, group)
}

// forward has the router send packets on, or not.
func (w *world) forward(t *testing.T, on bool) {
	t.Helper()
	value := "0"
	if on {
		value = "1"
	}
	require.NoError(t, w.router.SetSysctl("net/ipv4/ip_forward", value))
}

// listen opens a server that says back each line.
func (w *world) listen(t *testing.T, six bool) netip.AddrPort {
	t.Helper()
	addr := w.server.IPv4
	if six {
		addr = w.server.IPv6
	}
	var l net.Listener
	require.NoError(t, w.server.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}))
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); echo(c) })
		}
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// connection is a client's.
type connection struct {
	conn   net.Conn
	lines  *bufio.Reader
	server netip.AddrPort
}

// connect makes a connection that ends with the test.
func (w *world) connect(t *testing.T, server netip.AddrPort) *connection {
	t.Helper()
	c, err := w.dial(server)
	require.NoError(t, err)
	t.Cleanup(func() { c.conn.Close() })
	return c
}

func (w *world) dial(server netip.AddrPort) (*connection, error) {
	var conn net.Conn
	err := w.client.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", server.String(), deadline)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &connection{conn, bufio.NewReader(conn), server}, nil
}

// exchange sends a line and receives it.
func (c *connection) exchange(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(c.conn, "hello\n")
	require.NoError(t, err)
	c.receive(t, "hello\n")
}

func (c *connection) receive(t *testing.T, want string) {
	t.Helper()
	got, err := c.lines.ReadString('\n')
	require.NoError(t, err)
	if got != want {
		t.Fatalf("received %d bytes, want %d", len(got), len(want))
	}
}

// segment is one that the client's link carried.
type segment struct {
	server               netip.AddrPort
	fromClient, syn, ack bool
	payload              string
	packetLen            int
	options              []layers.TCPOption
}

// ids are the options 0xb6 to 0xb8 of the segment, as kind:data.
func (s segment) ids() string {
	var all []string
	for _, o := range s.options {
		if o.OptionType >= 0xb6 && o.OptionType <= 0xb8 {
			all = append(all, fmt.Sprintf("%x:%s", uint8(o.OptionType), hex.EncodeToString(o.OptionData)))
		}
	}
	return strings.Join(all, " ")
}

// segments are all so far of the connections with a server.
func (w *world) segments(t *testing.T, server netip.AddrPort) (all []segment) {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		n, err := unix.Read(w.packets, buf)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		require.NoError(t, err)
		if s, ok := parseSegment(buf[:n]); ok {
			w.kept = append(w.kept, s)
		}
	}
	for _, s := range w.kept {
		if s.server == server {
			all = append(all, s)
		}
	}
	return all
}

// seen waits until there are so many such segments.
func (w *world) seen(t *testing.T, server netip.AddrPort, count int, such func(segment) bool) {
	t.Helper()
	waitFor(t, "segments", func() error {
		n := 0
		for _, s := range w.segments(t, server) {
			if such(s) {
				n++
			}
		}
		if n < count {
			return fmt.Errorf("%d of %d are seen", n, count)
		}
		return nil
	})
}

func waitFor(t *testing.T, what string, reached func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	require.NoError(t, rig.WaitFor(ctx, what, reached))
}

// parseSegment reads a packet from its IP header on; false if it is not TCP.
func parseSegment(b []byte) (s segment, ok bool) {
	first := layers.LayerTypeIPv4
	if len(b) > 0 && b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(append([]byte(nil), b...), first, gopacket.Default)
	tcp, isTCP := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !isTCP {
		return s, false
	}
	ends := p.NetworkLayer().NetworkFlow()
	src, dst := addrOf(ends.Src()), addrOf(ends.Dst())
	s = segment{syn: tcp.SYN, ack: tcp.ACK, payload: string(tcp.Payload), packetLen: len(b), options: tcp.Options}
	s.fromClient = isClient(src)
	s.server = netip.AddrPortFrom(src, uint16(tcp.SrcPort))
	if s.fromClient {
		s.server = netip.AddrPortFrom(dst, uint16(tcp.DstPort))
	}
	return s, true
}

// isClient knows the client's networks in the lab: 198.51.100.0/24 and 2001:db8:c::/64.
func isClient(a netip.Addr) bool {
	return netip.MustParsePrefix("198.51.100.0/24").Contains(a) || netip.MustParsePrefix("2001:db8:c::/64").Contains(a)
}

func addrOf(e gopacket.Endpoint) netip.Addr {
	a, _ := netip.AddrFromSlice(e.Raw())
	return a
}
