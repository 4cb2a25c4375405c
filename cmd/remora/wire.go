// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/discovery/static"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/nexthop"
)

// staticSource is the name of the configuration file among the sources of backends.
const staticSource = "file"

// balancer is the daemon: the components, wired. It belongs to one goroutine.
type balancer struct {
	cfg    *config.Config
	log    *slog.Logger
	dp     *dataplane.Dataplane
	hops   *nexthop.Watcher
	static *static.Source
	engine *engine.Engine
}

// newBalancer makes all components. What an earlier run left goes on as it was.
func newBalancer(f instanceFlags, c *config.Config, log *slog.Logger) (_ *balancer, err error) {
	mode, err := attach.ParseMode(string(c.Mode))
	if err != nil {
		return nil, err
	}
	if _, err := attach.Interface(c.Interface); err != nil {
		return nil, err
	}
	b := &balancer{cfg: c, log: log, static: static.New(fileSet(c))}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	b.dp, err = dataplane.Open(dataplane.Config{
		Instance:  f.instance,
		BPFFS:     f.bpffs,
		Interface: c.Interface,
		Mode:      mode,
		Log:       log,
	})
	if err != nil {
		return nil, err
	}
	b.hops, err = nexthop.New(nexthop.Config{
		Interface: c.Interface,
		Fixed:     c.NextHop,
		Log:       log,
		OnChange:  func(hops map[netip.Addr]lb.NextHop) { b.engine.SetNextHops(hops) },
	})
	if err != nil {
		return nil, err
	}
	ec := engine.DefaultConfig()
	ec.Log = log
	ec.Sources = []string{staticSource}
	ec.Adopted.Reals, ec.Adopted.VIPs = b.dp.Adopted()
	b.engine, err = engine.New(ec, b.dp, b.hops)
	return b, err
}

// start fills the data plane once and attaches it.
func (b *balancer) start(ctx context.Context) error {
	hops := b.resolve(ctx, b.cfg)
	b.engine.SetNextHops(hops)
	b.handOver(fileSet(b.cfg))
	if err := b.engine.Sync(ctx); err != nil {
		return fmt.Errorf("fill data plane: %w", err)
	}
	return b.dp.Attach()
}

// resolve asks for the next hops of all backends, for a limited time.
func (b *balancer) resolve(ctx context.Context, c *config.Config) map[netip.Addr]lb.NextHop {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	hops := b.hops.Resolve(ctx, backendAddrs(c.Backends))
	for addr, hop := range hops {
		if !hop.Resolved() {
			b.log.Warn("no next hop", "real", addr, "problem", hop.Problem)
		}
	}
	return hops
}

func fileSet(c *config.Config) static.Set {
	return static.Set{Services: c.Services, Backends: c.Backends}
}

func (b *balancer) handOver(set static.Set) {
	b.engine.SetServicesAndBackends(set.Services, staticSource, set.Backends)
}

func backendAddrs(backends map[string][]lb.Backend) []netip.Addr {
	seen := make(map[netip.Addr]bool)
	var addrs []netip.Addr
	for _, list := range backends {
		for _, backend := range list {
			if !seen[backend.Addr] {
				seen[backend.Addr] = true
				addrs = append(addrs, backend.Addr)
			}
		}
	}
	return addrs
}

// run follows the inputs until ctx ends, and then leaves what the configuration says. It is the
// one place where components are started and stopped.
func (b *balancer) run(ctx context.Context, load func() (*config.Config, error), hup <-chan os.Signal) error {
	g, groupCtx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.engine.Run(groupCtx) })
	g.Go(func() error { return b.hops.Run(groupCtx) })
	g.Go(func() error { return b.static.Run(groupCtx, b.handOver) })
	g.Go(func() error { return b.reloads(groupCtx, load, hup) })
	b.log.Info("running", "interface", b.cfg.Interface, "services", len(b.cfg.Services))
	err := g.Wait()
	if ctx.Err() == nil {
		return err // a component failed: packets go on as they were
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		b.log.Error("stopping with an error", "error", err)
	}
	if b.cfg.OnExit == config.OnExitDetach {
		return b.dp.Detach()
	}
	b.log.Info("stopped; forwarding goes on", "interface", b.cfg.Interface)
	return nil
}

// reloads reads the configuration again at each signal.
func (b *balancer) reloads(ctx context.Context, load func() (*config.Config, error), hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hup:
			if err := b.reload(ctx, load); err != nil {
				b.log.Error("configuration not reloaded, the present one stays", "error", err)
				continue
			}
			b.log.Info("configuration reloaded", "services", len(b.cfg.Services))
		}
	}
}

func (b *balancer) reload(ctx context.Context, load func() (*config.Config, error)) error {
	c, err := load()
	if err != nil {
		return err
	}
	if err := sameAtRestart(b.cfg, c); err != nil {
		return err
	}
	// A server that is new gets packets as soon as it is in a ring: its link address comes first.
	b.engine.LearnNextHops(b.resolve(ctx, c))
	b.cfg = c
	b.static.Replace(fileSet(c))
	return nil
}

// sameAtRestart refuses changes of what is only read at the start.
func sameAtRestart(old, new *config.Config) error {
	switch {
	case old.Interface != new.Interface:
		return fmt.Errorf("interface changed from %q to %q: that needs a restart", old.Interface, new.Interface)
	case old.Mode != new.Mode:
		return fmt.Errorf("mode changed from %s to %s: that needs a restart", old.Mode, new.Mode)
	case (old.NextHop == nil) != (new.NextHop == nil), old.NextHop != nil && *old.NextHop != *new.NextHop:
		return errors.New("next_hop changed: that needs a restart")
	}
	return nil
}

func (b *balancer) close() {
	if b.hops != nil {
		b.hops.Close()
	}
	if b.dp != nil {
		if err := b.dp.Close(); err != nil {
			b.log.Error("close data plane", "error", err)
		}
	}
}
