// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/remora-lb/remora/test/rig"
)

// result is one line of the summary.
type result struct {
	passed bool
	what   string
}

func (d *demo) introduce() {
	fmt.Fprintf(d.out, `remora, a layer-4 load balancer, in a network of its own on this machine:

               client                    curl
                 |
               router ------- lb         remora run: XDP program on lan0
                 |
     +-----------+-----------+
     |           |           |
  server1     server2     server3        remora decap, nginx

Clients know the service by the addresses %s and %s (the VIPs).
A request goes client > router > lb; the balancer chooses a server and wraps the packet in an
outer header: lb > router > server. The answer goes server > router > client, past the balancer.
Lines with $ are commands that you could type.
`, vip4, vip6)
}

// say announces the next step.
func (d *demo) say(format string, args ...any) {
	d.step++
	fmt.Fprintf(d.out, "\n%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

// explain adds a line to a step.
func (d *demo) explain(format string, args ...any) {
	fmt.Fprintf(d.out, "   %s\n", fmt.Sprintf(format, args...))
}

// quote shows what a program wrote.
func (d *demo) quote(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(d.out, "   | %s\n", strings.TrimRight(line, "\n"))
	}
}

// show writes a command as one would type it.
func (d *demo) show(n *rig.Node, command ...string) {
	fmt.Fprintf(d.out, "   $ %s\n", shell(n, command...))
}

// shell is a command line for a node, or for this machine if n is nil. ip netns exec would hide
// /sys/fs/bpf, so it is not used.
func shell(n *rig.Node, command ...string) string {
	var words []string
	if n != nil {
		words = append(words, "nsenter", "--net=/run/netns/"+n.Namespace)
	}
	for _, w := range command {
		if strings.ContainsAny(w, " []{}$&*?\\\"|;<>()") {
			w = "'" + w + "'"
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

// run shows a command and runs it, on this machine if n is nil.
func (d *demo) run(ctx context.Context, n *rig.Node, command ...string) (string, error) {
	d.show(n, command...)
	if n != nil {
		return n.Run(ctx, command[0], command[1:]...)
	}
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("run %s: %v: %s", command[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// pass notes that something works.
func (d *demo) pass(what, format string, args ...any) {
	fmt.Fprintf(d.out, "   PASS %s: %s\n", what, fmt.Sprintf(format, args...))
	d.results = append(d.results, result{true, what})
}

// errShown is the error of a step that has already told why it failed.
var errShown = errors.New("failed")

// fail notes that something does not work, unless it was only interrupted.
func (d *demo) fail(what string, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	fmt.Fprintf(d.out, "   FAIL %s: %v\n", what, err)
	d.results = append(d.results, result{false, what})
	return errShown
}

// summarise writes what was shown, and for a failure what the programs wrote, and tells whether
// everything worked.
func (d *demo) summarise(err error) bool {
	if err != nil && d.balancer != nil && !errors.Is(err, context.Canceled) {
		d.logs()
	}
	fmt.Fprintf(d.out, "\nSummary\n")
	for _, r := range d.results {
		word := "FAIL"
		if r.passed {
			word = "PASS"
		}
		fmt.Fprintf(d.out, "  %s  %s\n", word, r.what)
	}
	switch {
	case err == nil:
		fmt.Fprintf(d.out, "Everything works. It took %.1f s.\n", time.Since(d.begin).Seconds())
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(d.out, "Interrupted: the rest was not shown. Cleaning up.")
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Fprintf(d.out, "  FAIL  the rest was not shown: the time limit of %v is over\n", timeLimit)
	case !errors.Is(err, errShown):
		fmt.Fprintf(d.out, "  FAIL  %v\n", err)
	}
	return err == nil
}

// logs shows what the balancer and the servers' processes wrote.
func (d *demo) logs() {
	fmt.Fprintf(d.out, "\nWhat the balancer wrote:\n")
	d.quote(d.balancer.Output())
	for n, processes := range d.servers {
		for _, p := range processes {
			if text := p.Output(); text != "" {
				fmt.Fprintf(d.out, "\nWhat %s on %s wrote:\n", p.Command()[0], n.Name)
				d.quote(text)
			}
		}
	}
}

// keep shows what can be tried, and returns when a line is read from in or ctx ends. The end of
// in (there is no terminal) is not a line.
func (d *demo) keep(ctx context.Context, in io.Reader) {
	client, lb, server := d.lab.Client, d.lab.Balancers[0], d.lab.Servers[0]
	fmt.Fprintf(d.out, "\nEverything stays up (--keep). In another terminal, as root:\n\n")
	try := func(what, command string) { fmt.Fprintf(d.out, "  # %s\n  %s\n", what, command) }
	try("a request", shell(client, "curl", url(vips()[0], "/")))
	try("the same to the IPv6 VIP", shell(client, "curl", url(vips()[1], "/")))
	try("what the balancer has done", shell(lb, d.remora.Status()...))
	try("the wrapped packets on their way", shell(d.lab.Router, "tcpdump", "-ni", "servers"))
	try("what a server has", shell(server, "ip", "address"))
	if d.balancer != nil && d.balancer.Running() == nil {
		try("change the configuration", fmt.Sprintf("${EDITOR:-vi} %s; kill -HUP %d", d.config, d.balancer.Pid()))
		try("kill the balancer's daemon: requests are still answered", fmt.Sprintf("kill -9 %d", d.balancer.Pid()))
		try("and start it again", shell(lb, d.remora.Run(d.config)...))
	}
	fmt.Fprintf(d.out, "\nEnter or Ctrl-C takes it all down. ")
	line := make(chan struct{})
	go func() {
		if _, err := bufio.NewReader(in).ReadString('\n'); err == nil {
			close(line)
		}
	}()
	select {
	case <-line:
	case <-ctx.Done():
	}
	fmt.Fprintln(d.out)
}
