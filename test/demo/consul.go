// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/rig"
)

// consulSteps are the demonstration with Consul: servers come, rest and die as Consul says.
func (d *demo) consulSteps() []func(context.Context) error {
	return []func(context.Context) error{
		d.buildNetwork,
		d.startConsul,
		d.startServers,
		d.registerServers,
		d.startConsulBalancer,
		d.sendRequests,
		d.maintainServer,
		d.loseServer,
		d.loseConsul,
		d.showHeld,
	}
}

// consulBuildTime is how long it may take to build Consul, the first time.
const consulBuildTime = 20 * time.Minute

// buildConsul builds Consul, unless that has been done before.
func buildConsul(ctx context.Context, opts *options) (err error) {
	fmt.Println("Building Consul. The first time takes minutes.")
	ctx, cancel := context.WithTimeout(ctx, consulBuildTime)
	defer cancel()
	opts.consul, err = consul.Build(ctx)
	return err
}

// startConsul runs a Consul agent. It answers on a unix socket, which every namespace can reach.
func (d *demo) startConsul(ctx context.Context) error {
	d.say("Start a Consul agent, in development mode. It answers on a unix socket.")
	socket := d.consulSocket()
	a, err := consul.Start(ctx, consul.Options{Binary: d.opts.consul, Config: fmt.Sprintf("addresses { http = %q }\n", "127.0.0.1 unix://"+socket)})
	if err != nil {
		return err
	}
	d.lab.OnClose(a.Close)
	d.agent = a
	d.show(nil, "consul", "agent", "-dev", "-config-file", "...")
	return nil
}

func (d *demo) consulSocket() string { return filepath.Join(d.lab.Dir, "consul.sock") }

// askConsul has a server call the agent's API.
func (d *demo) askConsul(ctx context.Context, n *rig.Node, path, body string) error {
	command := []string{"curl", "-sS", "--fail", "--max-time", "5", "--unix-socket", d.consulSocket(), "-X", "PUT"}
	if body != "" {
		command = append(command, "--data", body)
	}
	_, err := d.run(ctx, n, append(command, "http://localhost/v1/agent/"+path)...)
	return err
}

func (d *demo) registerServers(ctx context.Context) error {
	d.say("Each server registers itself as an instance of web, with a check.")
	for _, n := range d.lab.Servers {
		body := fmt.Sprintf(`{"ID": "web-%s", "Name": "web", "Address": "%s", "Port": 80, "Check": {"CheckID": "%s", "TTL": "1h", "Status": "passing"}}`,
			n.Name, n.IPv4, n.Name)
		if err := d.askConsul(ctx, n, "service/register", body); err != nil {
			return d.fail("servers register", err)
		}
	}
	return nil
}

// consulConfig is the balancer's configuration.
func (d *demo) consulConfig() string {
	return fmt.Sprintf(`interface: %s
consul:
  addresses: ["unix://%s"]
  wait: 1s
governor:
  # In the demo, two servers of three go within a minute.
  radius: {reals: 2}
services:
  - name: web
    vips: [%s:80/tcp, "[%s]:80/tcp"]
    source: {consul: {service: web}}
`, rig.BalancerInterface, d.consulSocket(), vip4, vip6)
}

func (d *demo) startConsulBalancer(ctx context.Context) error {
	d.say("Start the balancer. No server is in its configuration:")
	d.quote(d.consulConfig())
	d.config = filepath.Join(d.lab.Dir, "demo.yaml")
	if err := os.WriteFile(d.config, []byte(d.consulConfig()), 0o600); err != nil {
		return fmt.Errorf("write configuration: %v", err)
	}
	return d.launchBalancer(ctx)
}

// maintainServer puts a server into maintenance while connections to it are open.
func (d *demo) maintainServer(ctx context.Context) error {
	rests := d.lab.Servers[2]
	const what = "downloads go on while their server rests"
	d.say("Start %d slow downloads, and put %s into maintenance while they run.", slowDownloads, rests.Name)
	downloads := d.startDownloads(ctx)
	if err := d.whileResting(ctx, what, rests); err != nil {
		_, _ = downloads.wait() // they are not what failed first
		return err
	}
	served, err := downloads.wait()
	if err != nil {
		return d.fail(what, err)
	}
	d.pass(what, "%d files are intact: %s", slowDownloads, tally(served, d.lab.Servers))
	return nil
}

// whileResting puts a server into maintenance, and shows what becomes of new connections.
func (d *demo) whileResting(ctx context.Context, what string, n *rig.Node) error {
	if err := d.askConsul(ctx, n, "service/maintenance/web-"+n.Name+"?enable=true&reason=upgrade", ""); err != nil {
		return d.fail(what, err)
	}
	if err := d.awaitDraining(ctx, n); err != nil {
		return d.fail(what, err)
	}
	return d.requests(ctx, "new connections go to the others", d.lab.Servers[:2]...)
}

// awaitDraining waits until a server gets no new connections.
func (d *demo) awaitDraining(ctx context.Context, n *rig.Node) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return rig.WaitFor(ctx, n.Name+" to be drained", func() error {
		if err := d.balancer.Running(); err != nil {
			return err
		}
		command := d.remora.Status("--interval", "0s")
		out, err := d.lab.Balancers[0].Run(ctx, command[0], command[1:]...)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, n.IPv4.String()) && !strings.Contains(line, "draining") && !strings.Contains(line, "retired") {
				return fmt.Errorf("the status says %q", strings.TrimSpace(line))
			}
		}
		return nil
	})
}

// loseServer switches a server off, whose check then fails.
func (d *demo) loseServer(ctx context.Context) error {
	gone, left := d.lab.Servers[1], d.lab.Servers[0]
	d.say("%s dies, and its check turns critical.", gone.Name)
	if err := d.switchOff(gone); err != nil {
		return d.fail("a server dies", err)
	}
	if err := d.askConsul(ctx, gone, "check/fail/"+gone.Name, ""); err != nil {
		return d.fail("a server dies", err)
	}
	if err := d.awaitDraining(ctx, gone); err != nil {
		return d.fail("a server dies", err)
	}
	return d.requests(ctx, "the server that is left answers everything", left)
}

// loseConsul takes Consul away, and the balancer's daemon too.
func (d *demo) loseConsul(ctx context.Context) error {
	const what = "without Consul the last known good servers stay"
	d.say("Kill Consul, then the balancer's daemon, and start the daemon again.")
	if err := d.agent.Kill(); err != nil {
		return d.fail(what, err)
	}
	d.show(nil, "kill", "-9", fmt.Sprint(d.balancer.Pid()))
	if err := d.balancer.Kill(); err != nil {
		return d.fail(what, err)
	}
	if err := d.launchBalancer(ctx); err != nil {
		return err
	}
	return d.requests(ctx, what, d.lab.Servers[0])
}

func (d *demo) showHeld(ctx context.Context) error {
	d.say("Ask the balancer what it has done, and what it refuses.")
	const what = "the balancer says what is the matter"
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	command := d.remora.Status("--interval", "0s", "--why", "--socket", d.remora.Socket())
	var out string
	err := rig.WaitFor(ctx, "Consul to be missed", func() (err error) {
		out, err = d.lab.Balancers[0].Run(ctx, command[0], command[1:]...)
		if err == nil && !strings.Contains(out, "rule unreachable") {
			err = errors.New("it is not")
		}
		return err
	})
	if err != nil {
		return d.fail(what, err)
	}
	d.show(d.lab.Balancers[0], command...)
	d.quote(out)
	d.pass(what, "see above")
	return nil
}
