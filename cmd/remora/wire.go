// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/discovery"
	"github.com/remora-lb/remora/lb/discovery/static"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/lb/health"
	"github.com/remora-lb/remora/lb/metrics"
	"github.com/remora-lb/remora/lb/nexthop"
	"github.com/remora-lb/remora/lb/store"
)

// balancer is the daemon: the components, wired. It belongs to one goroutine.
type balancer struct {
	cfg    *config.Config
	log    *slog.Logger
	events *event.Log
	dp     *dataplane.Dataplane
	hops   *nexthop.Watcher
	static *static.Source
	engine *engine.Engine
	store  *store.Store
	saver  *saver
	drains *drains
	server *control.Server
	health *health.Health
	// announcer is nil without BGP.
	announcer *announcer
	// assembly has the services of all sources; discovery is what comes from Consul.
	assembly  *discovery.Assembly
	judged    *discovery.Saver
	discovery *discovery.Discovery
	// registration is the balancer's own in Consul; nil if there is to be none.
	registration *registration
	guard        *fleetGuard            // nil if there is none
	leaves       atomic.Pointer[leaves] // of the configuration, for other goroutines
	reloaded     *reloadLog
	// metrics is nil if they are not to be served.
	metrics *metrics.Server
}

// newBalancer makes all components. What an earlier run left goes on as it was.
func newBalancer(f runFlags, c *config.Config, log *slog.Logger) (_ *balancer, err error) {
	mode, err := attach.ParseMode(string(c.Mode))
	if err != nil {
		return nil, err
	}
	if _, err := attach.Interface(c.Interface); err != nil {
		return nil, err
	}
	routes, err := c.ReadSourceRoutes()
	if err != nil {
		return nil, err
	}
	b := &balancer{log: log, static: static.New(discovery.FileSet(c)), events: event.NewLog(log)}
	b.reloaded = newReloadLog(b.events, time.Now())
	b.setConfig(c)
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	b.dp, err = dataplane.Open(dataplane.Config{
		Instance:    f.instance,
		BPFFS:       f.bpffs,
		Interface:   c.Interface,
		Mode:        mode,
		Flows:       c.Table.Size,
		FlowInserts: c.Table.NewPerSecond,
		UDPIdle:     c.Table.UDPIdle,
		Decap:       c.Decap,
		QUICLB:      c.QUICLB,
		AnswerLimit: c.AnswersPerSecond,
		Log:         log,
		Events:      b.events,
	})
	if err != nil {
		return nil, err
	}
	if b.store, err = openStore(f.stateDir, f.instance); err != nil {
		return nil, err
	}
	b.hops, err = nexthop.New(nexthop.Config{
		Interface: c.Interface,
		Fixed:     c.NextHop,
		Log:       log,
		Events:    b.events,
		OnChange:  func(hops map[netip.Addr]lb.NextHop) { b.engine.SetNextHops(hops) },
	})
	if err != nil {
		return nil, err
	}
	b.saver = newSaver(b.store, log)
	if b.engine, err = engine.New(b.engineConfig(), b.dp, b.hops); err != nil {
		return nil, err
	}
	b.engine.SetSourceRoutes(routes)
	if c.BGP != nil {
		if b.announcer, err = newAnnouncer(f.instanceFlags, c, b.engine, b.store, log); err != nil {
			return nil, err
		}
		b.announcer.events = b.events
		if f.once {
			b.announcer = nil // it was made to find mistakes: nothing is announced
		}
	}
	if b.health, err = health.New(health.Config{File: c, Engine: b.engine, Log: log, Events: b.events}); err != nil {
		return nil, err
	}
	if !f.once {
		if err := b.health.Open(); err != nil {
			return nil, err
		}
	}
	if err := b.addDiscovery(c); err != nil {
		return nil, err
	}
	b.drains = newDrains(f.instanceFlags, b.engine, b.store, b.events, log)
	d := &daemon{instanceFlags: f.instanceFlags, engine: b.engine, drains: b.drains, discovery: b.discovery, leave: b.leave, announcer: b.announcer, health: b.health}
	b.metrics, err = newMetrics(c.Metrics, &observer{daemon: d, hops: b.hops, events: b.events, reloads: b.reloaded, iface: c.Interface}, log)
	if err != nil {
		return nil, err
	}
	d.metrics = b.metrics
	b.server, err = control.New(control.Config{
		Socket: f.socketPath(),
		Group:  f.group,
		Daemon: d,
		Events: b.events,
		Log:    log,
	})
	return b, err
}

