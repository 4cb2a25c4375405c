// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
)

// route is a route with what a test changes.
func route(p netip.Prefix, change ...func(*bgp.Route)) bgp.Route {
	r := bgp.Route{Prefix: p, Communities: []bgp.Community{routerASN<<16 | 100}}
	for _, f := range change {
		f(&r)
	}
	return r
}

func both(change ...func(*bgp.Route)) []bgp.Route {
	return []bgp.Route{route(vip4(), change...), route(vip6(), change...)}
}

// unflapped returns a function that fails the test if a session of the balancers ended meanwhile.
func (b *bed) unflapped(t *testing.T) (check func()) {
	t.Helper()
	before := b.uptimes(t)
	return func() {
		t.Helper()
		if after := b.uptimes(t); !slices.Equal(before, after) {
			t.Errorf("sessions were %q, and are now %q", before, after)
		}
	}
}

func (b *bed) uptimes(t *testing.T) (all []string) {
	t.Helper()
	for _, lb := range b.lab.Balancers {
		for _, a := range []netip.Addr{lb.IPv4, lb.IPv6} {
			s, err := b.router.established(testContext(t), a)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a.String()+" "+s)
		}
	}
	return all
}

func TestAnnounce(t *testing.T) {
	t.Parallel()
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{})
		lb0 := b.start(t, 0, b.config(0), both()...)
		lb1 := b.start(t, 1, b.config(1), both()...)
		for _, p := range []netip.Prefix{vip4(), vip6()} {
			b.routed(t, p, 0, 1)
		}
		check := b.unflapped(t)
		defer check()

		t.Log("one balancer is degraded: the other one is preferred")
		lb0.announce(t, both(func(r *bgp.Route) { r.Prepend = 2; r.MED = 50 })...)
		b.routed(t, vip4(), 1)
		b.routed(t, vip6(), 1)
		b.sees(t, vip4(), 0, "65001 65001 65001", "50", "65000:100")
		lb0.announce(t, both()...)
		b.routed(t, vip4(), 0, 1)

		t.Log("one balancer is drained: first with the community, then without the routes")
		lb0.announce(t, both(func(r *bgp.Route) { r.Communities = append(r.Communities, bgp.GracefulShutdown) })...)
		b.routed(t, vip4(), 1)
		b.routed(t, vip6(), 1)
		b.sees(t, vip6(), 0, map[string]string{"FRR": "graceful-shutdown", "BIRD": "65535,0"}[kind])
		lb0.announce(t)
		b.unseen(t, vip4(), 0)
		b.routed(t, vip4(), 1)

		t.Log("the last one goes too")
		lb1.announce(t)
		b.routed(t, vip4())
		b.routed(t, vip6())
		for _, s := range lb0.sessions(t) {
			if s.Routes != 0 || s.State != bgp.Established {
				t.Errorf("session %+v: want it established without routes", s)
			}
		}
	})
}

// sees waits until the router has the route from a balancer with all of the texts.
func (b *bed) sees(t *testing.T, p netip.Prefix, i int, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v with %q", p, texts), func(ctx context.Context) error {
		text, err := b.pathText(ctx, p, i)
		for _, want := range texts {
			// BIRD writes communities as (1,2).
			if err == nil && !strings.Contains(text, want) && !strings.Contains(text, strings.ReplaceAll(want, ":", ",")) {
				err = fmt.Errorf("%q is not in %q", want, text)
			}
		}
		return err
	})
}

// unseen waits until the router has no route from a balancer.
func (b *bed) unseen(t *testing.T, p netip.Prefix, i int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v to go", p), func(ctx context.Context) error {
		text, err := b.pathText(ctx, p, i)
		if err == nil && text != "" {
			err = fmt.Errorf("there is %q", text)
		}
		return err
	})
}

// pathText is what the router has of a prefix from a balancer; empty for nothing.
func (b *bed) pathText(ctx context.Context, p netip.Prefix, i int) (string, error) {
	from := b.lab.Balancers[i].IPv6
	if p.Addr().Is4() {
		from = b.lab.Balancers[i].IPv4
	}
	switch r := b.router.(type) {
	case *FRR:
		paths, err := r.Paths(ctx, p)
		path, ok := paths[from]
		if err != nil || !ok {
			return "", err
		}
		return fmt.Sprintf("as path %s, med %d, local preference %d, communities %s %s",
			path.ASPath.String, path.MED, path.LocalPref, path.Community.String, path.LargeCommunity.String), nil
	case *BIRD:
		out, err := r.Route(ctx, p)
		for _, block := range strings.Split(out, "unicast [")[1:] {
			if strings.Contains(block, "via "+from.String()+" ") {
				return block, err
			}
		}
		return "", err
	}
	return "", fmt.Errorf("unknown router %T", b.router)
}

func TestThousandRoutes(t *testing.T) {
	t.Parallel()
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{})
		lb0 := b.start(t, 0, b.config(0), both()...)
		b.start(t, 1, b.config(1), both()...)
		b.routed(t, vip4(), 0, 1)
		check := b.unflapped(t)
		many := both()
		for i := range 1000 {
			many = append(many, route(netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)))
		}
		for round := range 2 {
			start := time.Now()
			lb0.announce(t, many...)
			announced := time.Since(start)
			b.counted(t, 1002)
			t.Logf("round %d: 1000 routes announced after %v, in the kernel of %s within %v", round, announced, kind, time.Since(start))
			start = time.Now()
			lb0.announce(t, both()...)
			withdrawn := time.Since(start)
			b.counted(t, 2)
			t.Logf("round %d: withdrawn after %v, gone within %v", round, withdrawn, time.Since(start))
		}
		check()
		b.routed(t, vip4(), 0, 1)
	})
}

func (b *bed) counted(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d routes", want), func(ctx context.Context) error {
		n, err := b.router.Count(ctx)
		if err == nil && n != want {
			err = fmt.Errorf("there are %d", n)
		}
		return err
	})
}
