// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// What all tests share: the router's AS number, those of the speakers are one and two greater.
const routerASN = 65000

// testTimeout is how long a test waits for a condition. Establishing takes up to about 15 s:
// after a refused connection GoBGP pauses for 5 s.
const testTimeout = 40 * time.Second

func vip4() netip.Prefix { return netip.MustParsePrefix("192.0.2.10/32") }
func vip6() netip.Prefix { return netip.MustParsePrefix("2001:db8:ff::10/128") }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// eventually fails the test unless the condition is reached in time.
func eventually(t *testing.T, what string, reached func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	require.NoError(t, rig.WaitFor(ctx, what, func() error { return reached(ctx) }))
}

// router is what the tests need of FRR and BIRD alike.
type router interface {
	NextHops(ctx context.Context, p netip.Prefix) ([]netip.Addr, error)
	Count(ctx context.Context) (int, error)
	Monitor(ctx context.Context) (*Monitor, error)
	// established is a text that changes when the session with a neighbour does.
	established(ctx context.Context, neighbor netip.Addr) (string, error)
	logs() string
}

func (r *FRR) established(ctx context.Context, neighbor netip.Addr) (string, error) {
	p, err := r.Peering(ctx, neighbor)
	if err != nil || p.State != "Established" {
		return "", errors.Join(err, fmt.Errorf("session with %v is %q", neighbor, p.State))
	}
	return fmt.Sprintf("established %d times, dropped %d times", p.Count, p.Dropped), nil
}

func (r *FRR) logs() string { return r.Logs("bgpd") }

func (r *BIRD) established(ctx context.Context, neighbor netip.Addr) (string, error) {
	since, err := r.Established(ctx, neighbor)
	if err != nil || since == "" {
		return "", errors.Join(err, fmt.Errorf("session with %v is not established", neighbor))
	}
	return "since " + since, nil
}

func (r *BIRD) logs() string { return r.Logs() }

// bed is a lab with a router and speakers.
type bed struct {
	lab    *rig.Lab
	router router
}

// newBed starts a lab with two balancers and, in its router's namespace, a router. The
// neighbours are filled in if the configuration has none: all addresses of the balancers.
func newBed(t *testing.T, kind string, cfg Config) *bed {
	t.Helper()
	require.Root(t)
	require.Tools(t, "ip")
	lab, err := rig.New(rig.Config{Balancers: 2, Servers: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Close()) })
	b := &bed{lab: lab}
	cfg.ASN, cfg.RouterID = routerASN, netip.MustParseAddr("10.255.0.1")
	cfg.Accept = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("2001:db8:ff::/48")}
	if cfg.Neighbors == nil {
		for i, lb := range lab.Balancers {
			for _, a := range []netip.Addr{lb.IPv4, lb.IPv6} {
				cfg.Neighbors = append(cfg.Neighbors, Neighbor{Address: a, ASN: speakerASN(i)})
			}
		}
	}
	b.router = startRouter(t, kind, lab, cfg)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s wrote:\n%s", kind, tail(b.router.logs()))
		}
	})
	return b
}

func startRouter(t *testing.T, kind string, lab *rig.Lab, cfg Config) (r router) {
	t.Helper()
	var err error
	if kind == "BIRD" {
		require.Tools(t, "bird", "birdc")
		r, err = StartBIRD(testContext(t), lab, lab.Router, cfg)
	} else {
		require.Tools(t, "vtysh")
		if !FRRInstalled() {
			t.Fatal("vtysh is there, and FRR's daemons are not")
		}
		r, err = StartFRR(testContext(t), lab, lab.Router, cfg)
	}
	require.NoError(t, err)
	return r
}

func speakerASN(i int) uint32 { return routerASN + 1 + uint32(i) }

// config is the configuration of the speaker in balancer i, with a session of each family.
func (b *bed) config(i int) speakerConfig {
	cfg := speakerConfig{ASN: speakerASN(i), RouterID: b.lab.Balancers[i].IPv4}
	for _, a := range []netip.Addr{b.gateway4(i), b.gateway6(i)} {
		cfg.Peers = append(cfg.Peers, bgp.Peer{Address: a, ASN: routerASN, HoldTime: 3 * time.Second, ConnectRetryTime: time.Second, IdleTime: time.Second})
	}
	return cfg
}

// gateway4 and gateway6 are the router's addresses towards balancer i.
func (b *bed) gateway4(i int) netip.Addr {
	return netip.PrefixFrom(b.lab.Balancers[i].IPv4, 24).Masked().Addr().Next()
}

func (b *bed) gateway6(i int) netip.Addr {
	return netip.PrefixFrom(b.lab.Balancers[i].IPv6, 64).Masked().Addr().Next()
}

// start starts the speaker in balancer i with these routes and waits until its sessions are there.
func (b *bed) start(t *testing.T, i int, cfg speakerConfig, routes ...bgp.Route) *speaker {
	t.Helper()
	s := startSpeaker(t, b.lab, b.lab.Balancers[i], cfg)
	s.announce(t, routes...)
	s.waitEstablished(t)
	return s
}

// routed waits until the router's kernel sends the prefix to exactly these balancers.
func (b *bed) routed(t *testing.T, p netip.Prefix, balancers ...int) {
	t.Helper()
	want := []netip.Addr{}
	for _, i := range balancers {
		if p.Addr().Is4() {
			want = append(want, b.lab.Balancers[i].IPv4)
		} else {
			want = append(want, b.lab.Balancers[i].IPv6)
		}
	}
	b.via(t, p, want...)
}

// via waits until the router's kernel has exactly these next hops for the prefix.
func (b *bed) via(t *testing.T, p netip.Prefix, want ...netip.Addr) {
	t.Helper()
	slices.SortFunc(want, netip.Addr.Compare)
	eventually(t, fmt.Sprintf("%v by way of %v", p, want), func(ctx context.Context) error {
		hops, err := b.router.NextHops(ctx, p)
		if err == nil && !slices.Equal(hops, want) {
			err = fmt.Errorf("next hops are %v", hops)
		}
		return err
	})
}

// eachRouter runs a test with each kind of router, all at the same time: they mostly wait.
func eachRouter(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range []string{"FRR", "BIRD"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// processes are the daemons of the router that speak to its neighbours.
func (b *bed) processes(t *testing.T) []*rig.Process {
	t.Helper()
	switch r := b.router.(type) {
	case *FRR:
		return []*rig.Process{r.processes["bgpd"], r.processes["bfdd"]}
	case *BIRD:
		return []*rig.Process{r.process}
	}
	t.Fatalf("unknown router %T", b.router)
	return nil
}