// engineConfig is the engine's part of the configuration, and what an earlier run left.
func (b *balancer) engineConfig() engine.Config {
	c := engine.DefaultConfig()
	c.Log, c.Events = b.log, b.events
	c.Window = b.cfg.Table.Window
	c.Quarantine = b.cfg.Table.Window
	c.Sources = []string{discovery.FileSource}
	c.OnMemory = b.remember
	c.Adopted.Reals, c.Adopted.VIPs = b.dp.Adopted()
	c.Adopted.Slots = b.dp.AdoptedRing
	c.Adopted.Memory = loadMemory(b.store, b.log)
	return c
}

// remember takes in what the engine is to remember: backends came, went, or changed.
func (b *balancer) remember(m *engine.Memory) {
	b.saver.save(m)
	if b.announcer != nil {
		b.announcer.wake()
	}
}

// addDiscovery makes what comes from Consul, and hands over what an earlier run left of it.
func (b *balancer) addDiscovery(c *config.Config) (err error) {
	assembly := discovery.AssemblyConfig{
		Engine: b.engine, File: discovery.FileSet(c), Resolve: b.hops.Resolve,
		Admit: b.health.Admit, Check: b.defineChecks, PrepareChecks: b.prepareChecks,
	}
	if b.announcer != nil {
		assembly.Complete = b.announcer.keeper.complete
		b.announcer.examiner.announceable = b.health.Announceable
	}
	b.assembly = discovery.NewAssembly(assembly)
	if b.announcer != nil {
		b.announcer.again = b.assembly.Again
	}
	b.judged = discovery.NewSaver(b.store, b.log)
	reals, vips := b.dp.Adopted()
	left := discovery.Recall(b.store, c, reals, vips, b.log)
	b.discovery, err = discovery.New(discovery.Config{
		File: c, Left: left, Assembly: b.assembly, Saver: b.judged, Log: b.log, Events: b.events,
	})
	if err != nil {
		return err
	}
	if b.registration, err = newRegistration(c.Consul, b.engine.Status, b.log); err != nil || b.registration == nil || b.announcer == nil {
		return err
	}
	b.registration.announced = b.announcer.announced
	if b.guard, err = newFleetGuard(c, b.registration.self, b.announcer.wake, b.log); err != nil {
		return err
	}
	b.announcer.examiner.fleet = b.guard.of
	return nil
}

// prepareChecks makes the checks of a service that Consul defines.
func (b *balancer) prepareChecks(c config.Health) (discovery.Checks, error) {
	checks, err := b.health.PrepareOne(c)
	if err != nil {
		return nil, err
	}
	return &checks, nil
}

// defineChecks has the checks of services that Consul defines in force.
func (b *balancer) defineChecks(all map[string]discovery.Checks) {
	checks := make(map[string]*health.Checks, len(all))
	for service, c := range all {
		checks[service], _ = c.(*health.Checks) // nil is none
	}
	b.health.Define(checks)
}

// openStore opens the folder of an instance's state, which is made.
func openStore(dir, instance string) (*store.Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make state folder: %v", err)
	}
	return store.Open(filepath.Join(dir, instance))
}

// leave is what is configured for a VIP, or for its protocol if it is claimed. Not before addDiscovery.
func (b *balancer) leave(vip lb.VIP) lb.Leave {
	leaves := b.leaves.Load()
	if l, ok := leaves.of[vip]; ok {
		return l
	}
	if l, ok := b.discovery.State().Leaves[vip]; ok {
		return l
	}
	return leaves.claimed[vip.Protocol]
}

