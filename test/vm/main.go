// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Command vm runs tests in virtual machines with the kernels of Debian packages, under plain
// emulation where the processor's help is not to be had: the oldest kernel that remora supports,
// the kernel's own tunnel devices and pktgen, and network cards with XDP offload that are
// simulated. `make rig-test` runs it; README.md says more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Exit statuses.
const (
	exitFail        = 1
	exitSkip        = 77  // as automake has it
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// errSkip is returned if this machine cannot run virtual machines; the reason goes with it.
var errSkip = errors.New("skipped")

type options struct {
	// kernel is the series, such as 6.1.
	kernel string
	// full runs everything; otherwise what takes long is left out.
	full bool
	// only is the name of the one part to run; empty: all.
	only string
	// run replaces the patterns that choose tests; empty: the parts' own.
	run string
	// objects is a folder of objects for the simulated card to judge; empty: none.
	objects string
	// binary is the remora program; empty: it is built.
	binary string
	// limit is how long everything may take.
	limit time.Duration
}

func main() {
	// The emulator is to end with this process, and the kernel takes the thread for the process.
	runtime.LockOSThread()
	var opts options
	flag.StringVar(&opts.kernel, "kernel", "6.1", "the kernel's series, as in the package linux-source-SERIES")
	flag.BoolVar(&opts.full, "full", false, "run all tests, also those that take minutes")
	flag.StringVar(&opts.only, "only", "", "run one part only: "+partNames())
	flag.StringVar(&opts.run, "run", "", "run tests that match this pattern only, of all packages")
	flag.StringVar(&opts.objects, "objects", "", "a folder of XDP objects (*.o) of one program each: the part card says of each whether the card takes it")
	flag.StringVar(&opts.binary, "binary", "", "the remora program, linked statically (default: build it from ./cmd/remora)")
	flag.DurationVar(&opts.limit, "limit", 30*time.Minute, "how long everything may take")
	flag.Parse()
	os.Exit(run(opts))
}

// run runs everything and returns the exit status. Whatever happens, it cleans up first.
func run(opts options) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	limited, cancel := context.WithTimeout(ctx, opts.limit)
	defer cancel()
	err := runParts(limited, opts)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "vm: interrupted")
		return exitInterrupted
	case limited.Err() != nil:
		fmt.Fprintf(os.Stderr, "vm: not done within %v: %v\n", opts.limit, err)
		return exitFail
	case errors.Is(err, errSkip) && os.Getenv("REMORA_REQUIRE_VM") == "1":
		fmt.Fprintf(os.Stderr, "vm: %v, and REMORA_REQUIRE_VM=1 promises that it is not\n", err)
		return exitFail
	case errors.Is(err, errSkip):
		fmt.Fprintln(os.Stderr, "vm:", err)
		return exitSkip
	}
	fmt.Fprintln(os.Stderr, "vm:", err)
	return exitFail
}

// runParts runs one machine after the other. A part that fails does not keep the others from running.
func runParts(ctx context.Context, opts options) (err error) {
	parts, err := choose(opts)
	if err != nil {
		return err
	}
	if err := needPrograms("qemu-system-x86_64", "busybox"); err != nil {
		return err
	}
	w, err := newWorkshop()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	kernel, err := w.prepare(ctx, opts.kernel)
	if err != nil {
		return err
	}
	accelerator := w.accelerator(ctx, kernel)
	fmt.Printf("kernel %s, %s\n", filepath.Base(kernel), accelerator)
	var errs []error
	for _, p := range parts {
		if ctx.Err() != nil {
			break
		}
		begin := time.Now()
		if err := w.runPart(ctx, opts, kernel, accelerator, p); err != nil {
			fmt.Printf("FAIL\t%s\t%.1fs\n", p.name, time.Since(begin).Seconds())
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		fmt.Printf("ok  \t%s\t%.1fs\n", p.name, time.Since(begin).Seconds())
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// needPrograms skips if one is missing.
func needPrograms(names ...string) error {
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %s is not installed", errSkip, name)
		}
	}
	return nil
}

// runPart builds the image of a part's machine, boots it, and shows what its tests write.
func (w *workshop) runPart(ctx context.Context, opts options, kernel, accelerator string, p part) error {
	if err := w.build(ctx, opts, p); err != nil {
		return err
	}
	image := filepath.Join(w.dir, "image")
	if err := w.writeImage(image, opts, kernel, p); err != nil {
		return err
	}
	m := machine{
		kernel:      filepath.Join(kernel, "vmlinux"),
		image:       image,
		console:     filepath.Join(w.cache, "console-"+p.name+".log"),
		accelerator: accelerator,
	}
	if err := m.run(ctx, os.Stdout); err != nil {
		m.quoteConsole(os.Stdout)
		return err
	}
	return os.Remove(m.console)
}
