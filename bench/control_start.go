// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netns"

	"github.com/remora-lb/remora/lb/dataplane"
)

// startTime bounds one start of the binary.
const startTime = 5 * time.Minute

// measureStarts starts the binary twice, in a namespace with an interface of its own: with nothing there,
// and with what the first start left. Each start ends once everything is applied and attached.
func measureStarts(ctx context.Context, o ControlOptions, s ControlScale, row *ControlRow) (err error) {
	var client, balancer side
	defer func() { err = errors.Join(err, client.closeUnnamed(), balancer.closeUnnamed()) }()
	if err := errors.Join(client.openUnnamed(), balancer.openUnnamed()); err != nil {
		return err
	}
	const link = "balancer0"
	if err := connectSides(&client, &balancer, "client0", link); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "remora-bench-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	file, err := writeControlFile(folder, link, s)
	if err != nil {
		return err
	}
	instance := fmt.Sprintf("bench-%d", os.Getpid())
	defer func() {
		if e := dataplane.Remove(o.BPFFS, instance); e != nil && !errors.Is(e, dataplane.ErrNoInstance) {
			err = errors.Join(err, fmt.Errorf("remove what was started: %w", e))
		}
	}()
	args := []string{
		"run", "--once", "-c", file, "--instance", instance, "--bpffs", o.BPFFS,
		"--state-dir", filepath.Join(folder, "state"), "--socket", filepath.Join(folder, "socket"), "--log-level", "warn",
	}
	if row.Start, row.StartMB, err = balancer.startOnce(ctx, o.Binary, args); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if row.Adopt, _, err = balancer.startOnce(ctx, o.Binary, args); err != nil {
		return fmt.Errorf("start again: %w", err)
	}
	return nil
}

// startOnce runs a command in the side's namespace, and returns how long it took and the most memory that
// it had.
func (s *side) startOnce(ctx context.Context, binary string, args []string) (seconds, megabytes float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	err = onThread(func() error { // a child has the namespace of the thread that makes it
		if err := netns.Set(s.ns); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return cmd.Run()
	})
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", errors.Join(err, ctx.Err()), bytes.TrimSpace(output.Bytes()))
	}
	seconds = time.Since(start).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		megabytes = float64(usage.Maxrss) / 1024
	}
	return seconds, megabytes, nil
}

// document is the configuration file of the fleet.
func (f controlFleet) document(link string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "interface: %s\nmode: native\nnext_hop:\n  mac: \"02:00:00:00:00:02\"\n  mtu: %d\nservices:\n", link, linkMTU)
	for _, s := range f.services {
		fmt.Fprintf(&b, "  - name: %s\n    ring:\n      size: %d\n    vips:\n", s.Name, f.scale.RingSize)
		for _, v := range s.VIPs {
			fmt.Fprintf(&b, "      - %s\n", v.VIP)
		}
		b.WriteString("    backends:\n")
		for i := range f.scale.Reals {
			fmt.Fprintf(&b, "      - %s\n", controlServer(i))
		}
	}
	return b.Bytes()
}
