// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/rig"
)

// fragmentPort is the port of the UDP service whose fragments are balanced.
const fragmentPort = 7

// portsConfig adds a service of all UDP ports of the second VIP to the options.
const portsConfig = `  - name: ports
    vips: ["[%s]:0/udp"]
    hash: [keep-destination-port]
    flows: {udp: stateless}
    backends: [%s, %s, %s]
`

// optionsConfig has the first VIP within a prefix, with a UDP VIP whose fragments are balanced by client, and
// the second one with source routes: of two servers, but the client's prefix has the third. What is tunnelled
// to the balancer itself is unwrapped.
func optionsConfig(b *bed) string {
	one, two, three := b.Servers[0].IPv4, b.Servers[1].IPv4, b.Servers[2].IPv4
	clients, _ := b.Client.IPv6.Prefix(64)
	return fmt.Sprintf(`interface: %s
source_routes:
  - prefixes: ["%s"]
    backend: %s
decapsulation:
  destinations: [{address: %s, action: balance}]
services:
  - name: prefix
    vips: ["192.0.2.0/28:80/tcp"]
    backends: [%s, %s, %s]
  - name: fragments
    vips: ["%s:%d/udp"]
    fragments: hash-3-tuple
    backends: [%s, %s, %s]
  - name: routed
    vips: ["[%s]:80/tcp"]
    source_routes: true
    backends: [{address: %s, server_id: 7}, %s]
`, rig.BalancerInterface, clients, three, b.balancer.IPv4, one, two, three, vip4(), fragmentPort, one, two, three, vip6(), one, two) + fmt.Sprintf(portsConfig, vip6(), one, two, three)
}

// TestOptions balances by a prefix, by source routes, and fragments by client, in one daemon.
func TestOptions(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	for _, s := range b.Servers {
		answerUDP(t, s, netip.AddrPortFrom(vip4(), fragmentPort))
		for i := range flowsPerVIP {
			answerUDP(t, s, netip.AddrPortFrom(vip6(), uint16(firstUDPPort+i)))
		}
	}
	b.writeText(t, optionsConfig(b))
	b.startDaemon(t)
	t.Run("prefix VIP", func(t *testing.T) { b.assertShared(t, vip4(), b.Servers...) })
	t.Run("source routes", func(t *testing.T) { b.assertShared(t, vip6(), b.Servers[2]) })
	t.Run("fragments", func(t *testing.T) { b.assertFragments(t) })
	t.Run("destination ports", func(t *testing.T) { b.assertPortsShared(t) })
	t.Run("tunnelled packets", func(t *testing.T) { b.assertUnwrapped(t) })
	t.Run("status", func(t *testing.T) { b.assertOptionsShown(t) })

	clients, _ := b.Client.IPv6.Prefix(64)
	b.writeText(t, strings.Replace(optionsConfig(b), clients.String(), "2001:db8:dead::/48", 1))
	b.hup(t)
	t.Run("other source routes", func(t *testing.T) {
		waitFor(t, "packets to go by the ring", func() error {
			if out := b.curl(t, url(vip6(), "/")); strings.TrimSpace(out) == b.Servers[2].Name {
				return fmt.Errorf("they go to %s", b.Servers[2].Name)
			}
			return nil
		})
		b.assertShared(t, vip6(), b.Servers[:2]...)
	})
}

// assertFragments sends datagrams of several fragments, and short ones, from several ports: all of a client
// go to one server, which puts them together.
func (b *bed) assertFragments(t *testing.T) {
	t.Helper()
	to := netip.AddrPortFrom(vip4(), fragmentPort)
	want := ""
	for i := range flowsPerVIP {
		f := b.newUDPFlow(t, firstUDPPort+i, to)
		if want == "" {
			want = f.server
		}
		if err := f.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(make([]byte, 3*fullPacketBytes)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("datagram in fragments from port %d: %v", firstUDPPort+i, err)
		}
		if got := string(buf[:n]); got != want || f.server != want {
			t.Errorf("port %d: %s answers fragments, %s whole packets, want %s for both", firstUDPPort+i, got, f.server, want)
		}
	}
}

// assertPortsShared sends from one port to several of a VIP of all ports: each server has some of them.
func (b *bed) assertPortsShared(t *testing.T) {
	t.Helper()
	answers := make(map[string]int)
	for i := range flowsPerVIP {
		f := b.newUDPFlow(t, firstUDPPort, netip.AddrPortFrom(vip6(), uint16(firstUDPPort+i)))
		answers[f.server]++
		f.Close() // the port is for the next one
	}
	for _, s := range b.Servers {
		if answers[s.Name] == 0 {
			t.Errorf("no answer from %s: %v", s.Name, answers)
		}
	}
}

