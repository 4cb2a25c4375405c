// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// waitTimeout is how long a test waits for anything.
const waitTimeout = 20 * time.Second

// largeBytes is the size of the servers' large file.
const largeBytes = 5_000_000

func vip4() netip.Addr { return netip.MustParseAddr("192.0.2.10") }
func vip6() netip.Addr { return netip.MustParseAddr("2001:db8:ff::10") }

// bed is a lab with the program under test.
type bed struct {
	*rig.Lab
	// balancer is where the program runs, as the instance remora.
	balancer *rig.Node
	remora   rig.Remora
	// config is the path of the balancer's configuration.
	config string
	daemon *rig.Process
	webs   map[*rig.Node]*rig.Web
}

// newBed builds a lab for the default VIPs in which nothing runs yet.
func newBed(t *testing.T, cfg rig.Config) *bed {
	t.Helper()
	require.Root(t)
	require.Tools(t, "nginx", "curl", "setpriv")
	cfg.VIPs = []netip.Addr{vip4(), vip6()}
	lab, err := rig.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return newBalancer(t, lab, lab.Balancers[0])
}

// newBalancer is the program on one balancer of a lab.
func newBalancer(t *testing.T, lab *rig.Lab, n *rig.Node) *bed {
	t.Helper()
	b := &bed{
		Lab:      lab,
		balancer: n,
		remora:   newRemora(lab, n),
		config:   filepath.Join(lab.Dir, n.Name+".yaml"),
		webs:     make(map[*rig.Node]*rig.Web),
	}
	t.Cleanup(func() {
		if t.Failed() && b.daemon != nil {
			t.Logf("%s wrote:\n%s", n.Name, b.daemon.Output())
		}
	})
	return b
}

// newRemora is the program as an instance for one balancer, which goes with the lab.
func newRemora(lab *rig.Lab, lb *rig.Node) rig.Remora {
	r := rig.Remora{Binary: os.Getenv(binaryVariable), Instance: "e2e-" + lb.Namespace, StateDir: filepath.Join(lab.Dir, "state"), RunDir: lab.Dir}
	lab.OnClose(r.RemovePins)
	return r
}

// within is a context for a wait.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTimeout)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits for a condition and fails the test if it does not come.
func waitFor(t *testing.T, what string, reached func() error) {
	t.Helper()
	if err := rig.WaitFor(within(t), what, reached); err != nil {
		t.Fatal(err)
	}
}

// startServers starts nginx and remora decap on all servers; decap accepts packets to the address
// of each server that pick chooses.
func (b *bed) startServers(t *testing.T, pick func(*rig.Node) netip.Addr) {
	t.Helper()
	for _, n := range b.Servers {
		web, err := n.StartNginx(within(t), largeBytes)
		if err != nil {
			t.Fatal(err)
		}
		b.webs[n] = web
		b.startDecap(t, n, pick(n))
	}
}

func (b *bed) startDecap(t *testing.T, n *rig.Node, addr netip.Addr) {
	t.Helper()
	if _, err := b.remora.StartDecap(within(t), n, []netip.Addr{addr}, []netip.Addr{vip4(), vip6()}); err != nil {
		t.Fatal(err)
	}
}

func ipv4(n *rig.Node) netip.Addr { return n.IPv4 }
func ipv6(n *rig.Node) netip.Addr { return n.IPv6 }

// write writes the balancer's configuration: a service with both VIPs and these servers.
func (b *bed) write(t *testing.T, servers []*rig.Node, pick func(*rig.Node) netip.Addr, more string) {
	t.Helper()
	var backends []string
	for _, s := range servers {
		backends = append(backends, fmt.Sprintf("%q", pick(s)))
	}
	b.writeText(t, webConfig(more, "tcp", backends...))
}

// webConfig is a configuration of a service with both VIPs on port 80, and these backends, each
// written as in YAML.
func webConfig(more, protocol string, backends ...string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "interface: %s\n%s", rig.BalancerInterface, more)
	fmt.Fprintf(&text, "services:\n  - name: web\n    vips:\n")
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		fmt.Fprintf(&text, "      - %q\n", netip.AddrPortFrom(vip, 80).String()+"/"+protocol)
	}
	fmt.Fprintf(&text, "    backends:\n")
	for _, b := range backends {
		fmt.Fprintf(&text, "      - %s\n", b)
	}
	return text.String()
}

