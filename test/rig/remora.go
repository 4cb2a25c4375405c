// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// pinRoot is where instances of remora keep their pinned maps and programs.
const pinRoot = "/sys/fs/bpf/remora"

// Remora is the program that a lab tries out, as one instance. Its methods return command lines.
type Remora struct {
	// Binary is the path of the program.
	Binary string
	// Instance is the name under which it pins its maps; no two balancers may share it.
	Instance string
	// StateDir is where balancers keep their own state, and RunDir is where their control sockets are.
	// Whoever made them removes them.
	StateDir, RunDir string
}

// Run is the command of a balancer.
func (r Remora) Run(config string, more ...string) []string {
	command := []string{r.Binary, "run", "-c", config, "--instance", r.Instance,
		"--state-dir", r.StateDir, "--socket", r.Socket()}
	return append(command, more...)
}

// Socket is where the instance's daemon serves its control API.
func (r Remora) Socket() string { return filepath.Join(r.RunDir, r.Instance+".sock") }

// Control is a command that asks the instance's daemon.
func (r Remora) Control(command ...string) []string {
	return append([]string{r.Binary}, append(command, "--socket", r.Socket())...)
}

// Status is the command that tells about the balancer.
func (r Remora) Status(more ...string) []string {
	return append([]string{r.Binary, "status", "--instance", r.Instance}, more...)
}

// Decap is the command of a server, which unwraps what is sent to its addresses for the VIPs.
func (r Remora) Decap(addrs, vips []netip.Addr) []string {
	command := []string{r.Binary, "decap", "--interface", ServerInterface}
	for _, a := range addrs {
		command = append(command, "--address", a.String())
	}
	for _, v := range vips {
		command = append(command, "--vip", v.String())
	}
	return command
}

// StartDecap runs Decap in a server and waits until its program is attached.
func (r Remora) StartDecap(ctx context.Context, n *Node, addrs, vips []netip.Addr) (*Process, error) {
	command := r.Decap(addrs, vips)
	p, err := n.Start(command[0], command[1:]...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p, WaitFor(ctx, "remora decap in "+n.Namespace, func() error {
		if err := p.Running(); err != nil {
			return err
		}
		return n.hasXDP(ServerInterface)
	})
}

// PinDir is the directory of the instance's pinned maps and programs.
func (r Remora) PinDir() string { return filepath.Join(pinRoot, r.Instance) }

// detachTimeout is how long an instance may take to go away.
const detachTimeout = 10 * time.Second

// RemovePins takes the instance's program off its interface and frees its maps (remora detach),
// if it is there. The balancer must have ended, or be about to.
func (r Remora) RemovePins() error {
	ctx, cancel := context.WithTimeout(context.Background(), detachTimeout)
	defer cancel()
	return WaitFor(ctx, "instance "+r.Instance+" to go away", func() error {
		if _, err := os.Stat(r.PinDir()); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		out, err := exec.CommandContext(ctx, r.Binary, "detach", "--instance", r.Instance).CombinedOutput()
		if err != nil {
			return fmt.Errorf("remora detach: %v: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}