// assertUnwrapped sends a datagram to a VIP in a packet to the balancer: a server answers.
func (b *bed) assertUnwrapped(t *testing.T) {
	t.Helper()
	const port = firstUDPPort + flowsPerVIP
	f := b.newUDPFlow(t, port, netip.AddrPortFrom(vip4(), fragmentPort))
	inner := frames.IPv4{TTL: 64, Src: b.Client.IPv4, Dst: vip4(), Payload: frames.UDP{SrcPort: port, DstPort: fragmentPort, Data: []byte("wrapped")}}
	err := b.Client.Do(func() error {
		conn, err := net.Dial("ip4:4", b.balancer.IPv4.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write(inner.Bytes())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetDeadline(time.Now().Add(waitTimeout)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := f.Read(buf)
	if got := string(buf[:n]); err != nil || got != f.server {
		t.Errorf("answer of %q, want %q as to packets that are not tunnelled, error %v", got, f.server, err)
	}
}

// assertOptionsShown reads the status that the daemon completes.
func (b *bed) assertOptionsShown(t *testing.T) {
	t.Helper()
	command := append(b.remora.Status("-o", "json", "--interval", "0s"), "--socket", b.remora.Socket())
	out, err := b.balancer.Run(within(t), command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		VIPs []struct {
			VIP     string   `json:"vip"`
			Options []string `json:"options"`
			Reals   []struct {
				Address  string `json:"address"`
				Weight   uint32 `json:"weight"`
				State    string `json:"state"`
				ServerID uint32 `json:"server_id"`
				Routed   bool   `json:"routed"`
			} `json:"reals"`
		} `json:"vips"`
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range s.VIPs {
		got = append(got, fmt.Sprint(v.VIP, " ", v.Options))
		for _, r := range v.Reals {
			if r.ServerID != 0 || r.Routed {
				got = append(got, fmt.Sprintf("  %s weight=%d %s server=%d routed=%t", r.Address, r.Weight, r.State, r.ServerID, r.Routed))
			}
		}
	}
	want := []string{
		"192.0.2.0/28:80/tcp []",
		fmt.Sprintf("%s:%d/udp [fragments=hash-3-tuple]", vip4(), fragmentPort),
		fmt.Sprintf("[%s]:0/udp [hash=keep-destination-port]", vip6()),
		fmt.Sprintf("[%s]:80/tcp [source_routes]", vip6()),
		fmt.Sprintf("  %s weight=1 ok server=7 routed=false", b.Servers[0].IPv4),
		fmt.Sprintf("  %s weight=0 ok server=0 routed=true", b.Servers[2].IPv4),
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("status\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// narrowTunnelMTU is the longest outer packet on the way to the servers.
const narrowTunnelMTU = 1400

// TestLocalBackend serves one VIP on the balancer itself.
func TestLocalBackend(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.startServers(t, ipv4)
	if _, err := b.balancer.StartNginx(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.balancer.Run(within(t), "ip", "address", "add", vip4().String()+"/32", "dev", "lo"); err != nil {
		t.Fatal(err)
	}
	b.writeText(t, fmt.Sprintf(`interface: %s
services:
  - name: here
    vips: ["%s:80/tcp"]
    backends: [%s, {address: %s, local: true}]
`, rig.BalancerInterface, vip4(), b.Servers[0].IPv4, b.balancer.IPv4))
	b.startDaemon(t)
	b.assertShared(t, vip4(), b.Servers[0], b.balancer)
	s, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if s.Reasons["local"] == 0 || s.Reasons["forwarded"] == 0 {
		t.Errorf("packets by what became of them: %v", s.Reasons)
	}
}

// narrowTunnels makes the balancer's way to the servers narrow.
func (b *bed) narrowTunnels(t *testing.T) {
	t.Helper()
	route, err := b.balancer.Run(within(t), "ip", "-4", "route", "show", "default")
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-4", "route", "replace"}, strings.Fields(route)...)
	if _, err := b.balancer.Run(within(t), "ip", append(args, "mtu", fmt.Sprint(narrowTunnelMTU))...); err != nil {
		t.Fatal(err)
	}
}

// TestTooBigIsTold uploads over a way to the servers that is too narrow for the client's packets in their
// outer headers: the balancer says so.
func TestTooBigIsTold(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.narrowTunnels(t)
	b.write(t, b.Servers, ipv4, "")
	b.startDaemon(t)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		t.Run(vip.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "download")
			b.curl(t, "-o", path, url(vip, "/large"))
			name := "narrow-" + strings.ReplaceAll(vip.String(), ":", "-")
			if out := b.curl(t, "-T", path, "-o", "/dev/null", "-w", "%{http_code}", url(vip, "/upload/"+name)); out != "201" {
				t.Errorf("upload: HTTP status %q", out)
			}
			if got, err := b.Client.PathMTU(vip); err != nil || got != narrowTunnelMTU-20 {
				t.Errorf("the client knows the path MTU %d, want %d, error %v", got, narrowTunnelMTU-20, err)
			}
		})
	}
	s, err := b.status(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if s.Reasons["too_big_told"] == 0 {
		t.Errorf("packets by what became of them: %v", s.Reasons)
	}
}