func (b *bed) writeText(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// launchDaemon starts the balancer.
func (b *bed) launchDaemon(t *testing.T) {
	t.Helper()
	command := b.remora.Run(b.config)
	p, err := b.balancer.Start(command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	b.daemon = p
}

// startDaemon starts the balancer and waits until it forwards.
func (b *bed) startDaemon(t *testing.T) {
	t.Helper()
	b.launchDaemon(t)
	b.awaitReals(t, "a running balancer", func(realUses) bool { return true })
}

// start starts the servers and a balancer for all of them, with IPv4 in the outer headers.
func (b *bed) start(t *testing.T) {
	t.Helper()
	b.startServers(t, ipv4)
	b.write(t, b.Servers, ipv4, "")
	b.startDaemon(t)
}

// reload has the daemon read its configuration again and waits until these servers get new
// connections, and no others.
func (b *bed) reload(t *testing.T, servers []*rig.Node) {
	t.Helper()
	b.hup(t)
	b.awaitActive(t, "reload", servers)
}

// hup has the daemon read its configuration again.
func (b *bed) hup(t *testing.T) {
	t.Helper()
	if err := b.daemon.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// awaitActive waits until these servers get new connections, and no others.
func (b *bed) awaitActive(t *testing.T, what string, servers []*rig.Node) {
	t.Helper()
	b.awaitReals(t, what, func(uses realUses) bool {
		for _, s := range servers {
			if uses[s.IPv4.String()] != "active" {
				return false
			}
			delete(uses, s.IPv4.String())
		}
		for _, use := range uses {
			if use == "active" {
				return false
			}
		}
		return true
	})
}

// awaitGone waits until nothing is left of a server.
func (b *bed) awaitGone(t *testing.T, s *rig.Node) {
	t.Helper()
	b.awaitReals(t, "the end of "+s.Name, func(uses realUses) bool { return uses[s.IPv4.String()] == "" })
}

// realUses is what reals may get, by their address: active, draining or retired.
type realUses map[string]string

// awaitReals waits until the daemon is the writer and the uses of the reals in its status are as
// wanted, and those that are active have a next hop.
func (b *bed) awaitReals(t *testing.T, what string, wanted func(realUses) bool) {
	t.Helper()
	waitFor(t, what, func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		s, err := b.status(t.Context())
		if err != nil {
			return err
		}
		if s.DaemonPID != b.daemon.Pid() {
			return fmt.Errorf("the status names process %d, not %d", s.DaemonPID, b.daemon.Pid())
		}
		var errs []error
		for _, v := range s.VIPs {
			uses := make(realUses)
			for _, r := range v.Reals {
				if r.Use == "active" && r.State != "ok" {
					errs = append(errs, fmt.Errorf("real %s of %s is %q", r.Address, v.VIP, r.State))
				}
				uses[r.Address] = r.Use
			}
			if shown := fmt.Sprint(uses); !wanted(uses) {
				errs = append(errs, fmt.Errorf("%s has the reals %s", v.VIP, shown))
			}
		}
		if len(s.VIPs) == 0 {
			errs = append(errs, errors.New("the status has no VIP"))
		}
		return errors.Join(errs...)
	})
}

// status is what the tests need of remora status -o json.
type status struct {
	DaemonPID int    `json:"daemon_pid"`
	Mode      string `json:"mode"`
	VIPs      []struct {
		VIP     string `json:"vip"`
		Packets uint64 `json:"packets"`
		// Slots are those of the ring, by state.
		Slots map[string]int `json:"slots"`
		Reals []struct {
			Address string `json:"address"`
			State   string `json:"state"`
			Use     string `json:"use"`
			Flows   int    `json:"flows"`
			Packets uint64 `json:"packets"`
		} `json:"reals"`
	} `json:"vips"`
	Flows struct {
		Used int `json:"used"`
	} `json:"flow_table"`
	Reasons map[string]uint64 `json:"reasons"`
}

func (b *bed) status(ctx context.Context) (status, error) {
	var s status
	command := b.remora.Status("-o", "json", "--interval", "0s")
	out, err := b.balancer.Run(ctx, command[0], command[1:]...)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("read status: %v", err)
	}
	return s, nil
}

// logged waits until the daemon has written something that contains text after the first skip
// bytes.
func (b *bed) logged(t *testing.T, skip int, text string) {
	t.Helper()
	waitFor(t, fmt.Sprintf("%q in the log", text), func() error {
		if err := b.daemon.Running(); err != nil {
			return err
		}
		if !strings.Contains(b.daemon.Output()[skip:], text) {
			return errors.New("not there")
		}
		return nil
	})
}
