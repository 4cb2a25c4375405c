// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/engine/enginetest"
	"github.com/remora-lb/remora/lb/health"
	"github.com/remora-lb/remora/lb/store"
	"github.com/remora-lb/remora/test/require"
)

const reloadFile = `
interface: eth0
consul: {token: first, addresses: ["unix:///nowhere"]}
bgp: {asn: 65001, router_id: 10.0.0.2}
services:
  - name: web
    vips: [192.0.2.10:80/tcp]
    source: {consul: {service: web}}
    health: {path: direct, kind: tcp}
`

// TestReloadIsWholeOrNothing: whichever part of a reload fails, all parts stay as they were.
func TestReloadIsWholeOrNothing(t *testing.T) {
	for _, tc := range []struct {
		name, says string
		// fault changes a configuration that would be accepted.
		fault func(t *testing.T, c *config.Config) error
	}{
		{"the file cannot be read", "no such file", func(*testing.T, *config.Config) error { return errors.New("no such file") }},
		{"what needs a restart", "interface changed", func(_ *testing.T, c *config.Config) error { c.Interface = "eth1"; return nil }},
		{"health checks", "health checks of service", func(t *testing.T, c *config.Config) error {
			c.Health["web"] = config.Health{Kind: config.KindHTTPS, TLS: &config.TLSCheck{CAFile: filepath.Join(t.TempDir(), "none")}}
			return nil
		}},
		{"source routes", "read source routes", func(t *testing.T, c *config.Config) error {
			c.SourceRoutes = []config.SourceRoutes{{File: filepath.Join(t.TempDir(), "none")}}
			return nil
		}},
		{"what is decapsulated", "decapsulation changed", func(_ *testing.T, c *config.Config) error {
			c.Decap.Others = lb.DecapBalance
			return nil
		}},
		{"attributes", "community", func(_ *testing.T, c *config.Config) error {
			c.BGP.Normal.Communities = []string{"none at all"}
			return nil
		}},
		{"announcements", "MinReals", func(_ *testing.T, c *config.Config) error { c.BGP.Announce.MinReals = -1; return nil }},
		{"the reader of Consul", "prepare to read Consul", func(_ *testing.T, c *config.Config) error { c.Consul.Consistency = "none"; return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := parseConfig(t, reloadFile)
			b := newReloadBed(t, c)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- b.discovery.Run(ctx) }()
			defer func() { cancel(); require.NoError(t, <-done) }()
			b.announcer = &announcer{wakes: make(chan struct{}, 1)}
			routes, err := b.announcer.prepare(c)
			require.NoError(t, err)
			b.announcer.install(c, routes)

			next := parseConfig(t, reloadFile+"  - {name: other, vips: [192.0.2.11:80/tcp], source: {consul: {service: other}}}\n")
			next.Consul.Token = "second"
			delete(next.Health, "web")
			err = b.reload(ctx, func() (*config.Config, error) { return next, tc.fault(t, next) })
			require.ErrorSays(t, err, tc.says)
			if b.cfg != c || b.announcer.cfg != c.BGP {
				t.Error("a part of the new configuration is in force")
			}
			down := map[string][]lb.Backend{"web": {{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 1, Down: true}}}
			if b.health.Admit(c.Services, down)["web"][0].Down {
				t.Error("the backends are not checked any more")
			}
			if got := b.discovery.State().Unheard; !slices.Equal(got, []string{"web"}) {
				t.Errorf("what is read from Consul changed: it waits for %q", got)
			}
		})
	}
}

// newReloadBed is a balancer with what a reload needs, but for the data plane and the announcer.
func newReloadBed(t *testing.T, c *config.Config) *balancer {
	t.Helper()
	b := &balancer{log: slog.New(slog.DiscardHandler)}
	b.setConfig(c)
	e, err := engine.New(engine.DefaultConfig(), enginetest.NewDataplane(t, 1), new(enginetest.NextHops))
	require.NoError(t, err)
	b.health, err = health.New(health.Config{File: c, Engine: e, Log: b.log})
	require.NoError(t, err)
	a := discovery.NewAssembly(discovery.AssemblyConfig{Engine: e, File: discovery.FileSet(c), Admit: b.health.Admit})
	s, err := store.Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	b.discovery, err = discovery.New(discovery.Config{File: c, Assembly: a, Saver: discovery.NewSaver(s, b.log), Log: b.log})
	require.NoError(t, err)
	return b
}

func parseConfig(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("test.yaml", []byte(text))
	require.NoError(t, err)
	return c
}
