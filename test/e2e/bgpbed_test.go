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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
	"github.com/remora-lb/remora/test/routers"
)

const routerASN = 65000

// bgpWait is how long a test waits for what routers do. Establishing takes up to 15 s.
const bgpWait = 60 * time.Second

// router is what the tests need of FRR and BIRD alike.
type router interface {
	NextHops(ctx context.Context, p netip.Prefix) ([]netip.Addr, error)
	Count(ctx context.Context) (int, error)
	Monitor(ctx context.Context) (*routers.Monitor, error)
}

// bgpBed is a lab in which the router learns from two balancers where VIPs are.
type bgpBed struct {
	// bed is that of the first balancer; pair has both.
	*bed
	pair   [2]*bed
	kind   string
	router router
	cfg    routers.Config
	// more is added to the bgp section of each balancer.
	more [2]string
	// password is the key that each balancer has; empty for none.
	password [2]string
}

// eachBGPRouter runs a test with each kind of router, at the same time: they mostly wait.
func eachBGPRouter(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{"FRR", "BIRD"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// newBGPBed starts the servers and the router; no balancer runs yet.
func newBGPBed(t *testing.T, kind string, cfg routers.Config, password string) *bgpBed {
	t.Helper()
	require.Root(t)
	require.Tools(t, "ip", "vtysh", "bird", "birdc")
	first := newBed(t, rig.Config{Balancers: 2})
	b := &bgpBed{bed: first, kind: kind, cfg: cfg}
	b.pair = [2]*bed{first, newBalancer(t, first.Lab, first.Balancers[1])}
	first.startServers(t, ipv4)
	for _, vip := range b.prefixes() { // the lab's own routes
		if _, err := b.Router.Run(within(t), "ip", "route", "del", vip.String()); err != nil {
			t.Fatal(err)
		}
	}
	b.cfg.ASN, b.cfg.RouterID = routerASN, netip.MustParseAddr("10.255.0.1")
	b.cfg.Accept = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8:ff::/48")}
	for i, n := range b.Balancers {
		b.password[i] = password
		for _, a := range []netip.Addr{n.IPv4, n.IPv6} {
			b.cfg.Neighbors = append(b.cfg.Neighbors, routers.Neighbor{Address: a, ASN: balancerASN(i), Password: password})
		}
	}
	b.startRouter(t)
	return b
}

func balancerASN(i int) uint32 { return routerASN + 1 + uint32(i) }

func (b *bgpBed) prefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(vip4(), 32), netip.PrefixFrom(vip6(), 128)}
}

