// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// connection is a TCP connection from the client to a VIP that stays open.
type connection struct {
	net.Conn
	in *bufio.Reader
	// server is the name of the server that has the connection.
	server string
}

// connect opens a connection and asks who is at the other end. From one port of the client the
// ring's choice is the same in every run; port 0 is any.
func (b *bed) connect(t *testing.T, vip netip.Addr, port int) *connection {
	t.Helper()
	var c *connection
	err := b.Client.Do(func() error {
		from := b.Client.IPv4
		if vip.Is6() {
			from = b.Client.IPv6
		}
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, uint16(port)))}
		conn, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(vip, 80).String())
		if err == nil {
			c = &connection{Conn: conn, in: bufio.NewReader(conn)}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.server = c.ask(t)
	return c
}

// connections opens several connections to both VIPs; every server has some.
func (b *bed) connections(t *testing.T, servers ...*rig.Node) []*connection {
	t.Helper()
	var conns []*connection
	have := make(map[string]bool)
	for i := range 12 {
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			c := b.connect(t, vip, 40001+i)
			conns = append(conns, c)
			have[c.server] = true
		}
	}
	for _, s := range servers {
		if !have[s.Name] {
			t.Fatalf("no connection is on %s", s.Name)
		}
	}
	return conns
}

// ask makes a request on the connection and returns the name of the server.
func (c *connection) ask(t *testing.T) string {
	t.Helper()
	c.limit(t)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: vip\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	body := c.answer(t, http.StatusOK)
	return strings.TrimSpace(string(body))
}

func (c *connection) limit(t *testing.T) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
}

// answer reads an answer and returns its body.
func (c *connection) answer(t *testing.T, code int) []byte {
	t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != code {
		t.Fatalf("HTTP status %s, error %v, want %d", resp.Status, err, code)
	}
	return body
}

// assertStays demands that the connection still works and still is on its server.
func (c *connection) assertStays(t *testing.T) {
	t.Helper()
	if got := c.ask(t); got != c.server {
		t.Errorf("%s is on %s and was on %s", c.LocalAddr(), got, c.server)
	}
}

// upload is a file on its way to a server.
type upload struct {
	*connection
	name string
	data []byte
	sent int
}

// newUpload begins to send a file. Nothing but the request's head is sent yet.
func (b *bed) newUpload(t *testing.T, vip netip.Addr, name string) *upload {
	t.Helper()
	u := &upload{connection: b.connect(t, vip, 0), name: name}
	u.data = bytes.Repeat([]byte("0123456789abcdef"), 250_000)
	u.limit(t)
	if _, err := fmt.Fprintf(u, "PUT /upload/%s HTTP/1.1\r\nHost: vip\r\nContent-Length: %d\r\n\r\n", name, len(u.data)); err != nil {
		t.Fatal(err)
	}
	return u
}

// send sends the next n bytes; they are on the wire, or close to it, when it returns.
func (u *upload) send(t *testing.T, n int) {
	t.Helper()
	u.limit(t)
	if _, err := u.Write(u.data[u.sent : u.sent+n]); err != nil {
		t.Fatal(err)
	}
	u.sent += n
}

// finish sends the rest and demands that it arrived.
func (u *upload) finish(t *testing.T, b *bed) {
	t.Helper()
	u.send(t, len(u.data)-u.sent)
	u.answer(t, http.StatusCreated)
	b.assertUploaded(t, u.name, u.data)
}
