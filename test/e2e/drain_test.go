// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/test/rig"
)

// drainConfig has a VIP of either family; connections to that of IPv6 are not remembered.
func drainConfig(servers []*rig.Node) string {
	text := fmt.Sprintf("interface: %s\nservices:\n  - name: web\n    vips:\n      - %s\n      - {vip: %q, flows: {tcp: never}}\n    backends:\n",
		rig.BalancerInterface, tcp80(vip4()), tcp80(vip6()))
	for _, s := range servers {
		text += fmt.Sprintf("      - %s\n", s.IPv4)
	}
	return text
}

// TestDrain drains servers of one VIP, by commands whose exit status tells how that went.
func TestDrain(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.startServers(t, ipv4)
	b.writeText(t, drainConfig(b.Servers))
	b.startDaemon(t)
	one, two, three := b.Servers[0], b.Servers[1], b.Servers[2]
	vip := tcp80(vip4()).String()

	t.Run("no connection", func(t *testing.T) {
		out := b.control(t, "drain", vip, one.IPv4.String(), "--timeout", "1s", "--wait")
		if !strings.Contains(out, one.IPv4.String()+": done") {
			t.Errorf("output %q", out)
		}
		b.assertShared(t, vip4(), two, three)
		out = b.control(t, "undrain", vip, one.IPv4.String())
		if !strings.Contains(out, "not drained any more") {
			t.Errorf("undrain: %q", out)
		}
		b.awaitRealUse(t, vip4(), one, "active")
		b.assertShared(t, vip4(), b.Servers...)
		if out := b.control(t, "undrain", vip, one.IPv4.String()); !strings.Contains(out, "was not drained") {
			t.Errorf("another undrain: %q", out)
		}
	})
	t.Run("killed daemon, and connections at the deadline", func(t *testing.T) { b.tryDeadline(t, two) })
	t.Run("deadline without a daemon", func(t *testing.T) { b.tryMissedDeadline(t, two) })
	// It is done as soon as the flow table was looked over; the rest of the test goes on meanwhile.
	stateless := b.startControl(t, "drain", tcp80(vip6()).String(), three.IPv4.String(), "--wait")
	t.Run("no such server", func(t *testing.T) {
		out, err := b.tryControl(t, "drain", vip, "10.20.0.99", "--wait")
		if !exited(err, 1) || !strings.Contains(err.Error(), "10.20.0.99") {
			t.Errorf("error %v, output %q", err, out)
		}
	})
	t.Run("ended by somebody else", func(t *testing.T) {
		waiting := b.startControl(t, "drain", vip, one.IPv4.String(), "--wait")
		waitFor(t, "the command to follow the drain", func() error {
			if !strings.Contains(waiting.Output(), ": draining") {
				return errors.Join(errors.New("nothing is printed"), waiting.Running())
			}
			return nil
		})
		b.control(t, "undrain", vip, one.IPv4.String())
		if err := end(t, waiting); !exited(err, 1) || !strings.Contains(err.Error(), "ended before it was done") {
			t.Error(err)
		}
	})
	if err := end(t, stateless); !strings.Contains(err.Error(), "without error") || !strings.Contains(err.Error(), ": done") {
		t.Errorf("drain of a server whose connections are not remembered: %v", err)
	}
	b.assertShared(t, vip6(), one, two)
}

// tryDeadline drains a server with connections, and demands that the drain is the same after the daemon
// was killed, and that the connections are reset at the deadline, not before, and no others.
func (b *bed) tryDeadline(t *testing.T, gone *rig.Node) {
	t.Helper()
	vip := tcp80(vip4()).String()
	var leaving, staying []*connection
	for i := range flowsPerVIP {
		c := b.connect(t, vip4(), firstFlowPort+i)
		if c.server == gone.Name {
			leaving = append(leaving, c)
		} else {
			staying = append(staying, c)
		}
	}
	if len(leaving) == 0 || len(staying) == 0 {
		t.Fatalf("%d connections on %s and %d on others", len(leaving), gone.Name, len(staying))
	}
	b.control(t, "drain", vip, gone.IPv4.String(), "--timeout", "1h")
	before := b.drain(t, vip, gone)
	b.killDaemon(t)
	b.startDaemon(t)
	b.logged(t, 0, "control API served")
	after := b.drain(t, vip, gone)
	b.awaitRealUse(t, vip4(), gone, "draining")
	if !after.Deadline.AsTime().Equal(before.Deadline.AsTime()) || !after.Since.AsTime().Equal(before.Since.AsTime()) {
		t.Errorf("after the restart it is\n%v\nbefore\n%v", after, before)
	}
	for _, c := range append(leaving, staying...) {
		c.assertStays(t)
	}
	if out, err := b.tryControl(t, "drain", vip, gone.IPv4.String(), "--timeout", "1s", "--wait"); !exited(err, 3) {
		t.Errorf("error %v, output %q, want exit status 3", err, out)
	}
	b.awaitRealUse(t, vip4(), gone, "retired")
	for _, c := range leaving {
		c.assertReset(t)
	}
	for _, c := range staying {
		c.assertStays(t)
	}
	b.control(t, "undrain", vip, gone.IPv4.String())
	b.awaitRealUse(t, vip4(), gone, "active")
	b.assertShared(t, vip4(), b.Servers...)
}

