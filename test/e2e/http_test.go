// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// requestsPerVIP is so many that each of three servers gets one but in 2 of 100 000 cases.
const requestsPerVIP = 30

// fullPacketBytes is the length of the client's longest packets.
const fullPacketBytes = 1500

// url is the address of a page of a VIP.
func url(vip netip.Addr, path string) string {
	host := vip.String()
	if vip.Is6() {
		host = "[" + host + "]"
	}
	return "http://" + host + path
}

// curl runs curl on the client and returns what it wrote.
func (b *bed) curl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Client.Run(within(t), "curl", append([]string{"-sS", "--fail", "--max-time", "10"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// assertShared sends requests to a VIP, each on a new connection, and demands that these servers,
// all of them and no others, answer.
func (b *bed) assertShared(t *testing.T, vip netip.Addr, servers ...*rig.Node) {
	t.Helper()
	answers := make(map[string]int)
	out := b.curl(t, "--fail-early", "-H", "Connection: close", fmt.Sprintf("%s?[1-%d]", url(vip, "/"), requestsPerVIP))
	for name := range strings.FieldsSeq(out) {
		answers[name]++
	}
	for _, s := range servers {
		if answers[s.Name] == 0 {
			t.Errorf("%s: no answer from %s: %v", vip, s.Name, answers)
		}
		delete(answers, s.Name)
	}
	if len(answers) != 0 {
		t.Errorf("%s: answers from others: %v", vip, answers)
	}
}

// tunnel is a way of wrapping packets.
type tunnel struct {
	name string
	// config is added to the balancer's configuration.
	config func(lb *rig.Node) string
	// pick chooses the outer family.
	pick func(*rig.Node) netip.Addr
	// outer is what the wrapped packets of a VIP look like.
	outer func(vip netip.Addr) string
	// outerBytes is the length of the outer headers.
	outerBytes int
}

func ipip(*rig.Node) string { return "" }

func gue(lb *rig.Node) string {
	return fmt.Sprintf("encapsulation:\n  type: gue\n  gue: {source4: %s, source6: %q}\n", lb.IPv4, lb.IPv6.String())
}

// innerProtocol is the protocol number of an IP packet in an IP packet.
func innerProtocol(vip netip.Addr) string {
	if vip.Is6() {
		return "41"
	}
	return "4"
}

func tunnels() []tunnel {
	return []tunnel{
		{"ipip in IPv4", ipip, ipv4, func(vip netip.Addr) string { return "IPv4 protocol " + innerProtocol(vip) }, 20},
		{"ipip in IPv6", ipip, ipv6, func(vip netip.Addr) string { return "IPv6 protocol " + innerProtocol(vip) }, 40},
		{"gue in IPv4", gue, ipv4, func(netip.Addr) string { return "IPv4 protocol 17 port 6080" }, 28},
		{"gue in IPv6", gue, ipv6, func(netip.Addr) string { return "IPv6 protocol 17 port 6080" }, 48},
	}
}

// TestHTTP balances curl's requests through both VIPs in every tunnel, and moves a large file both
// ways: 4in4, 6in4, 4in6 and 6in6, and the same in GUE.
func TestHTTP(t *testing.T) {
	for _, tun := range tunnels() {
		t.Run(tun.name, func(t *testing.T) {
			b := newBed(t, rig.Config{})
			b.startServers(t, tun.pick)
			b.write(t, b.Servers, tun.pick, tun.config(b.balancer))
			b.startDaemon(t)
			for _, vip := range []netip.Addr{vip4(), vip6()} {
				t.Run(vip.String(), func(t *testing.T) {
					seen := b.sniff(t)
					b.assertShared(t, vip, b.Servers...)
					b.assertTransfer(t, vip)
					seen.assertOnly(t, tun.outer(vip), fullPacketBytes+tun.outerBytes)
				})
			}
		})
	}
}

// assertTransfer downloads and uploads a large file through a VIP.
func (b *bed) assertTransfer(t *testing.T, vip netip.Addr) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "download")
	b.curl(t, "-o", path, url(vip, "/large"))
	if err := b.sameAsLarge(path); err != nil {
		t.Fatal(err)
	}
	name := "from-" + strings.ReplaceAll(vip.String(), ":", "-")
	out := b.curl(t, "-T", path, "-o", "/dev/null", "-w", "%{http_code}", url(vip, "/upload/"+name))
	if out != "201" {
		t.Errorf("upload: HTTP status %q", out)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.assertUploaded(t, name, want)
}

// sameAsLarge compares a file with the servers' large file.
func (b *bed) sameAsLarge(path string) error {
	want, err := os.ReadFile(b.webs[b.Servers[0]].Large)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("downloaded %d bytes that are not the %d of the file", len(got), len(want))
	}
	return err
}

// assertUploaded demands that exactly one server has a file, with this content.
func (b *bed) assertUploaded(t *testing.T, name string, want []byte) {
	t.Helper()
	var holders []string
	for n, web := range b.webs {
		got, err := os.ReadFile(filepath.Join(web.Dir, name))
		if os.IsNotExist(err) {
			continue
		}
		holders = append(holders, n.Name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s received %d bytes that are not the %d sent, error %v", n.Name, len(got), len(want), err)
		}
	}
	if len(holders) != 1 {
		t.Errorf("%s is on the servers %v, want one", name, holders)
	}
}

// TestAnswersBypassBalancer downloads a large file and counts what comes to the balancer.
func TestAnswersBypassBalancer(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	before, err := b.Router.Counters("to-lb")
	if err != nil {
		t.Fatal(err)
	}
	b.curl(t, "-o", "/dev/null", url(vip4(), "/large"))
	after, err := b.Router.Counters("to-lb")
	if err != nil {
		t.Fatal(err)
	}
	// Acknowledgements of 52 bytes for at least every second packet of 1500.
	if sent := after.TxBytes - before.TxBytes; sent == 0 || sent > largeBytes/10 {
		t.Errorf("%d bytes went to the balancer for a download of %d", sent, largeBytes)
	}
}
