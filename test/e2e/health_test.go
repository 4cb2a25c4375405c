// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/healthcheck"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// quickChecks finds faults within about half a second.
const quickChecks = "interval: 100ms, timeout: 400ms, rise: 2, fall: 3"

// writeChecked writes a configuration of a service with health checks.
func (b *bed) writeChecked(t *testing.T, tun tunnel, checks string) {
	t.Helper()
	var backends []string
	for _, s := range b.Servers {
		backends = append(backends, fmt.Sprintf("%q", tun.pick(s)))
	}
	b.writeText(t, webConfig(tun.config(b.balancer), "tcp", backends...)+"    health: {"+checks+"}\n")
}

// TestHealthTunnels stops a service and starts it again, with checks through every tunnel.
func TestHealthTunnels(t *testing.T) {
	for _, tun := range tunnels() {
		t.Run(tun.name, func(t *testing.T) {
			b := newBed(t, rig.Config{})
			b.startServers(t, tun.pick)
			b.writeChecked(t, tun, quickChecks)
			b.startDaemon(t)
			sick, others := b.Servers[0], b.Servers[1:]
			if err := b.webs[sick].Stop(time.Second); err != nil {
				t.Fatal(err)
			}
			b.logged(t, 0, "fault=service_down")
			b.awaitHealth(t, tun, sick, false)
			b.assertShared(t, vip4(), others...)
			b.assertShared(t, vip6(), others...)
			if _, err := sick.StartNginx(within(t), largeBytes); err != nil {
				t.Fatal(err)
			}
			b.awaitHealth(t, tun, sick, true)
			b.assertShared(t, vip4(), b.Servers...)
		})
	}
}

// awaitHealth waits until a server gets new connections, or none, and all others get some.
func (b *bed) awaitHealth(t *testing.T, tun tunnel, server *rig.Node, active bool) {
	t.Helper()
	b.awaitReals(t, fmt.Sprintf("%s active: %v", server.Name, active), func(uses realUses) bool {
		for _, s := range b.Servers {
			if want := s != server || active; (uses[tun.pick(s).String()] == "active") != want {
				return false
			}
		}
		return true
	})
}

// healthStatus is what the tests need of the health in remora status -o json.
type healthStatus struct {
	VIPs []struct {
		VIP    string `json:"vip"`
		Health struct {
			Checked  int    `json:"checked"`
			Healthy  int    `json:"healthy"`
			FailOpen bool   `json:"fail_open"`
			Detail   string `json:"detail"`
		} `json:"health"`
		Reals []struct {
			Address string     `json:"address"`
			Health  realHealth `json:"health"`
		} `json:"reals"`
	} `json:"vips"`
}

type realHealth struct {
	Local  string `json:"local"`
	Reason string `json:"reason"`
	Fault  string `json:"fault"`
}

// health reads what the checks of a VIP know.
func (b *bed) health(t *testing.T) (s healthStatus) {
	t.Helper()
	command := b.remora.Status("-o", "json", "--interval", "0s", "--socket", b.remora.Socket())
	out, err := b.balancer.Run(t.Context(), command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("read status: %v", err)
	}
	return s
}