func (b *bgpBed) startRouter(t *testing.T) {
	t.Helper()
	var err error
	if b.kind == "BIRD" {
		b.router, err = routers.StartBIRD(within(t), b.Lab, b.Router, b.cfg)
	} else {
		b.router, err = routers.StartFRR(within(t), b.Lab, b.Router, b.cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// restartRouter kills the router's daemon and starts it again.
func (b *bgpBed) restartRouter(t *testing.T) {
	t.Helper()
	switch r := b.router.(type) {
	case *routers.FRR:
		require.NoError(t, r.Kill("bgpd"))
		require.NoError(t, r.Start(within(t), "bgpd"))
	case *routers.BIRD:
		require.NoError(t, r.Kill())
		require.NoError(t, r.Start(within(t)))
	}
}

// uptime is a text that changes when the session of a balancer's address does.
func (b *bgpBed) uptime(t *testing.T, neighbor netip.Addr) string {
	t.Helper()
	switch r := b.router.(type) {
	case *routers.FRR:
		p, err := r.Peering(within(t), neighbor)
		if err != nil {
			t.Fatal(err)
		}
		if p.State != "Established" {
			return ""
		}
		return fmt.Sprintf("established %d times, dropped %d times", p.Count, p.Dropped)
	case *routers.BIRD:
		since, err := r.Established(within(t), neighbor)
		if err != nil {
			t.Fatal(err)
		}
		return since
	}
	t.Fatalf("unknown router %T", b.router)
	return ""
}

// uptimes are those of all sessions of balancer i.
func (b *bgpBed) uptimes(t *testing.T, i int) []string {
	t.Helper()
	n := b.Balancers[i]
	return []string{b.uptime(t, n.IPv4), b.uptime(t, n.IPv6)}
}

// configure writes the configuration of balancer i: the usual service, with extra services as YAML.
func (b *bgpBed) configure(t *testing.T, i int, backends []string, services string) {
	t.Helper()
	n := b.Balancers[i]
	var text strings.Builder
	fmt.Fprintf(&text, "bgp:\n  asn: %d\n  router_id: %v\n%s  announce: {drain: 2s, withdraw: 1s, degraded_below: 60, degraded_hold: 0s, damping: {suppress: 0}}\n  peers:\n",
		balancerASN(i), n.IPv4, b.more[i])
	for _, a := range []netip.Addr{netip.PrefixFrom(n.IPv4, 24).Masked().Addr().Next(), netip.PrefixFrom(n.IPv6, 64).Masked().Addr().Next()} {
		fmt.Fprintf(&text, "    - {address: %q, asn: %d, hold: 3s, connect_retry: 1s, idle: 1s%s%s}\n", a, routerASN, b.key(t, i), b.bfd())
	}
	b.pair[i].writeText(t, webConfig(text.String(), "tcp", backends...)+services)
}

func (b *bgpBed) bfd() string {
	if b.cfg.BFDInterval == 0 {
		return ""
	}
	return fmt.Sprintf(", bfd: {interval: %v}", b.cfg.BFDInterval)
}

// key is the field for a balancer's password.
func (b *bgpBed) key(t *testing.T, i int) string {
	t.Helper()
	if b.password[i] == "" {
		return ""
	}
	file := filepath.Join(b.Dir, fmt.Sprintf("key%d", i))
	if err := os.WriteFile(file, []byte(b.password[i]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(", password_file: %q", file)
}

// servers are the addresses of all servers, as backends.
func (b *bgpBed) servers() (backends []string) {
	for _, s := range b.Servers {
		backends = append(backends, s.IPv4.String())
	}
	return backends
}

// startBoth starts both balancers and waits until the router sends to both.
func (b *bgpBed) startBoth(t *testing.T) {
	t.Helper()
	for i := range b.pair {
		b.configure(t, i, b.servers(), "")
		b.pair[i].startDaemon(t)
	}
	b.routed(t, 0, 1)
}

// eventually waits for what routers do.
func eventually(t *testing.T, what string, reached func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bgpWait)
	defer cancel()
	require.NoError(t, rig.WaitFor(ctx, what, func() error { return reached(ctx) }))
}

// routed waits until the router sends the usual VIPs to exactly these balancers.
func (b *bgpBed) routed(t *testing.T, balancers ...int) {
	t.Helper()
	for _, p := range b.prefixes() {
		b.via(t, p, balancers...)
	}
}

func (b *bgpBed) via(t *testing.T, p netip.Prefix, balancers ...int) {
	t.Helper()
	want := []netip.Addr{}
	for _, i := range balancers {
		if p.Addr().Is4() {
			want = append(want, b.Balancers[i].IPv4)
		} else {
			want = append(want, b.Balancers[i].IPv6)
		}
	}
	eventually(t, fmt.Sprintf("%v by way of %v", p, want), func(ctx context.Context) error {
		hops, err := b.router.NextHops(ctx, p)
		if err == nil && !slices.Equal(hops, want) {
			err = fmt.Errorf("next hops are %v", hops)
		}
		return err
	})
}

// announcement is how a VIP stands in a balancer's status.
type announcement struct {
	VIP, State, Code, Reason string
	Announced                bool
}

// bgpStatus is the BGP part of a balancer's status.
type bgpStatus struct {
	Drained  bool
	Sessions []struct{ Peer, State, BFD string }
	VIPs     []announcement
}

func (b *bed) bgpStatus(ctx context.Context) (s bgpStatus, err error) {
	command := b.remora.Status("-o", "json", "--interval", "0s", "--socket", b.remora.Socket())
	out, err := b.balancer.Run(ctx, command[0], command[1:]...)
	if err != nil {
		return s, err
	}
	var all struct{ BGP *bgpStatus }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return s, fmt.Errorf("read status: %v", err)
	}
	if all.BGP == nil {
		return s, errors.New("the status has nothing of BGP")
	}
	return *all.BGP, nil
}

// stands waits until all VIPs of a balancer are in a state, for a reason with this code.
func (b *bed) stands(t *testing.T, state, code string) {
	t.Helper()
	eventually(t, "VIPs to be "+state, func(ctx context.Context) error {
		s, err := b.bgpStatus(ctx)
		if err != nil {
			return err
		}
		for _, v := range s.VIPs {
			if v.State != "ANNOUNCE_STATE_"+strings.ToUpper(state) || v.Code != code {
				return fmt.Errorf("VIP %+v", v)
			}
		}
		if len(s.VIPs) == 0 {
			return errors.New("there are none")
		}
		return nil
	})
}

// clientTraffic is requests to both VIPs, one after another, and two long downloads.
type clientTraffic struct {
	stop      string
	loops     []*rig.Process
	downloads []*rig.Process
}

// begin starts traffic and waits until it flows.
func (b *bgpBed) begin(t *testing.T) *clientTraffic {
	t.Helper()
	tr := &clientTraffic{stop: filepath.Join(t.TempDir(), "stop")}
	for _, vip := range []netip.Addr{vip4(), vip6()} {
		// Bounded by the number of requests.
		loop := fmt.Sprintf(`i=0; while [ ! -e %s ] && [ $i -lt 20000 ]; do i=$((i+1)); curl -sS --fail --max-time 3 -o /dev/null '%s' && echo ok || echo lost; done`,
			tr.stop, url(vip, "/"))
		p, err := b.Client.Start("sh", "-c", loop)
		require.NoError(t, err)
		tr.loops = append(tr.loops, p)
		p, err = b.Client.Start("curl", "-sS", "--fail", "--max-time", "60", "--limit-rate", "1M", "-o", "/dev/null", "-w", "%{size_download}", url(vip, "/large"))
		require.NoError(t, err)
		tr.downloads = append(tr.downloads, p)
	}
	tr.flows(t)
	return tr
}

// flows waits until each loop has made more requests.
func (tr *clientTraffic) flows(t *testing.T) {
	t.Helper()
	for _, p := range tr.loops {
		before := strings.Count(p.Output(), "ok\n")
		waitFor(t, "requests", func() error {
			if now := strings.Count(p.Output(), "ok\n"); now < before+10 {
				return fmt.Errorf("%d so far", now-before)
			}
			return nil
		})
	}
}

// end ends the loops, waits for the downloads, and returns how many requests were made and lost, and
// what the losses said.
func (tr *clientTraffic) end(t *testing.T) (made, lost int, why string) {
	t.Helper()
	require.NoError(t, os.WriteFile(tr.stop, nil, 0o600))
	for _, p := range slices.Concat(tr.loops, tr.downloads) {
		select {
		case <-p.Done():
		case <-time.After(bgpWait):
			t.Fatalf("%v does not end: %s", p.Command(), p.Output())
		}
	}
	for _, p := range tr.loops {
		out := p.Output()
		lost += strings.Count(out, "lost\n")
		made += strings.Count(out, "ok\n") + strings.Count(out, "lost\n")
		why += strings.ReplaceAll(out, "ok\n", "")
	}
	for _, p := range tr.downloads {
		if p.Output() != fmt.Sprint(largeBytes) {
			lost++
			why += "download: " + p.Output()
		}
	}
	return made, lost, why
}
