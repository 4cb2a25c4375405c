// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Command demo shows remora at work: it builds a network of namespaces on this machine, balances
// real requests in it, takes a server away and puts it back, and removes everything again. It
// needs root, nginx and curl, and takes a few seconds. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// timeLimit is how long the steps of the demonstration may take together.
const timeLimit = 90 * time.Second

// Exit statuses.
const (
	exitFail        = 1
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

type options struct {
	// binary is the remora program; empty: it is built.
	binary string
	// config is the configuration of the balancer.
	config string
	// instance is the name of the balancer's data plane; two demonstrations cannot share it.
	instance string
	// consul is the Consul program; empty: Consul is not shown.
	consul string
	// bgp shows two balancers and a router that learns from them.
	bgp bool
	// keep leaves the network up at the end, until Enter or Ctrl-C.
	keep bool
}

func main() {
	var opts options
	flag.StringVar(&opts.binary, "binary", "", "the remora program (default: build it from ./cmd/remora)")
	flag.StringVar(&opts.config, "config", "configs/demo.yaml", "the balancer's configuration")
	flag.StringVar(&opts.instance, "instance", "demo", "the name of the balancer's data plane")
	withConsul := flag.Bool("consul", false, "show servers that register in Consul, with a real agent, which is built first")
	flag.BoolVar(&opts.bgp, "bgp", false, "show two balancers that announce the VIPs to FRR, one drained and one killed")
	flag.BoolVar(&opts.keep, "keep", false, "leave everything running at the end, to play with")
	flag.Parse()
	os.Exit(run(opts, *withConsul))
}

// run shows everything and returns the exit status. Whatever happens, it cleans up first.
func run(opts options, withConsul bool) int {
	// A closed output (SIGPIPE) and a closed terminal (SIGHUP) end the demonstration in order, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if err := prepare(ctx, &opts); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return status(ctx, false)
	}
	if withConsul {
		if err := buildConsul(ctx, &opts); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return status(ctx, false)
		}
	}
	alone, err := lock(opts.instance)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return exitFail
	}
	defer alone.Close()

	d := newDemo(opts, os.Stdout)
	d.introduce()
	limited, cancel := context.WithTimeout(ctx, timeLimit)
	err = d.steps(limited)
	cancel()
	passed := d.summarise(err)
	if opts.keep && ctx.Err() == nil && d.lab != nil {
		d.keep(ctx, os.Stdin)
	}
	if err := d.close(); err != nil {
		fmt.Fprintln(os.Stderr, "demo: clean up:", err)
		return exitFail
	}
	fmt.Fprintln(d.out, "Everything has been removed again.")
	return status(ctx, passed)
}

func status(ctx context.Context, passed bool) int {
	switch {
	case passed:
		return 0
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFail
}

// prepare finds out early what would fail later, and fills in the paths.
func prepare(ctx context.Context, opts *options) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root, for network namespaces and XDP programs: sudo make demo")
	}
	for _, tool := range []struct{ name, pkg string }{{"nginx", "nginx-light"}, {"curl", "curl"}} {
		if _, err := exec.LookPath(tool.name); err != nil {
			return fmt.Errorf("%s is not installed; on Debian: apt-get install %s", tool.name, tool.pkg)
		}
	}
	if _, err := os.Stat(opts.config); err != nil {
		return fmt.Errorf("read configuration: %v (is this the root of the repository?)", err)
	}
	if opts.binary != "" {
		path, err := filepath.Abs(opts.binary)
		if err != nil {
			return fmt.Errorf("find program: %v", err)
		}
		opts.binary = path
		if _, err := exec.LookPath(path); err != nil {
			return fmt.Errorf("find program: %v (make builds it)", err)
		}
	}
	return ctx.Err()
}

// lockTime is for how long another demonstration is waited for.
const lockTime = 5 * time.Second

// lock makes sure that this demonstration is the only one with its instance of remora. The kernel
// lets go of an abstract socket when the process ends, however it ends.
func lock(instance string) (io.Closer, error) {
	l, err := net.Listen("unix", "@remora-demo-"+instance)
	// What a killed one was just starting may have the socket for a moment longer.
	for end := time.Now().Add(lockTime); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); {
		time.Sleep(lockTime / 20)
		l, err = net.Listen("unix", "@remora-demo-"+instance)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another demonstration with instance %s is running on this machine", instance)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %v", err)
	}
	return l, nil
}
