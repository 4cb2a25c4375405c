// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/rig"
)

// The VIPs of configs/demo.yaml.
const (
	vip4 = "192.0.2.10"
	vip6 = "2001:db8:ff::10"
)

// largeBytes is the size of the file that is downloaded and uploaded.
const largeBytes = 5_000_000

// demo is the demonstration in progress.
type demo struct {
	opts options
	out  io.Writer

	lab    *rig.Lab
	remora rig.Remora
	// config is the copy of the configuration that the balancer reads.
	config   string
	balancer *rig.Process
	// agent is Consul, if it is shown.
	agent *consul.Agent
	// servers are what runs on each server.
	servers map[*rig.Node][]*rig.Process
	// results are the lines of the summary, one for each thing shown.
	results []result
	step    int
	begin   time.Time
}

func newDemo(opts options, out io.Writer) *demo {
	return &demo{
		opts:    opts,
		out:     out,
		remora:  rig.Remora{Binary: opts.binary, Instance: opts.instance},
		servers: make(map[*rig.Node][]*rig.Process),
		begin:   time.Now(),
	}
}

// steps shows one thing after the other and ends with the first that does not work.
func (d *demo) steps(ctx context.Context) error {
	steps := []func(context.Context) error{
		d.buildNetwork,
		d.startServers,
		d.startBalancer,
		d.sendRequests,
		d.showStatus,
		d.transferFile,
		d.stopService,
		d.drainServer,
		d.restoreServer,
	}
	if d.opts.consul != "" {
		steps = d.consulSteps()
	}
	if d.opts.bgp {
		steps = d.bgpSteps()
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close removes everything.
func (d *demo) close() error {
	if d.lab == nil {
		return nil
	}
	return d.lab.Close()
}

func (d *demo) buildNetwork(ctx context.Context) error {
	d.say("Build the network: a namespace for each machine, and virtual cables.")
	removed, err := rig.RemoveLeftovers()
	if len(removed) > 0 {
		d.explain("Removed what an interrupted run had left: %s", strings.Join(removed, ", "))
	}
	if err != nil {
		return err
	}
	cfg := rig.Config{VIPs: vips()}
	if d.opts.bgp {
		cfg.Balancers = 2
	}
	d.lab, err = rig.New(cfg)
	if err != nil {
		return err
	}
	d.remora.StateDir, d.remora.RunDir = filepath.Join(d.lab.Dir, "state"), d.lab.Dir
	var names []string
	for _, n := range d.lab.Nodes() {
		names = append(names, n.Namespace)
	}
	d.explain("%s", strings.Join(names, " "))
	if d.opts.binary == "" {
		d.remora.Binary = filepath.Join(d.lab.Dir, "remora")
		if _, err := d.run(ctx, nil, "go", "build", "-o", d.remora.Binary, "./cmd/remora"); err != nil {
			return err
		}
	}
	d.lab.OnClose(d.remora.RemovePins)
	// What an interrupted run has left.
	return d.remora.RemovePins()
}

func (d *demo) startServers(ctx context.Context) error {
	d.say("Start the servers: each runs nginx, and remora decap, which unwraps what the balancer sends.")
	for i, n := range d.lab.Servers {
		if i > 0 {
			d.explain("and likewise on %s", n.Name)
		}
		if err := d.startServer(ctx, n, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// startServer starts what a server runs.
func (d *demo) startServer(ctx context.Context, n *rig.Node, show bool) error {
	web, err := n.StartNginx(ctx, largeBytes)
	if err != nil {
		return err
	}
	decap, err := d.remora.StartDecap(ctx, n, []netip.Addr{n.IPv4, n.IPv6}, vips())
	if err != nil {
		return err
	}
	if show {
		d.show(n, web.Command()...)
		d.show(n, decap.Command()...)
	}
	d.servers[n] = []*rig.Process{web.Process, decap}
	return nil
}

func (d *demo) startBalancer(ctx context.Context) error {
	d.say("Start the balancer, with a copy of %s.", d.opts.config)
	text, err := os.ReadFile(d.opts.config)
	if err != nil {
		return fmt.Errorf("read configuration: %v", err)
	}
	d.config = filepath.Join(d.lab.Dir, "demo.yaml")
	if err := os.WriteFile(d.config, text, 0o600); err != nil {
		return fmt.Errorf("copy configuration: %v", err)
	}
	return d.launchBalancer(ctx)
}

// launchBalancer starts the balancer and waits for answers.
func (d *demo) launchBalancer(ctx context.Context) (err error) {
	lb := d.lab.Balancers[0]
	command := d.remora.Run(d.config)
	d.show(lb, command...)
	begin := time.Now()
	if d.balancer, err = lb.Start(command[0], command[1:]...); err != nil {
		return err
	}
	if err := d.awaitAnswers(ctx); err != nil {
		return d.fail("the balancer forwards", err)
	}
	d.pass("the balancer forwards", "first answers through both VIPs after %.1f s", time.Since(begin).Seconds())
	return nil
}

// readyTimeout is how long balancer and servers may take until requests are answered.
const readyTimeout = 20 * time.Second

// awaitAnswers waits until a request to each VIP is answered.
func (d *demo) awaitAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, vip := range vips() {
		err := rig.WaitFor(ctx, "an answer from "+vip.String(), func() error {
			if err := d.running(); err != nil {
				return err
			}
			_, err := d.lab.Client.Run(ctx, "curl", "-sS", "--max-time", "1", url(vip, "/"))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// running returns an error if the balancer, or anything on a server, has ended.
func (d *demo) running() error {
	errs := []error{d.balancer.Running()}
	for _, processes := range d.servers {
		for _, p := range processes {
			errs = append(errs, p.Running())
		}
	}
	return errors.Join(errs...)
}

func (d *demo) sendRequests(ctx context.Context) error {
	d.say("Send %d requests to each VIP, each on a connection of its own.", requestsPerVIP)
	return d.requests(ctx, "requests are shared by all servers", d.lab.Servers...)
}

func (d *demo) showStatus(ctx context.Context) error {
	d.say("Ask the balancer what it has done.")
	out, err := d.run(ctx, d.lab.Balancers[0], d.remora.Status()...)
	if err != nil {
		return d.fail("the balancer reports its state", err)
	}
	d.quote(out)
	d.pass("the balancer reports its state", "see above")
	return nil
}

func vips() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)}
}
