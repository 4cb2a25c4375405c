// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/test/rig"
)

// slowDownloads are so many that one goes to each of three servers but in 1 of 50 cases.
const slowDownloads = 12

// drainServer takes a server away while connections to it are open.
func (d *demo) drainServer(ctx context.Context) error {
	gone, stay := d.lab.Servers[2], d.lab.Servers[:2]
	const what = "downloads go on while their server is drained"
	d.say("Start %d slow downloads, drain %s while they run, and switch it off when they have ended.", slowDownloads, gone.Name)
	downloads := d.startDownloads(ctx)
	if err := d.whileDraining(ctx, what, gone, stay); err != nil {
		_, _ = downloads.wait() // they are not what failed first
		return err
	}
	served, err := downloads.wait()
	if err != nil {
		return d.fail(what, err)
	}
	d.pass(what, "%d files are intact: %s", slowDownloads, tally(served, d.lab.Servers))
	if err := d.switchOff(gone); err != nil {
		return d.fail("a server is switched off", err)
	}
	return d.requests(ctx, "without "+gone.Name+" the others answer everything", stay...)
}

// whileDraining drains a server and shows what becomes of new connections, and of those that are open.
func (d *demo) whileDraining(ctx context.Context, what string, gone *rig.Node, stay []*rig.Node) error {
	if err := d.control(ctx, "drain", gone.IPv4.String(), "--timeout", "1m"); err != nil {
		return d.fail(what, err)
	}
	if err := d.requests(ctx, "new connections go to the others", stay...); err != nil {
		return err
	}
	out, err := d.run(ctx, d.lab.Balancers[0], d.remora.Status("--interval", "0s")...)
	if err != nil {
		return d.fail(what, err)
	}
	d.quote(out)
	return nil
}

// switchOff ends what a server runs.
func (d *demo) switchOff(n *rig.Node) error {
	kill := []string{"kill", "-9"}
	for _, p := range d.servers[n] {
		kill = append(kill, fmt.Sprint(p.Pid()))
		if err := p.Kill(); err != nil {
			return err
		}
	}
	d.show(nil, kill...)
	delete(d.servers, n)
	return nil
}

// downloads are some that run at the same time.
type downloads struct {
	group *errgroup.Group
	// served is the name of the server that each came from, by its number.
	served [slowDownloads]string
}

// startDownloads starts them all and returns once all have begun, or one has failed.
func (d *demo) startDownloads(ctx context.Context) *downloads {
	command := []string{"curl", "-sS", "--max-time", "30", "--limit-rate", "2M", "-w", "%header{x-served-by}", "-o"}
	file := func(n any) string { return filepath.Join(d.lab.Dir, fmt.Sprintf("slow-%v", n)) }
	from := url(vips()[0], "/large")
	d.show(d.lab.Client, append(slices.Clone(command), file("N"), from)...)
	s := &downloads{}
	s.group, ctx = errgroup.WithContext(ctx)
	for i := range slowDownloads {
		s.group.Go(func() (err error) {
			if s.served[i], err = d.lab.Client.Run(ctx, command[0], append(slices.Clone(command[1:]), file(i), from)...); err != nil {
				return err
			}
			return d.sameAsLarge(file(i))
		})
	}
	// When the first bytes are there, the connection is established. What hinders it, wait says.
	_ = rig.WaitFor(ctx, "downloads to begin", func() error {
		for i := range slowDownloads {
			if info, err := os.Stat(file(i)); err != nil || info.Size() == 0 {
				return errors.New("nothing has come")
			}
		}
		return nil
	})
	return s
}

// wait waits for their end, and returns how many came from each server, or what is wrong with one.
func (s *downloads) wait() (map[string]int, error) {
	err := s.group.Wait()
	served := make(map[string]int)
	for _, name := range s.served {
		served[name]++
	}
	return served, err
}

// restoreServer starts the server again and ends its drain.
func (d *demo) restoreServer(ctx context.Context) error {
	back := d.lab.Servers[2]
	d.say("Put %s back: start it, end the drain.", back.Name)
	if err := d.startServer(ctx, back, false); err != nil {
		return d.fail("the server is put back", err)
	}
	if err := d.control(ctx, "undrain", back.IPv4.String()); err != nil {
		return d.fail("the server is put back", err)
	}
	if _, err := d.awaitHealth(ctx, back, "up"); err != nil {
		return d.fail("the server is put back", err)
	}
	return d.requests(ctx, "with "+back.Name+" back all share again", d.lab.Servers...)
}

// control asks the balancer's daemon and shows what it answers.
func (d *demo) control(ctx context.Context, command ...string) error {
	out, err := d.run(ctx, d.lab.Balancers[0], d.remora.Control(command...)...)
	if err == nil {
		d.quote(out)
	}
	return err
}
