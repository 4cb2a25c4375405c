// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package routers

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/test/require"
)

// TestPassword has a speaker with the wrong MD5 key or none, and then the right one. In the
// passive case the speaker listens, and the router connects.
func TestPassword(t *testing.T) {
	t.Parallel()
	for _, passive := range []bool{false, true} {
		t.Run(map[bool]string{false: "active", true: "passive"}[passive], func(t *testing.T) {
			t.Parallel()
			eachRouter(t, func(t *testing.T, kind string) {
				// A lab for the addresses, which the neighbours need before the router starts.
				lb := netip.MustParseAddr("10.10.1.2")
				b := newBed(t, kind, Config{Neighbors: []Neighbor{{Address: lb, ASN: speakerASN(0), Password: "right", Connect: passive}}})
				cfg := b.config(0)
				cfg.Peers = cfg.Peers[:1]
				if passive {
					cfg.ListenPort = 179
					cfg.Peers[0].Passive = true
				}
				file := filepath.Join(b.lab.Dir, "password")
				require.NoError(t, os.WriteFile(file, []byte("wrong\n"), 0o600))
				cfg.Peers[0].PasswordFile = file
				b.refused(t, cfg)
				cfg.Peers[0].PasswordFile = ""
				b.refused(t, cfg)
				require.NoError(t, os.WriteFile(file, []byte("right\n"), 0o600))
				cfg.Peers[0].PasswordFile = file
				b.start(t, 0, cfg, route(vip4()))
				b.routed(t, vip4(), 0)
			})
		})
	}
}

// refused runs a speaker for a time in which others have their sessions, and fails if it has one.
func (b *bed) refused(t *testing.T, cfg speakerConfig) {
	t.Helper()
	s := startSpeaker(t, b.lab, b.lab.Balancers[0], cfg)
	s.announce(t, route(vip4()))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		for _, x := range s.sessions(t) {
			if x.State == bgp.OpenConfirm || x.State == bgp.Established {
				t.Fatalf("session %+v: the router's messages must not arrive", x)
			}
		}
		if _, err := b.router.established(testContext(t), b.lab.Balancers[0].IPv4); err == nil {
			t.Fatal("the router has the session established")
		}
	}
	require.NoError(t, s.Kill())
}

// TestTTLSecurity has packets of the router come with TTL 1, and then with 255.
func TestTTLSecurity(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "router without", true: "router with"}[secure], func(t *testing.T) {
			t.Parallel()
			b := newBed(t, "FRR", Config{Neighbors: []Neighbor{{Address: netip.MustParseAddr("10.10.1.2"), ASN: speakerASN(0), TTLSecurity: secure}}})
			cfg := b.config(0)
			cfg.Peers = cfg.Peers[:1]
			cfg.Peers[0].TTLSecurityHops = 1
			if !secure {
				b.refused(t, cfg)
				return
			}
			b.start(t, 0, cfg, route(vip4()))
			b.routed(t, vip4(), 0)
		})
	}
}

// TestInternal has a session within one AS.
func TestInternal(t *testing.T) {
	t.Parallel()
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{Neighbors: []Neighbor{{Address: netip.MustParseAddr("10.10.1.2"), ASN: routerASN}}})
		cfg := b.config(0)
		cfg.ASN, cfg.Peers = routerASN, cfg.Peers[:1]
		s := b.start(t, 0, cfg, route(vip4(), func(r *bgp.Route) {
			r.LocalPref, r.Prepend = 321, 3
			r.Communities = append(r.Communities, bgp.NoExport)
			r.LargeCommunities = []bgp.LargeCommunity{{ASN: routerASN, Data1: 1, Data2: 2}}
		}))
		b.routed(t, vip4(), 0)
		noExport := map[string]string{"FRR": "no-export", "BIRD": "65535,65281"}[kind]
		b.sees(t, vip4(), 0, "321", noExport)
		text, err := b.pathText(testContext(t), vip4(), 0)
		require.NoError(t, err)
		for _, unwanted := range []string{"4294967295", "65000 65000"} {
			if strings.Contains(text, unwanted) {
				t.Errorf("%q is in %q", unwanted, text)
			}
		}
		if !strings.Contains(strings.NewReplacer(" ", "", ",", ":").Replace(text), "65000:1:2") {
			t.Errorf("the large community is not in %q", text)
		}
		if n := s.sessions(t)[0].Routes; n != 1 {
			t.Errorf("the session has %d routes, want 1", n)
		}
	})
}

// TestFilter has one session that gets both families and one that gets nothing else than a
// prefix.
func TestFilter(t *testing.T) {
	t.Parallel()
	eachRouter(t, func(t *testing.T, kind string) {
		b := newBed(t, kind, Config{})
		cfg := b.config(0)
		other := netip.MustParsePrefix("192.0.2.20/32")
		cfg.Peers = cfg.Peers[:1]
		cfg.Peers[0].Families = []bgp.Family{bgp.IPv4, bgp.IPv6}
		cfg.Peers[0].NextHop6 = b.lab.Balancers[0].IPv6
		cfg.Peers[0].Filter = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/28"), netip.MustParsePrefix("2001:db8:ff::/64")}
		s := b.start(t, 0, cfg, append(both(), route(other))...)
		b.routed(t, vip4(), 0)
		b.routed(t, vip6(), 0)
		b.routed(t, other)
		if n := s.sessions(t)[0].Routes; n != 2 {
			t.Errorf("the session has %d routes, want 2", n)
		}
		// A route's own next hop counts more than the peer's.
		own := netip.MustParseAddr("2001:db8:10:1::77")
		s.announce(t, route(vip6(), func(r *bgp.Route) { r.NextHop = own }))
		b.via(t, vip6(), own)
		b.routed(t, vip4())
	})
}

// TestExtendedNextHop sends an IPv4 route over an IPv6 session, to a router that takes it and to
// one that does not.
func TestExtendedNextHop(t *testing.T) {
	t.Parallel()
	for _, takes := range []bool{true, false} {
		t.Run(map[bool]string{true: "negotiated", false: "not negotiated"}[takes], func(t *testing.T) {
			t.Parallel()
			eachRouter(t, func(t *testing.T, kind string) {
				b := newBed(t, kind, Config{ExtendedNextHop: takes})
				cfg := b.config(0)
				cfg.Peers = cfg.Peers[1:]
				cfg.Peers[0].Families = []bgp.Family{bgp.IPv4, bgp.IPv6}
				cfg.Peers[0].ExtendedNextHop = true
				s := b.start(t, 0, cfg, both()...)
				b.routed(t, vip6(), 0)
				if takes {
					b.via(t, vip4(), b.lab.Balancers[0].IPv6)
					return
				}
				s.waitSessions(t, "the session to say so", func(x bgp.Session) bool {
					return strings.Contains(x.LastError, "does not take IPv4 routes")
				})
				// What is announced after it has arrived, so an IPv4 route would have, too.
				later := netip.MustParsePrefix("2001:db8:ff::11/128")
				s.announce(t, append(both(), route(later))...)
				b.routed(t, later, 0)
				b.routed(t, vip4())
				if _, err := b.router.established(testContext(t), b.lab.Balancers[0].IPv6); err != nil {
					t.Error(errors.Join(errors.New("the session suffered"), err))
				}
			})
		})
	}
}
