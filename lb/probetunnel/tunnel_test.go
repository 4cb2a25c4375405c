// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package probetunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/decap"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// probeTimeout only bounds a failing probe that should pass; silenceTimeout is how long nothing
// must come back.
const (
	probeTimeout   = 10 * time.Second
	silenceTimeout = 300 * time.Millisecond
)

const port = 80

func vip4() netip.Addr { return netip.MustParseAddr("192.0.2.10") }
func vip6() netip.Addr { return netip.MustParseAddr("2001:db8:ff::10") }

// bed is a lab with one server that unwraps packets and listens on the VIPs, and a tunnel on the
// balancer, which has no packet program.
type bed struct {
	*rig.Lab
	tunnel *Tunnel
	router [6]byte
}

func newBed(t *testing.T) *bed {
	t.Helper()
	require.Root(t)
	lab, err := rig.New(rig.Config{Servers: 1, VIPs: []netip.Addr{vip4(), vip6()}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	b := &bed{Lab: lab}
	require.NoError(t, lab.Router.Do(func() error {
		iface, err := net.InterfaceByName("to-lb")
		if err == nil {
			b.router = [6]byte(iface.HardwareAddr)
		}
		return err
	}))
	server := lab.Servers[0]
	require.NoError(t, server.Do(func() error { return b.serve(t, server) }))
	b.open(t, Config{Interface: rig.BalancerInterface})
	return b
}

// serve starts what the server has, in its namespace.
func (b *bed) serve(t *testing.T, server *rig.Node) error {
	d, err := decap.New(decap.Config{Interface: rig.ServerInterface, TunnelAddrs: []netip.Addr{server.IPv4, server.IPv6}})
	if err != nil {
		return err
	}
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	if _, err := d.Attach(); err != nil {
		return err
	}
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(vip, port)))
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
	}
	return nil
}

func (b *bed) open(t *testing.T, cfg Config) {
	t.Helper()
	require.NoError(t, b.Balancers[0].Do(func() (err error) {
		b.tunnel, err = New(cfg)
		return err
	}))
	tunnel := b.tunnel
	t.Cleanup(func() { require.NoError(t, tunnel.Close()) })
}

// real is the server as a real of a VIP.
func (b *bed) real(t *testing.T, id lb.RealID, vip, addr netip.Addr, e lb.Encap) lb.Real {
	t.Helper()
	sources := lb.DefaultTunnelSources()
	sources.GUE4, sources.GUE6 = b.Balancers[0].IPv4, b.Balancers[0].IPv6
	tunnel, err := sources.Tunnel(e, addr)
	require.NoError(t, err)
	return lb.Real{
		ID: id, VIP: lb.VIP{Addr: vip, Port: port, Protocol: lb.TCP}, Backend: lb.Backend{Addr: addr, Weight: 1},
		Tunnel: tunnel, NextHop: lb.NextHop{MAC: b.router, MTU: 1600},
	}
}

// ask makes a probe from the balancer.
func (b *bed) ask(t *testing.T, kind healthcheck.Kind, addr netip.Addr, mark uint32, timeout time.Duration) healthcheck.Result {
	t.Helper()
	probe, err := kind.Probe()
	require.NoError(t, err)
	var r healthcheck.Result
	require.NoError(t, b.Balancers[0].Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		r = probe.Check(ctx, healthcheck.Target{Addr: netip.AddrPortFrom(addr, port), Mark: mark})
		return nil
	}))
	return r
}

func (b *bed) counters(t *testing.T) Counters {
	t.Helper()
	c, err := b.tunnel.Counters()
	require.NoError(t, err)
	return c
}

// TestTunnels probes the server by every tunnel, with small packets and with the longest, some of which
// leave the host as one that is cut into segments behind the program.
func TestTunnels(t *testing.T) {
	b := newBed(t)
	server := b.Servers[0]
	for _, encap := range []lb.Encap{lb.IPIP, lb.GUE} {
		for _, addr := range []netip.Addr{server.IPv4, server.IPv6} {
			for _, vip := range []netip.Addr{vip4(), vip6()} {
				t.Run(fmt.Sprintf("%s of %s to %s", encap, vip, addr), func(t *testing.T) {
					r := b.real(t, 7, vip, addr, encap)
					require.NoError(t, b.tunnel.Set([]lb.Real{r}))
					before := b.counters(t)
					longest := 1600 - r.Tunnel.OuterLen()
					for _, kind := range []healthcheck.Kind{
						healthcheck.TCP{}, healthcheck.TCP{Size: longest}, healthcheck.SYN{}, healthcheck.ICMP{}, healthcheck.ICMP{Size: longest},
					} {
						if got := b.ask(t, kind, vip, b.tunnel.Mark(7), probeTimeout); !got.OK() {
							t.Errorf("%T%+v: %s", kind, kind, got)
						}
					}
					after := b.counters(t)
					if wrapped := after[Wrapped] - before[Wrapped]; wrapped < 10 {
						t.Errorf("%d packets were wrapped, want those of five probes", wrapped)
					}
					after[Wrapped], before[Wrapped] = 0, 0
					if after != before {
						t.Errorf("counters from %v to %v", before, after)
					}
				})
			}
		}
	}
}

