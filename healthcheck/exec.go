// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exec is a probe that runs a command; exit status 0 passes. The command runs in a process group of
// its own, which is killed at the deadline, and when the command has ended. Its environment is
// PATH, REMORA_ADDRESS, REMORA_PORT, and, where the target has them, REMORA_MARK (decimal),
// REMORA_SOURCE and REMORA_INTERFACE.
type Exec struct {
	// Command is the program, an absolute path.
	Command string
	// Args are its arguments. {address} and {port} in them are replaced by the target's.
	Args []string
}

const (
	// maxOutput is how much output of a command is kept, in bytes.
	maxOutput = 4096
	// outputDelay is how long output is awaited from processes that have left the group.
	outputDelay = 100 * time.Millisecond
)

// Validate implements Kind.
func (c Exec) Validate() error {
	if !filepath.IsAbs(c.Command) {
		return fmt.Errorf("Command: %q is not an absolute path", c.Command)
	}
	return nil
}

// Probe implements Kind.
func (c Exec) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make exec probe: %v", err)
	}
	return &probe{kind: c, ask: c.ask}, nil
}

func (c Exec) ask(ctx context.Context, t Target) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, during("run the command", err)
	}
	out := &bounded{}
	cmd := c.command(t, out)
	if err := cmd.Start(); err != nil {
		return answer{}, fail(Local, "run the command: %v", err)
	}
	err := waitGroup(ctx, cmd)
	said := excerpt(bytes.TrimSpace(out.b))
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil && err != nil:
		return answer{}, fail(Timeout, "the command did not end in time; it said %s", said)
	case errors.As(err, &exit):
		return answer{}, fail(ExitStatus, "the command ended with %s; it said %s", exit, said)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return answer{}, fail(Local, "wait for the command: %v", err)
	}
	return answer{}, nil
}

func (c Exec) command(t Target, out *bounded) *exec.Cmd {
	address, port := t.Addr.Addr().String(), strconv.Itoa(int(t.Addr.Port()))
	cmd := exec.Command(c.Command)
	replace := strings.NewReplacer("{address}", address, "{port}", port)
	for _, arg := range c.Args {
		cmd.Args = append(cmd.Args, replace.Replace(arg))
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "REMORA_ADDRESS=" + address, "REMORA_PORT=" + port}
	if t.Mark != 0 {
		cmd.Env = append(cmd.Env, fmt.Sprintf("REMORA_MARK=%d", t.Mark))
	}
	if t.Source.IsValid() {
		cmd.Env = append(cmd.Env, "REMORA_SOURCE="+t.Source.String())
	}
	if t.Interface != "" {
		cmd.Env = append(cmd.Env, "REMORA_INTERFACE="+t.Interface)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputDelay
	return cmd
}

// waitGroup waits for a command and kills its group when ctx or the command ends.
func waitGroup(ctx context.Context, cmd *exec.Cmd) error {
	kill := func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // nobody may be left
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		kill()
		close(killed)
	})
	// The command is not reaped here, so that its number still names its group and nobody else's.
	awaitEnd(cmd.Process.Pid)
	if !stop() {
		<-killed
	}
	kill()
	return cmd.Wait()
}

// awaitEnd waits until a child has ended, without reaping it.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // any other error would mean that there is no such child
		}
	}
}

// bounded keeps the beginning of what is written. The exec package writes from one goroutine.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), maxOutput-len(w.b))]...)
	return len(p), nil
}
