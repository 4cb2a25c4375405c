// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// TestReload changes the configuration of a running balancer.
func TestReload(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	all, two := b.Servers, b.Servers[:2]
	b.assertShared(t, vip4(), all...)

	b.write(t, two, ipv4, "")
	b.reload(t, two)
	b.assertShared(t, vip4(), two...)
	b.assertShared(t, vip6(), two...)
	b.write(t, all, ipv4, "flows: {drain: 0s}\n")
	b.reload(t, all)
	b.write(t, two, ipv4, "flows: {drain: 0s}\n")
	b.reload(t, two)
	b.awaitGone(t, all[2])

	for _, tc := range []struct {
		name, text, log string
	}{
		{"not YAML", "services: [", "not valid YAML"},
		{"unknown field", "interface: lan0\nservices: []\nfrobnicate: yes\n", "frobnicate"},
		{"bad address", "interface: lan0\nservices:\n  - name: web\n    vips: [\"192.0.2.10:80/tcp\"]\n    backends: [10.20.0.999]\n", "10.20.0.999"},
		{"another interface", "interface: lan1\nservices: []\n", "lan1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			skip := len(b.daemon.Output())
			b.writeText(t, tc.text)
			if err := b.daemon.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			b.logged(t, skip, tc.log)
			b.assertShared(t, vip4(), two...)
		})
	}
	t.Run("no file", func(t *testing.T) {
		skip := len(b.daemon.Output())
		if err := os.Remove(b.config); err != nil {
			t.Fatal(err)
		}
		if err := b.daemon.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		b.logged(t, skip, "no such file")
		b.assertShared(t, vip6(), two...)
	})
	b.write(t, all, ipv4, "")
	b.reload(t, all)
	b.assertShared(t, vip4(), all...)
	b.assertShared(t, vip6(), all...)
}

// TestKilledDaemon kills the daemon in the middle of transfers; they go on, and the next daemon
// takes over.
func TestKilledDaemon(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	conns := b.connections(t, b.Servers...)
	up4, up6 := b.newUpload(t, vip4(), "four"), b.newUpload(t, vip6(), "six")
	const part = 1_000_000
	up4.send(t, part)
	up6.send(t, part)

	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	up4.send(t, part)
	up6.send(t, part)
	b.assertShared(t, vip4(), b.Servers...)
	b.assertShared(t, vip6(), b.Servers...)
	if s, err := b.status(within(t)); err != nil || s.DaemonPID != 0 {
		t.Errorf("without a daemon the status names process %d, error %v", s.DaemonPID, err)
	}

	b.startDaemon(t)
	up4.finish(t, b)
	up6.finish(t, b)
	for _, c := range conns {
		c.assertStays(t)
	}
	stay := b.Servers[:2]
	b.write(t, stay, ipv4, "")
	b.reload(t, stay)
	b.assertShared(t, vip4(), stay...)
}

// TestReloadDuringStart asks for a reload while the daemon still looks for a server that does not
// answer; it comes when the daemon has started.
func TestReloadDuringStart(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.config)
	if err != nil {
		t.Fatal(err)
	}
	b.writeText(t, string(text)+"      - 10.10.1.99\n")
	b.launchDaemon(t)
	waitFor(t, "the daemon to have the instance", func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		s, err := b.status(t.Context())
		if err == nil && s.DaemonPID != b.daemon.Pid() {
			return fmt.Errorf("process %d has it", s.DaemonPID)
		}
		return err
	})
	b.write(t, b.Servers[:2], ipv4, "")
	b.reload(t, b.Servers[:2])
	b.assertShared(t, vip4(), b.Servers[:2]...)
}

// TestStoppedDaemon stops the daemon in order; what it leaves is as configured.
func TestStoppedDaemon(t *testing.T) {
	for _, tc := range []struct {
		name, config string
		forwards     bool
	}{
		{"default", "", true},
		{"keep", "on_exit: keep\n", true},
		{"detach", "on_exit: detach\n", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t, rig.Config{Servers: 1})
			b.startServers(t, ipv4)
			b.write(t, b.Servers, ipv4, tc.config)
			b.startDaemon(t)
			b.assertShared(t, vip4(), b.Servers...)
			if err := b.daemon.Stop(waitTimeout); err != nil {
				t.Fatal(err)
			}
			if tc.forwards {
				b.assertShared(t, vip4(), b.Servers...)
				b.assertShared(t, vip6(), b.Servers...)
				return
			}
			if out, err := b.Client.Run(within(t), "curl", "-sS", "--max-time", "0.5", url(vip4(), "/")); err == nil {
				t.Errorf("detached, and still %q answers", out)
			}
		})
	}
}

// TestOnce applies a configuration and leaves no process.
func TestOnce(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.write(t, b.Servers, ipv4, "")
	command := b.remora.Run(b.config, "--once")
	for range 2 { // the second time there is nothing to do
		if out, err := b.balancer.Run(within(t), command[0], command[1:]...); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b.assertShared(t, vip4(), b.Servers...)
		b.assertShared(t, vip6(), b.Servers...)
	}
	b.write(t, b.Servers[:1], ipv4, "")
	if _, err := b.balancer.Run(within(t), command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
	b.assertShared(t, vip4(), b.Servers[0])
}

// TestDetach ends an instance for good, and only when no daemon has it.
func TestDetach(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.start(t)
	detach := func() (string, error) {
		out, err := exec.Command(b.remora.Binary, "detach", "--instance", b.remora.Instance).CombinedOutput()
		return string(out), err
	}
	if out, err := detach(); err == nil || !strings.Contains(out, "in use") {
		t.Errorf("detach under a daemon: error %v, output %q", err, out)
	}
	b.assertShared(t, vip4(), b.Servers...)
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	if out, err := detach(); err != nil {
		t.Errorf("detach: %v: %s", err, out)
	}
	if _, err := os.Stat(b.remora.PinDir()); !os.IsNotExist(err) {
		t.Errorf("after detach %s: %v", b.remora.PinDir(), err)
	}
	if out, err := b.Client.Run(within(t), "curl", "-sS", "--max-time", "0.5", url(vip4(), "/")); err == nil {
		t.Errorf("detached, and still %q answers", out)
	}
}

// TestServersComeLate starts without any service.
func TestServersComeLate(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 2})
	b.startServers(t, ipv4)
	b.writeText(t, "interface: lan0\nservices: []\n")
	b.launchDaemon(t)
	waitFor(t, "a running balancer", func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		_, err := b.status(t.Context())
		return err
	})
	b.write(t, b.Servers, ipv4, "")
	b.reload(t, b.Servers)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		b.assertShared(t, vip, b.Servers...)
	}
}