// TestDropped sends probes that must not leave as they are.
func TestDropped(t *testing.T) {
	b := newBed(t)
	server := b.Servers[0]
	small := b.real(t, 2, vip4(), server.IPv4, lb.IPIP)
	small.NextHop.MTU = 70 // less than a SYN with its outer header
	lost := b.real(t, 3, vip4(), server.IPv4, lb.IPIP)
	lost.NextHop = lb.NextHop{Problem: "test"}
	require.NoError(t, b.tunnel.Set([]lb.Real{b.real(t, 1, vip4(), server.IPv4, lb.IPIP), small, lost}))
	for _, c := range []struct {
		name string
		id   lb.RealID
		want Outcome
	}{
		{"longer than the way takes", 2, TooBig},
		{"no next hop", 3, NoNextHop},
		{"no such real", 4, NoReal},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := b.counters(t)
			if r := b.ask(t, healthcheck.TCP{}, vip4(), b.tunnel.Mark(c.id), silenceTimeout); r.OK() {
				t.Errorf("the probe passed: %s", r)
			}
			after := b.counters(t)
			if after[c.want] == before[c.want] || after[Wrapped] != before[Wrapped] {
				t.Errorf("counters from %v to %v, want more %s only", before, after, c.want)
			}
		})
	}
}

// TestOthersUntouched: the host's own packets, with and without a mark, go to the server as they are.
func TestOthersUntouched(t *testing.T) {
	b := newBed(t)
	server := b.Servers[0]
	require.NoError(t, server.Do(func() error {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(server.IPv4, port)))
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	require.NoError(t, b.tunnel.Set([]lb.Real{b.real(t, 1, vip4(), server.IPv4, lb.IPIP)}))
	for _, mark := range []uint32{0, 1, DefaultMarkBase ^ 0x01000000 | 1, 0x00ffffff} {
		if r := b.ask(t, healthcheck.TCP{}, server.IPv4, mark, probeTimeout); !r.OK() {
			t.Errorf("mark %#x: %s", mark, r)
		}
	}
	if c := b.counters(t); c != (Counters{}) {
		t.Errorf("counters %v, want none", c)
	}
}

// TestSetReplaces: a real that is not in the set any more gets no probes; with another base another
// range is taken.
func TestSetReplaces(t *testing.T) {
	b := newBed(t)
	require.NoError(t, b.tunnel.Close())
	b.open(t, Config{Interface: rig.BalancerInterface, MarkBase: 0xfe000000})
	server := b.Servers[0]
	first, second := b.real(t, 1, vip4(), server.IPv4, lb.IPIP), b.real(t, 2, vip4(), server.IPv6, lb.IPIP)
	require.NoError(t, b.tunnel.Set([]lb.Real{first, second}))
	require.NoError(t, b.tunnel.Set([]lb.Real{second}))
	if r := b.ask(t, healthcheck.TCP{}, vip4(), 0xfe000002, probeTimeout); !r.OK() {
		t.Errorf("the real that stayed: %s", r)
	}
	if r := b.ask(t, healthcheck.TCP{}, vip4(), 0xfe000001, silenceTimeout); r.OK() {
		t.Error("the real that went answers")
	}
}

func TestConfig(t *testing.T) {
	require.ErrorSays(t, Config{MarkBase: 0x72000001}.Validate(), "Interface: is empty", "MarkBase: the lower 24 bits of 0x72000001 are not 0")
	require.NoError(t, Config{Interface: "eth0", MarkBase: 0xff000000}.Validate())
	if got := (Config{}).Mark(0x123456); got != 0x72123456 {
		t.Errorf("mark %#x", got)
	}
}

func TestNoInterface(t *testing.T) {
	require.Root(t)
	_, err := New(Config{Interface: "not-there"})
	require.ErrorSays(t, err, `no network interface "not-there"`)
}

// TestOutcomeNames compares the names with the enumeration of the program.
func TestOutcomeNames(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "bpf", "probe_types.h"))
	require.NoError(t, err)
	var names []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PROBE_"); ok {
			name, _, _ = strings.Cut(name, ",")
			names = append(names, strings.ToLower(name))
		}
	}
	var want []string
	for o := range OutcomeLen {
		want = append(want, strings.ReplaceAll(o.String(), "next_hop", "nexthop"))
	}
	if got := strings.Join(names, " "); got != strings.Join(append(want, "outcome_len"), " ") {
		t.Errorf("the header has %s, Go has %s", got, want)
	}
}
