// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb/explain"
	"github.com/remora-lb/remora/test/rig"
)

// explained is what the daemon says of a packet.
func (b *bed) explained(t *testing.T, args ...string) explain.Report {
	t.Helper()
	var r explain.Report
	out := b.control(t, append([]string{"explain", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("read %q: %v", out, err)
	}
	return r
}

// TestExplain explains packets of real connections, and others that do not get through.
func TestExplain(t *testing.T) {
	b := newBed(t, rig.Config{})
	b.start(t)
	t.Run("real connections", func(t *testing.T) { b.explainConnections(t) })
	t.Run("server", func(t *testing.T) { b.explainServer(t) })
	t.Run("plan", func(t *testing.T) { b.planChanges(t) })
	t.Run("wrong port", func(t *testing.T) {
		r := b.explained(t, fmt.Sprintf("tcp 198.51.100.7:50000 -> %s:8080 syn", vip4()))
		if r.Reason != "not_vip" || !strings.Contains(r.Why, tcp80(vip4()).String()) {
			t.Errorf("%s: %s", r.Reason, r.Why)
		}
	})
	t.Run("no next hop", func(t *testing.T) { b.explainNoNextHop(t) })
	t.Run("no daemon", func(t *testing.T) { b.explainAlone(t) })
}

// explainConnections demands that what is explained of connections is where they went.
func (b *bed) explainConnections(t *testing.T) {
	byAddr := make(map[string]string)
	for _, s := range b.Servers {
		byAddr[s.IPv4.String()] = s.Name
	}
	met := make(map[string]bool)
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		for range 10 {
			out := b.curl(t, "-w", " %{local_ip} %{local_port}", url(vip, "/"))
			words := strings.Fields(out)
			if len(words) != 3 {
				t.Fatalf("curl wrote %q", out)
			}
			addr := netip.MustParseAddr(words[1])
			packet := fmt.Sprintf("tcp %s -> %s syn", addrPort(addr, words[2]), netip.AddrPortFrom(vip, 80))
			r := b.explained(t, packet)
			if r.Real == nil || byAddr[r.Real.Address] != words[0] || r.Reason != "forwarded" {
				t.Errorf("%s answered %q, but %+v is explained: %s", words[0], packet, r.Real, r.Why)
			}
			met[words[0]] = true
		}
	}
	if len(met) < 2 {
		t.Errorf("only %v answered", met)
	}
}

func addrPort(addr netip.Addr, port string) string {
	if addr.Is6() {
		return "[" + addr.String() + "]:" + port
	}
	return addr.String() + ":" + port
}

// explainServer asks for packets that reach a server, and explains each.
func (b *bed) explainServer(t *testing.T) {
	one := b.Servers[0].IPv4.String()
	var r explain.RealReport
	out := b.control(t, "explain", "--real", one, "--examples", "3", "-o", "json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("read %q: %v", out, err)
	}
	if len(r.VIPs) != 2 || len(r.VIPs[0].Examples) != 3 || r.VIPs[0].Slots["stable"] == 0 {
		t.Fatalf("of two VIPs: %s", out)
	}
	for _, packet := range slices.Concat(r.VIPs[0].Examples, r.VIPs[1].Examples) {
		if p := b.explained(t, packet); p.Real == nil || p.Real.Address != one {
			t.Errorf("%s is for %+v, not %s", packet, p.Real, one)
		}
	}
	if _, err := b.tryControl(t, "explain", "--real", "10.20.0.99"); !exited(err, 1) || !strings.Contains(err.Error(), "10.20.0.99") {
		t.Errorf("an unknown server: %v", err)
	}
}

// planned is what would change.
func (b *bed) planned(t *testing.T, args ...string) (string, error) {
	t.Helper()
	command := append([]string{b.remora.Binary, "plan", "--instance", b.remora.Instance, "-c", b.config}, args...)
	return b.balancer.Run(within(t), command[0], command[1:]...)
}

// planChanges plans nothing, a drain, and a file with a server less.
func (b *bed) planChanges(t *testing.T) {
	if out, err := b.planned(t); err != nil || !strings.Contains(out, "no VIP changes") {
		t.Errorf("the present file: %v, %q", err, out)
	}
	one := b.Servers[0].IPv4.String()
	if out, err := b.planned(t, "--drain", tcp80(vip4()).String()+"/"+one); !exited(err, 2) {
		t.Errorf("a drain: %v, %q", err, out)
	}
	b.write(t, b.Servers[1:], ipv4, "")
	defer b.write(t, b.Servers, ipv4, "")
	if out, err := b.planned(t); !exited(err, 2) {
		t.Errorf("a server less: %v, %q", err, out)
	}
	if out, err := b.planned(t, "--weight", "192.0.2.10:80/tcp/10.20.0.99=3"); !exited(err, 1) {
		t.Errorf("a weight of nobody: %v, %q", err, out)
	}
}

// explainNoNextHop gives the VIP a server that is nowhere.
func (b *bed) explainNoNextHop(t *testing.T) {
	nowhere := "10.10.1.199" // on the balancer's link
	b.writeText(t, webConfig("", "tcp", nowhere))
	b.hup(t)
	packet := fmt.Sprintf("tcp 198.51.100.7:50000 -> %s:80 syn", vip4())
	waitFor(t, "the change", func() error {
		r := b.explained(t, packet)
		if r.Reason != "nexthop_unknown" || !strings.Contains(r.Why, nowhere) {
			return fmt.Errorf("%s: %s", r.Reason, r.Why)
		}
		return nil
	})
	b.write(t, b.Servers, ipv4, "")
	b.reload(t, b.Servers)
}

// explainAlone explains from the maps, and compares with the program.
func (b *bed) explainAlone(t *testing.T) {
	if err := b.daemon.Kill(); err != nil {
		t.Fatal(err)
	}
	packet := fmt.Sprintf("tcp 198.51.100.7:50000 -> %s:80 syn", vip4())
	for _, more := range [][]string{nil, {"--check"}} {
		command := append([]string{b.remora.Binary, "explain", packet, "--instance", b.remora.Instance, "--socket", b.Dir + "/none.sock"}, more...)
		out, err := b.balancer.Run(within(t), command[0], command[1:]...)
		if err != nil || !strings.Contains(out, "tx, forwarded") || !strings.Contains(out, "no daemon was asked") {
			t.Errorf("%v, %q", err, out)
		}
		if more != nil && !strings.Contains(out, "the loaded program agrees") {
			t.Errorf("compared: %q", out)
		}
	}
}
