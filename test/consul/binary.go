// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package consul runs real Consul agents on loopback, for tests and the demo. The program is a Go
// tool of the module in tool/, so that nothing has to be installed; Go keeps what it built.
package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds Consul, unless that has been done before, and returns the path of the program. The
// first time takes minutes, 350 MB of download and 2.3 GB of disk; afterwards it is a second or two.
// It must be called from within the repository.
func Build(ctx context.Context) (string, error) {
	file, err := run(ctx, "", "go", "env", "GOMOD")
	if err != nil {
		return "", fmt.Errorf("build Consul: %v", err)
	}
	path, err := run(ctx, filepath.Join(filepath.Dir(file), "test", "consul", "tool"), "nice", "go", "tool", "-n", "consul")
	if err != nil {
		return "", fmt.Errorf("build Consul: %v", err)
	}
	return path, nil
}

// run runs a program and returns what it wrote.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s: %v: %s", cmd, err, lastLines(problem.String()))
	}
	if out.Len() == 0 {
		return "", errors.New("run " + cmd.String() + ": it wrote nothing")
	}
	return strings.TrimSpace(out.String()), nil
}

// lastLines is the end of what a program wrote.
func lastLines(s string) string {
	const most = 2000
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-most):]
}
