// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package decap

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

// receiveTimeout only bounds a failing test.
const receiveTimeout = 10 * time.Second

// TestEndToEnd sends tunnelled datagrams over a real link and receives them on ordinary sockets
// bound to the VIPs: the stack accepts what the program hands it, checksums included.
func TestEndToEnd(t *testing.T) {
	for _, mode := range []attach.Mode{attach.Native, attach.Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWire(t, 1500)
			w.addVIPs(t)
			sockets := map[bool]*net.UDPConn{false: listen(t, vip4), true: listen(t, vip6)}
			cfg := testConfig()
			cfg.Interface, cfg.Mode = "srv0", mode
			d := newDecap(t, cfg)
			if at := must(d.Attach())(t); at.Mode != mode {
				t.Fatalf("attached as %+v, want %s", at, mode)
			}
			var want Counters
			for kind := range KindLen {
				// The outer mark shows that the inner header checksum is right after the change.
				for _, tos := range []byte{0, 3} {
					text := fmt.Sprintf("%s, outer TOS %d", kind, tos)
					u := tunnel{kind: kind, tos: tos, inner: inner(kind.inner6(), 2, text)}
					w.send(t, u.frame())
					expectDatagram(t, sockets[kind.inner6()], text, u)
					want.Reasons[Decapsulated]++
					want.Kinds[kind].Packets++
					want.Kinds[kind].Bytes += uint64(len(u.inner))
				}
			}
			// Kept from the sockets: a packet that may not carry the mark. Then, let through
			// untouched: a plain datagram to the VIP.
			w.send(t, tunnel{kind: IPIP4in4, tos: 3, inner: inner(false, 0, "dropped")}.frame())
			want.Reasons[ECN]++
			plain := tunnel{inner: inner(false, 0, "not tunnelled")}
			w.send(t, ethernet(plain.inner))
			expectDatagram(t, sockets[false], "not tunnelled", plain)
			want.Reasons[OtherPort]++
			if diff := cmp.Diff(want, readCounters(t, d)); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
		})
	}
}

// expectDatagram receives one datagram and compares it with what the tunnel carried.
func expectDatagram(t *testing.T, conn *net.UDPConn, text string, u tunnel) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(receiveTimeout)))
	b := make([]byte, 2048)
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		t.Fatalf("receive %q: %v", text, err)
	}
	src := client4
	if u.inner[0]>>4 == 6 {
		src = client6
	}
	if got := string(b[:n]); got != text || from != netip.AddrPortFrom(src, 40000) {
		t.Fatalf("received %q from %s, want %q from %s", got, from, text, src)
	}
}

// TestDetach: frames that come after it are neither opened nor counted, and attaching again works.
func TestDetach(t *testing.T) {
	w := newWire(t, 1500)
	w.addVIPs(t)
	socket := listen(t, vip4)
	cfg := testConfig()
	cfg.Interface = "srv0"
	d := newDecap(t, cfg)
	u := tunnel{kind: GUE4in4, inner: inner(false, 0, "first")}
	must(d.Attach())(t)
	w.send(t, u.frame())
	expectDatagram(t, socket, "first", u)
	require.NoError(t, d.Detach())
	require.NoError(t, d.Detach())

	// The plain datagram that follows on the same link proves that the tunnelled one has arrived.
	before := readCounters(t, d)
	w.send(t, u.frame())
	w.send(t, ethernet(inner(false, 0, "plain")))
	expectDatagram(t, socket, "plain", u)
	if diff := cmp.Diff(before, readCounters(t, d)); diff != "" {
		t.Errorf("counters after detaching (-before +after):\n%s", diff)
	}
	must(d.Attach())(t)
	u.inner = inner(false, 0, "again")
	w.send(t, u.frame())
	expectDatagram(t, socket, "again", u)
}