// leaves are what is configured for VIPs of the file, and for others.
type leaves struct {
	of      map[lb.VIP]lb.Leave
	claimed map[lb.Protocol]lb.Leave
}

// setConfig makes c the present configuration.
func (b *balancer) setConfig(c *config.Config) {
	l := &leaves{of: make(map[lb.VIP]lb.Leave), claimed: map[lb.Protocol]lb.Leave{lb.TCP: lb.DefaultLeave(), lb.UDP: lb.DefaultLeave()}}
	for _, s := range c.Services {
		for _, v := range s.VIPs {
			l.of[v.VIP] = v.Leave
		}
	}
	if c.ReadsConsul() {
		l.claimed[lb.TCP], l.claimed[lb.UDP] = c.Consul.TCP.Leave, c.Consul.UDP.Leave
	}
	b.cfg = c
	b.leaves.Store(l)
}

// start fills the data plane once and attaches it.
func (b *balancer) start(ctx context.Context) error {
	hops := b.resolve(ctx, b.cfg)
	b.engine.LearnNextHops(hops)
	b.handOver(discovery.FileSet(b.cfg))
	if err := b.engine.Sync(ctx); err != nil {
		return fmt.Errorf("fill data plane: %w", err)
	}
	return b.dp.Attach()
}

// settle takes in what Consul says, once, for a run that does not stay.
func (b *balancer) settle(ctx context.Context) error {
	if !b.cfg.ReadsConsul() {
		return nil
	}
	if err := b.discovery.Settle(ctx); err != nil {
		return err
	}
	if err := b.engine.Sync(ctx); err != nil {
		return fmt.Errorf("fill data plane: %w", err)
	}
	return nil
}

// resolve asks for the next hops of all backends, for a limited time.
func (b *balancer) resolve(ctx context.Context, c *config.Config) map[netip.Addr]lb.NextHop {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	hops := b.hops.Resolve(ctx, remoteAddrs(c))
	for addr, hop := range hops {
		if !hop.Resolved() {
			b.log.Warn("no next hop", "real", addr, "problem", hop.Problem)
		}
	}
	return hops
}

func (b *balancer) handOver(set static.Set) {
	b.assembly.SetFile(set)
	b.discovery.Retain()
}

// remoteAddrs are the backends of a configuration that packets are sent to, each once.
func remoteAddrs(c *config.Config) []netip.Addr {
	seen := make(map[netip.Addr]bool)
	for _, list := range c.Backends {
		for _, backend := range list {
			if !backend.Local {
				seen[backend.Addr] = true
			}
		}
	}
	for _, routes := range c.SourceRoutes {
		seen[routes.Backend] = true
	}
	return slices.Collect(maps.Keys(seen))
}

// run follows the inputs until ctx ends, and then leaves what the configuration says. It is the
// one place where components are started and stopped.
func (b *balancer) run(ctx context.Context, load func() (*config.Config, error), hup <-chan os.Signal) error {
	b.log.Info("running", "interface", b.cfg.Interface, "services", len(b.cfg.Services))
	g, groupCtx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.engine.Run(groupCtx) })
	g.Go(func() error { return b.saver.run(groupCtx) })
	g.Go(func() error { return b.drains.run(groupCtx) })
	g.Go(func() error { return b.health.Run(groupCtx) })
	g.Go(func() error { return b.serve(groupCtx) })
	if b.metrics != nil {
		g.Go(func() error { return b.metrics.Run(groupCtx) })
	}
	g.Go(func() error { return b.hops.Run(groupCtx) })
	g.Go(func() error { return b.static.Run(groupCtx, b.handOver) })
	g.Go(func() error { return b.judged.Run(groupCtx) })
	g.Go(func() error { return b.discovery.Run(groupCtx) })
	g.Go(func() error { return b.discovery.FollowLocal(groupCtx, b.health.Verdicts) })
	g.Go(func() error { return b.registration.run(groupCtx) })
	g.Go(func() error { return b.guard.run(groupCtx) })
	if b.announcer != nil {
		g.Go(func() error { return b.announcer.run(groupCtx, ctx) })
		g.Go(func() error { return b.announcer.limit.run(groupCtx, b.announcer.drained) })
	}
	g.Go(func() error { return b.reloads(groupCtx, load, hup) })
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

