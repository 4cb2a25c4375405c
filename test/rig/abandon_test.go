// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// abandoner is this test binary as another process, that builds a lab and waits to be killed.
type abandoner struct {
	cmd *exec.Cmd
	// lab is the name of its lab, child a process in it.
	lab   string
	child int
}

func startAbandoner(t *testing.T) *abandoner {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLeftoversOfKilledProcess$")
	cmd.Env = append(os.Environ(), "RIG_TEST_ABANDON=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &abandoner{cmd: cmd}
	t.Cleanup(func() { a.kill(t) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("read the name of the lab: %v", err)
	}
	lab, child, _ := strings.Cut(strings.TrimSpace(line), " ")
	if a.child, err = strconv.Atoi(child); err != nil {
		t.Fatalf("%q is not a lab and a process id", line)
	}
	a.lab = lab
	return a
}

func (a *abandoner) kill(t *testing.T) {
	t.Helper()
	if a.cmd.ProcessState != nil {
		return
	}
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Wait(); err == nil {
		t.Fatal("the process ended by itself")
	}
}

// abandonLab builds a lab, writes its name and a process id, and never returns.
func abandonLab() {
	l, err := New(Config{Servers: 1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p, err := l.Servers[0].Start("sleep", "600")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Name, p.Pid())
	<-time.After(testTimeout)
	os.Exit(1)
}