// tryMissedDeadline has the deadline of a drain come while no daemon runs.
func (b *bed) tryMissedDeadline(t *testing.T, gone *rig.Node) {
	t.Helper()
	vip := tcp80(vip4()).String()
	b.control(t, "drain", vip, gone.IPv4.String(), "--timeout", "10s")
	deadline := b.drain(t, vip, gone).Deadline.AsTime()
	b.killDaemon(t)
	waitFor(t, "the deadline", func() error {
		if left := time.Until(deadline); left > 0 {
			return fmt.Errorf("it comes in %v", left)
		}
		return nil
	})
	b.startDaemon(t)
	b.logged(t, 0, "control API served")
	b.awaitRealUse(t, vip4(), gone, "retired")
	out := b.control(t, "drains")
	if !strings.Contains(out, gone.IPv4.String()) || !strings.Contains(out, "deadline passed") {
		t.Errorf("the drains are\n%s", out)
	}
	b.control(t, "undrain", vip, gone.IPv4.String())
	b.awaitRealUse(t, vip4(), gone, "active")
	b.assertShared(t, vip4(), b.Servers...)
	if out := b.control(t, "drains"); !strings.Contains(out, "no backend is drained") {
		t.Errorf("afterwards the drains are\n%s", out)
	}
}

// assertReset demands that the next request on the connection is refused.
func (c *connection) assertReset(t *testing.T) {
	t.Helper()
	c.limit(t)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: vip\r\n\r\n")
	if err == nil {
		_, err = http.ReadResponse(c.in, nil)
	}
	if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%s on %s: error %v, want %v", c.LocalAddr(), c.server, err, syscall.ECONNRESET)
	}
}

// startControl starts a command that asks the daemon.
func (b *bed) startControl(t *testing.T, command ...string) *rig.Process {
	t.Helper()
	command = b.remora.Control(command...)
	p, err := b.balancer.Start(command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// end waits for the end of a process, and returns how it ended and what it wrote.
func end(t *testing.T, p *rig.Process) error {
	t.Helper()
	select {
	case <-p.Done():
	case <-within(t).Done():
		t.Fatalf("%v is still there: %s", p.Command(), p.Output())
	}
	return p.Running()
}

// awaitRealUse waits until a VIP's real has a use.
func (b *bed) awaitRealUse(t *testing.T, vip netip.Addr, n *rig.Node, use string) {
	t.Helper()
	waitFor(t, n.Name+" to be "+use, func() error {
		s, err := b.status(t.Context())
		if err != nil {
			return err
		}
		for _, v := range s.VIPs {
			for _, r := range v.Reals {
				if v.VIP == tcp80(vip).String() && r.Address == n.IPv4.String() && r.Use == use {
					return nil
				}
			}
		}
		return fmt.Errorf("the status is %+v", s.VIPs)
	})
}

// drain asks the daemon how far a drain is.
func (b *bed) drain(t *testing.T, vip string, n *rig.Node) (is *remorav1.DrainProgress) {
	t.Helper()
	ctx := within(t)
	c, err := control.Dial(ctx, b.remora.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	enough := errors.New("enough")
	err = c.WatchDrain(ctx, &remorav1.WatchDrainRequest{Vip: vip, Backend: n.IPv4.String()}, func(m *remorav1.WatchDrainResponse) error {
		is = m.Drains[0]
		return enough
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	return is
}
