// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/remora-lb/remora/test/require"
)

// testTimeout is how long one test may wait for something.
const testTimeout = 20 * time.Second

// newLab builds a lab that ends with the test.
func newLab(t *testing.T, cfg Config) *Lab {
	t.Helper()
	require.Root(t)
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func testVIPs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:ff::10")}
}

func TestNewRefusesConfig(t *testing.T) {
	require.Root(t)
	for _, cfg := range []Config{{Balancers: 10}, {Balancers: -1}, {Servers: 10}, {Servers: -1}} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			l, err := New(cfg)
			if err == nil {
				_ = l.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), "1 to 9") {
				t.Errorf("error %q does not say what is possible", err)
			}
		})
	}
}

func TestNamespacesAppearAndVanish(t *testing.T) {
	l := newLab(t, Config{Balancers: 2, Servers: 2, VIPs: testVIPs()})
	var names []string
	for _, n := range l.Nodes() {
		names = append(names, n.Name)
		if pids, err := namespacePids(n.Namespace); err != nil || len(pids) != 0 {
			t.Errorf("%s: processes %v, error %v", n.Namespace, pids, err)
		}
		if _, err := os.Stat(filepath.Join(netnsDir, n.Namespace)); err != nil {
			t.Error(err)
		}
	}
	if got, want := strings.Join(names, " "), "client router lb1 lb2 server1 server2"; got != want {
		t.Errorf("nodes %q, want %q", got, want)
	}
	p, err := l.Client.Start("sleep", "600")
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := namespacePids(l.Client.Namespace); err != nil || len(pids) != 1 || pids[0] != p.Pid() {
		t.Errorf("processes of the client: %v, error %v; want %d", pids, err, p.Pid())
	}
	stranger := exec.Command("nsenter", "--net="+filepath.Join(netnsDir, l.Router.Namespace), "sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	if err := WaitFor(testContext(t), "the other process to enter", func() error {
		if pids, err := namespacePids(l.Router.Namespace); err != nil || len(pids) != 1 {
			return fmt.Errorf("processes %v, error %v", pids, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	inodes := namespaceLinks(t, l)

	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Running(); !errors.Is(err, ErrExited) {
		t.Errorf("after Close the process's state is %v", err)
	}
	if err := stranger.Wait(); err == nil || stranger.ProcessState.Exited() {
		t.Errorf("the other process ended by itself: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(netnsDir, l.Name+"-*")); len(left) != 0 {
		t.Errorf("after Close there are %v", left)
	}
	if _, err := os.Stat(l.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close %s: %v", l.Dir, err)
	}
	assertNoThreadIn(t, inodes)
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := l.Client.Start("true"); err == nil {
		t.Error("a closed lab starts a process")
	}
}

// namespaceLinks returns what /proc/.../ns/net reads for the nodes of a lab.
func namespaceLinks(t *testing.T, l *Lab) map[string]string {
	t.Helper()
	links := make(map[string]string)
	for _, n := range l.Nodes() {
		err := n.Do(func() error {
			target, err := os.Readlink("/proc/thread-self/ns/net")
			links[target] = n.Name
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return links
}

// assertNoThreadIn fails if a thread of this process keeps one of the namespaces alive.
func assertNoThreadIn(t *testing.T, links map[string]string) {
	t.Helper()
	paths, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(paths) == 0 {
		t.Fatalf("threads %v, error %v", paths, err)
	}
	for _, path := range paths {
		// A thread that ended since is in no namespace.
		if target, err := os.Readlink(path); err == nil && links[target] != "" {
			t.Errorf("%s is still in the namespace of %s", path, links[target])
		}
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	require.Root(t)
	for range 2 {
		t.Run("lab", func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Config{Servers: 1})
			if err := l.Client.Ping(testContext(t), l.Servers[0].IPv4, 8); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPing(t *testing.T) {
	l := newLab(t, Config{})
	client, lb := l.Client, l.Balancers[0]
	for _, tc := range []struct {
		name  string
		from  *Node
		to    *Node
		bytes int // the whole packet
	}{
		{"client to server1", client, l.Servers[0], clientMTU},
		{"client to server3", client, l.Servers[2], clientMTU},
		{"client to balancer", client, lb, clientMTU},
		{"balancer to server, long", lb, l.Servers[1], innerMTU},
		{"server to server", l.Servers[0], l.Servers[1], innerMTU},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := testContext(t)
			if err := tc.from.Ping(ctx, tc.to.IPv4, tc.bytes-28); err != nil {
				t.Error(err)
			}
			if err := tc.from.Ping(ctx, tc.to.IPv6, tc.bytes-48); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := lb.Ping(ctx, netip.MustParseAddr("10.20.0.99"), 8); err == nil {
			t.Error("an address that nobody has answers")
		}
	})
}

func TestVIPLeadsToBalancer(t *testing.T) {
	l := newLab(t, Config{VIPs: testVIPs()})
	for _, vip := range testVIPs() {
		t.Run(vip.String(), func(t *testing.T) {
			if err := l.Balancers[0].addAddr("lo", hostPrefix(vip)); err != nil {
				t.Fatal(err)
			}
			if err := l.settle(); err != nil {
				t.Fatal(err)
			}
			before := counters(t, l.Balancers[0], BalancerInterface)
			if err := l.Client.Ping(testContext(t), vip, 1000); err != nil {
				t.Fatal(err)
			}
			after := counters(t, l.Balancers[0], BalancerInterface)
			if after.RxBytes-before.RxBytes < 1000 || after.TxBytes-before.TxBytes < 1000 {
				t.Errorf("the balancer's counters went from %+v to %+v", before, after)
			}
		})
	}
}

func TestRouteVIPs(t *testing.T) {
	l := newLab(t, Config{Balancers: 2, Servers: 1, VIPs: testVIPs()})
	for _, lb := range l.Balancers {
		for _, vip := range testVIPs() {
			if err := lb.addAddr("lo", hostPrefix(vip)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.settle(); err != nil {
		t.Fatal(err)
	}
	for _, lb := range []*Node{l.Balancers[1], l.Balancers[0]} {
		if err := l.RouteVIPs(lb); err != nil {
			t.Fatal(err)
		}
		for _, vip := range testVIPs() {
			before := counters(t, lb, BalancerInterface)
			if err := l.Client.Ping(testContext(t), vip, 1000); err != nil {
				t.Fatal(err)
			}
			if after := counters(t, lb, BalancerInterface); after.RxBytes-before.RxBytes < 1000 {
				t.Errorf("a ping of %s did not go to %s", vip, lb.Name)
			}
		}
	}
	if err := l.RouteVIPs(l.Balancers...); err != nil {
		t.Error(err)
	}
}

func counters(t *testing.T, n *Node, link string) Counters {
	t.Helper()
	c, err := n.Counters(link)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOffloadsAreOff(t *testing.T) {
	l := newLab(t, Config{})
	links := map[*Node][]string{
		l.Client:       {clientInterface},
		l.Router:       {"to-client", "to-lb", "to-server1", "to-server2", "to-server3"},
		l.Balancers[0]: {BalancerInterface},
		l.Servers[0]:   {ServerInterface},
	}
	for n, names := range links {
		for _, name := range names {
			t.Run(n.Name+"/"+name, func(t *testing.T) {
				on, err := n.Offloads(name)
				if err != nil {
					t.Fatal(err)
				}
				if len(on) != 0 {
					t.Errorf("on: %v", on)
				}
			})
		}
	}
	t.Run("reads what is on", func(t *testing.T) {
		err := l.Client.Do(func() error {
			_, err := ethtool(clientInterface, offloads()[0].set, 1)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if on, err := l.Client.Offloads(clientInterface); err != nil || len(on) != 1 || on[0] != "tx-checksumming" {
			t.Errorf("on: %v, error %v", on, err)
		}
	})
	t.Run("no such link", func(t *testing.T) {
		if _, err := l.Client.Offloads("absent0"); err == nil {
			t.Error("no error")
		}
	})
}

// TestTransmitFromXDP attaches a program to the balancer's interface that sends every frame back.
func TestTransmitFromXDP(t *testing.T) {
	l := newLab(t, Config{})
	lb := l.Balancers[0]
	lan, err := lb.link(BalancerInterface)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.XDP,
		License:      "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 3), asm.Return()}, // XDP_TX
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	err = lb.Do(func() error {
		attached, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: lan.Attrs().Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { attached.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before := counters(t, l.Router, "to-lb")
	ctx, cancel := context.WithCancel(testContext(t))
	pinged := make(chan error, 1)
	go func() { pinged <- l.Router.Ping(ctx, lb.IPv4, 8) }()
	err = WaitFor(testContext(t), "a frame to come back", func() error {
		if counters(t, l.Router, "to-lb").RxPackets == before.RxPackets {
			return errors.New("none yet")
		}
		return nil
	})
	cancel()
	if err != nil {
		t.Error(err)
	}
	if err := <-pinged; err == nil {
		t.Error("ping answered although every frame is sent back")
	}
}