// serveRetry is how long after a failure the control API is tried again.
const serveRetry = 10 * time.Second

// serve serves the control API until ctx ends. Balancing does not depend on it.
func (b *balancer) serve(ctx context.Context) error {
	for {
		err := b.server.Run(ctx)
		if err == nil {
			return nil
		}
		b.log.Error("control API not served", "error", err, "retry_in", serveRetry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(serveRetry):
		}
	}
}

// reloads reads the configuration again at each signal.
func (b *balancer) reloads(ctx context.Context, load func() (*config.Config, error), hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hup:
			err := b.reload(ctx, load)
			b.reloaded.note(b.cfg, err, time.Now())
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
	sourceRoutes, err := c.ReadSourceRoutes()
	if err != nil {
		return err
	}
	checks, err := b.health.Prepare(c)
	if err != nil {
		return err
	}
	var routes attributes
	if b.announcer != nil {
		if routes, err = b.announcer.prepare(c); err != nil {
			return err
		}
	}
	// The last step that can fail, and the first that changes something: it does only one of both.
	if err := b.discovery.Replace(ctx, b.cfg, c); err != nil {
		return err
	}
	// A server that is new gets packets as soon as it is in a ring: its link address comes first.
	b.engine.LearnNextHops(b.resolve(ctx, c))
	b.engine.SetSourceRoutes(sourceRoutes)
	if b.announcer != nil {
		b.announcer.install(c, routes)
	}
	b.setConfig(c)
	b.health.Install(checks)
	b.static.Replace(discovery.FileSet(c))
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
	case old.ProbeMarks != new.ProbeMarks:
		return errors.New("probes changed: that needs a restart")
	case old.Table != new.Table:
		return errors.New("flow_table changed: that needs a restart")
	case old.Metrics != new.Metrics:
		return errors.New("metrics changed: that needs a restart")
	case !reflect.DeepEqual(old.Consul.Register, new.Consul.Register):
		return errors.New("consul.register changed: that needs a restart")
	case !reflect.DeepEqual(old.Consul.DrainLimit, new.Consul.DrainLimit):
		return errors.New("consul.drain_limit changed: that needs a restart")
	case old.BGP != nil && new.BGP != nil && old.BGP.Announce.FleetGuard != new.BGP.Announce.FleetGuard:
		return errors.New("bgp.announce.fleet_guard changed: that needs a restart")
	case !reflect.DeepEqual(old.Decap, new.Decap):
		return errors.New("decapsulation changed: that needs a restart")
	case old.QUICLB != new.QUICLB:
		return errors.New("quic_lb changed: that needs a restart")
	case old.AnswersPerSecond != new.AnswersPerSecond:
		return errors.New("icmp changed: that needs a restart")
	case old.Governor != new.Governor:
		return errors.New("governor changed: that needs a restart")
	}
	return sameSessions(old.BGP, new.BGP)
}

func (b *balancer) close() {
	if b.health != nil {
		if err := b.health.Close(); err != nil {
			b.log.Error("close tunnel of health checks", "error", err)
		}
	}
	if b.saver != nil {
		b.saver.flush() // of a run that only applied the file
	}
	if b.judged != nil {
		b.judged.Flush()
	}
	if b.store != nil {
		b.store.Close()
	}
	if b.hops != nil {
		b.hops.Close()
	}
	if b.dp != nil {
		if err := b.dp.Close(); err != nil {
			b.log.Error("close data plane", "error", err)
		}
	}
}
