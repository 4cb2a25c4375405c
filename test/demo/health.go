// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// stopService stops the service of a server, and leaves everything else alone: the health checks find
// it, and find it again when it is back.
func (d *demo) stopService(ctx context.Context) error {
	sick := d.lab.Servers[1]
	const what = "a service that stops is found, and comes back"
	d.say("Stop nginx on %s, and nothing else: the health checks notice.", sick.Name)
	web := d.servers[sick][0]
	d.show(nil, "kill", fmt.Sprint(web.Pid()))
	begin := time.Now()
	if err := web.Stop(time.Second); err != nil {
		return d.fail(what, err)
	}
	out, err := d.awaitHealth(ctx, sick, "down, service_down")
	if err != nil {
		return d.fail(what, err)
	}
	found := time.Since(begin)
	d.quote(out)
	if err := d.requests(ctx, "without the service of "+sick.Name+" the others answer everything", d.lab.Servers[0], d.lab.Servers[2]); err != nil {
		return err
	}
	again, err := sick.StartNginx(ctx, largeBytes)
	if err != nil {
		return d.fail(what, err)
	}
	d.servers[sick][0] = again.Process
	if _, err := d.awaitHealth(ctx, sick, "up"); err != nil {
		return d.fail(what, err)
	}
	d.pass(what, "found and diagnosed after %.1f s", found.Seconds())
	return d.requests(ctx, "with the service of "+sick.Name+" back all share", d.lab.Servers...)
}

// awaitHealth waits until the balancer's status says this of a server for all VIPs, and returns the
// status.
func (d *demo) awaitHealth(ctx context.Context, n *rig.Node, state string) (status string, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	command := d.remora.Status("--interval", "0s", "--socket", d.remora.Socket())
	err = rig.WaitFor(ctx, n.Name+" to be "+state, func() error {
		if status, err = d.lab.Balancers[0].Run(ctx, command[0], command[1:]...); err != nil {
			return err
		}
		said := 0
		for line := range strings.Lines(status) {
			rest, ours := strings.CutPrefix(strings.TrimSpace(line), n.IPv4.String()+" ")
			if ours && strings.HasPrefix(strings.TrimSpace(rest), state) {
				said++
			}
		}
		if said != len(vips()) {
			return fmt.Errorf("%d of %d VIPs say so", said, len(vips()))
		}
		return nil
	})
	return status, err
}