// awaitVerdict waits until a server's checks for a VIP have this verdict and fault.
func (b *bed) awaitVerdict(t *testing.T, vip netip.Addr, server *rig.Node, local, fault string) realHealth {
	t.Helper()
	var got realHealth
	waitFor(t, fmt.Sprintf("%s to be %s with fault %q", server.Name, local, fault), func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		for _, v := range b.health(t).VIPs {
			if v.VIP != netip.AddrPortFrom(vip, 80).String()+"/tcp" {
				continue
			}
			for _, r := range v.Reals {
				if r.Address == server.IPv4.String() {
					got = r.Health
				}
			}
		}
		if got.Local != local || got.Fault != fault {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
	return got
}

// fault is something that can be wrong with a server.
type fault struct {
	name string
	// local and fault are what the checks of the IPv4 VIP make of it; reasons, how probes may end.
	local, fault string
	reasons      []string
	inject, heal func(t *testing.T, b *bed, s *rig.Node)
}

func faults(decap **rig.Process) []fault {
	return []fault{
		{"no VIP", "down", "vip_missing", []string{"timeout"}, ip("addr", "del", vip4().String()+"/32", "dev", "lo"), ip("addr", "add", vip4().String()+"/32", "dev", "lo")},
		{"no decapsulation", "down", "decapsulation_missing", []string{"timeout"},
			func(t *testing.T, _ *bed, _ *rig.Node) {
				if err := (*decap).Stop(time.Second); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, b *bed, s *rig.Node) { *decap = b.decapsulate(t, s) }},
		{"accepts and never answers", "down", "service_down", []string{"no_answer", "timeout"}, signal(syscall.SIGSTOP), signal(syscall.SIGCONT)},
		{"packets over 1400 bytes are lost", "up", "path_mtu", []string{"ok"},
			ip("link", "set", rig.ServerInterface, "mtu", "1400"), ip("link", "set", rig.ServerInterface, "mtu", "1600")},
	}
}

func ip(args ...string) func(*testing.T, *bed, *rig.Node) {
	return func(t *testing.T, _ *bed, s *rig.Node) {
		t.Helper()
		if _, err := s.Run(within(t), "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
}

func signal(sig syscall.Signal) func(*testing.T, *bed, *rig.Node) {
	return func(t *testing.T, b *bed, s *rig.Node) {
		t.Helper()
		if err := b.webs[s].Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
}

// decapsulate starts remora decap in a server for the VIPs.
func (b *bed) decapsulate(t *testing.T, s *rig.Node) *rig.Process {
	t.Helper()
	p, err := b.remora.StartDecap(within(t), s, []netip.Addr{s.IPv4}, []netip.Addr{vip4(), vip6()})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHealthFaults injects one fault after another into a server, and takes each away again.
func TestHealthFaults(t *testing.T) {
	require.Tools(t, "ip", "nft")
	b := newBed(t, rig.Config{})
	var decap *rig.Process
	for _, s := range b.Servers {
		web, err := s.StartNginx(within(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		b.webs[s] = web
		decap = b.decapsulate(t, s)
	}
	sick := b.Servers[len(b.Servers)-1]
	b.writeChecked(t, tunnels()[0], quickChecks+", kind: http, full_size: 1s")
	b.startDaemon(t)
	for _, f := range faults(&decap) {
		t.Run(f.name, func(t *testing.T) {
			b.awaitVerdict(t, vip4(), sick, "up", "")
			f.inject(t, b, sick)
			got := b.awaitVerdict(t, vip4(), sick, f.local, f.fault)
			if !slices.Contains(f.reasons, got.Reason) {
				t.Errorf("reason %q, want one of %q", got.Reason, f.reasons)
			}
			f.heal(t, b, sick)
			b.awaitVerdict(t, vip4(), sick, "up", "")
		})
	}
	t.Run("half of the packets lost", func(t *testing.T) {
		// A lost SYN comes again after a second, later than these checks wait: most probes fail.
		const rules = "table inet loss { chain in { type filter hook prerouting priority 0; numgen random mod 2 0 drop; }; }"
		if _, err := sick.Run(within(t), "nft", rules); err != nil {
			t.Fatal(err)
		}
		b.logged(t, len(b.daemon.Output()), "real is down")
		if _, err := sick.Run(within(t), "nft", "delete table inet loss"); err != nil {
			t.Fatal(err)
		}
		b.awaitVerdict(t, vip4(), sick, "up", "")
	})
}

// connects tries to connect from the balancer, with a mark, to port 80 of an address.
func (b *bed) connects(t *testing.T, to netip.Addr, mark uint32) error {
	t.Helper()
	probe, err := healthcheck.TCP{}.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return b.balancer.Do(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if r := probe.Check(ctx, healthcheck.Target{Addr: netip.AddrPortFrom(to, 80), Mark: mark}); !r.OK() {
			return errors.New(r.String())
		}
		return nil
	})
}

// TestHealthLeavesNothing: while the daemon runs, packets with a mark of the range and no real are
// dropped and those of another program pass; all pass once it was killed. All backends that fail at
// once stay in service.
func TestHealthLeavesNothing(t *testing.T) {
	const ours, others = 0x72fffff0, 0x71fffff0
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.writeChecked(t, tunnels()[0], quickChecks)
	b.startDaemon(t)
	server := b.Servers[0].IPv4
	if err := b.connects(t, server, ours); err == nil {
		t.Error("a packet with an unknown mark of the range passes")
	}
	for _, mark := range []uint32{0, others} {
		if err := b.connects(t, server, mark); err != nil {
			t.Errorf("mark %#x: %v", mark, err)
		}
	}
	for _, web := range b.webs {
		if err := web.Stop(time.Second); err != nil {
			t.Fatal(err)
		}
	}
	b.logged(t, 0, "health of the VIP is fail open")
	b.awaitActive(t, "fail-open", b.Servers)
	for _, n := range b.Servers {
		if _, err := n.StartNginx(within(t), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the program to go with its process", func() error { return b.connects(t, server, ours) })
	b.assertShared(t, vip4(), b.Servers...)
}

// TestHealthReload: verdicts survive a reload of the same file, and a restart.
func TestHealthReload(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.writeChecked(t, tunnels()[0], quickChecks)
	b.startDaemon(t)
	sick, others := b.Servers[0], b.Servers[1:]
	b.awaitVerdict(t, vip4(), sick, "up", "")
	if err := b.webs[sick].Stop(time.Second); err != nil {
		t.Fatal(err)
	}
	b.awaitVerdict(t, vip4(), sick, "down", "service_down")
	b.awaitVerdict(t, vip6(), sick, "down", "service_down")
	skip := len(b.daemon.Output())
	b.hup(t)
	b.logged(t, skip, "configuration is reloaded")
	b.awaitActive(t, "the same after a reload", others)
	if err := b.daemon.Stop(waitTimeout); err != nil {
		t.Fatal(err)
	}
	b.startDaemon(t)
	b.assertShared(t, vip4(), others...)
	b.awaitVerdict(t, vip4(), sick, "down", "service_down")
	if _, err := sick.StartNginx(within(t), 1); err != nil {
		t.Fatal(err)
	}
	b.awaitVerdict(t, vip4(), sick, "up", "")
}
