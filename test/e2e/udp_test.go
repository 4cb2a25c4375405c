// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// TestUDP sends datagrams to a UDP service on both VIPs.
func TestUDP(t *testing.T) {
	b := newBed(t, rig.Config{})
	text := "interface: lan0\nservices:\n  - name: echo\n    vips:\n"
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		text += fmt.Sprintf("      - %q\n", netip.AddrPortFrom(vip, 7).String()+"/udp")
	}
	text += "    backends:\n"
	for _, s := range b.Servers {
		text += fmt.Sprintf("      - %s\n", s.IPv4)
		b.startDecap(t, s, s.IPv4)
		for _, vip := range []netip.Addr{vip4(), vip6()} {
			answerUDP(t, s, netip.AddrPortFrom(vip, 7))
		}
	}
	b.writeText(t, text)
	b.startDaemon(t)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		t.Run(vip.String(), func(t *testing.T) {
			answers := make(map[string]int)
			for range requestsPerVIP {
				answers[b.askUDP(t, netip.AddrPortFrom(vip, 7))]++
			}
			for _, s := range b.Servers {
				if answers[s.Name] == 0 {
					t.Errorf("no answer from %s: %v", s.Name, answers)
				}
			}
		})
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

// askUDP sends a datagram of full size from a new port and returns the answer.
func (b *bed) askUDP(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	var conn net.Conn
	err := b.Client.Do(func() (err error) {
		conn, err = net.Dial("udp", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
	headers := 28
	if to.Addr().Is6() {
		headers = 48
	}
	if _, err := conn.Write(make([]byte, fullPacketBytes-headers)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}
