// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tries the remora program on real packets: a balancer between a client and servers,
// all in network namespaces that test/rig builds. The tests need root, nginx and curl. Tests run
// one after another; each has a lab and an instance of its own.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/remora-lb/remora/test/rig"
)

// binaryVariable names the environment variable with the path of the program. TestMain builds the
// program and sets it, unless it is set already.
const binaryVariable = "REMORA_BINARY"

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (int, error) {
	if os.Geteuid() != 0 || os.Getenv(binaryVariable) != "" {
		return m.Run(), nil // without root every test skips or fails by itself
	}
	if removed, err := rig.RemoveLeftovers(); err != nil || len(removed) > 0 {
		fmt.Fprintf(os.Stderr, "removed what an interrupted run had left: %v; error: %v\n", removed, err)
	}
	dir, err := os.MkdirTemp("", "remora-e2e-*")
	if err != nil {
		return 0, fmt.Errorf("make directory: %v", err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "remora")
	build := exec.Command("go", "build", "-o", binary, "github.com/remora-lb/remora/cmd/remora")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build remora: %v: %s", err, out)
	}
	if err := os.Setenv(binaryVariable, binary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
