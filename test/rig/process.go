// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs in a node. The lab's Close ends it. Its methods may be called
// concurrently.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	// done is closed when the process has ended and err, its way of ending, is set.
	done chan struct{}
	err  error
}

// Start starts a program in the node. What it writes is captured, see Output. It does not outlive
// this process.
func (n *Node) Start(name string, args ...string) (*Process, error) {
	p := n.command(context.Background(), name, args...)
	if err := n.launch(p); err != nil {
		return nil, err
	}
	n.lab.mu.Lock()
	n.lab.processes = append(n.lab.processes, p)
	n.lab.mu.Unlock()
	return p, nil
}

// Run runs a program in the node to its end and returns what it wrote to standard output; the
// error holds what it wrote to both. The program is killed when ctx ends.
func (n *Node) Run(ctx context.Context, name string, args ...string) (string, error) {
	p := n.command(ctx, name, args...)
	var stdout bytes.Buffer
	p.cmd.Stdout = &tee{&stdout, p.out}
	if err := n.launch(p); err != nil {
		return "", err
	}
	<-p.done
	if ctx.Err() != nil {
		return stdout.String(), fmt.Errorf("run %s in %s: %w: %s", p.name, n.Namespace, ctx.Err(), strings.TrimSpace(p.Output()))
	}
	if p.err != nil {
		return stdout.String(), fmt.Errorf("run %s in %s: %v: %s", p.name, n.Namespace, p.err, strings.TrimSpace(p.Output()))
	}
	return stdout.String(), nil
}

// command prepares a process without starting it.
func (n *Node) command(ctx context.Context, name string, args ...string) *Process {
	p := &Process{
		name: strings.Join(append([]string{name}, args...), " "),
		cmd:  exec.CommandContext(ctx, name, args...),
		out:  &output{},
		done: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own: Ctrl-C at the terminal is for us, and we end it in order.
		Setpgid: true,
		// When the node's thread goes, however it goes, so does the process.
		Pdeathsig: syscall.SIGKILL,
	}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = time.Second
	return p
}

// launch starts the process on the node's thread, whose namespace it inherits.
func (n *Node) launch(p *Process) error {
	if err := n.Do(p.cmd.Start); err != nil {
		return fmt.Errorf("start %s in %s: %v", p.name, n.Namespace, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return nil
}

// Command is the command line, without the node.
func (p *Process) Command() []string { return p.cmd.Args }

// Pid is the id of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is what the process has written to standard output and standard error up to now.
func (p *Process) Output() string { return p.out.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running returns nil while the process runs, and afterwards an error that wraps ErrExited and
// holds its output.
func (p *Process) Running() error {
	select {
	case <-p.done:
		how := "without error"
		if p.err != nil {
			how = p.err.Error()
		}
		return fmt.Errorf("%w: %s: %s: %s", ErrExited, p.name, how, strings.TrimSpace(p.Output()))
	default:
		return nil
	}
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %v to %s: %v", sig, p.name, err)
	}
	return nil
}

// Kill ends the process and its children at once (SIGKILL) and waits until it is gone.
func (p *Process) Kill() error { return p.end(syscall.SIGKILL, stopTimeout) }

// Stop asks the process to end (SIGTERM) and waits until it has; after the timeout it kills it,
// which is an error. A process that has ended is no error, whatever its exit status.
func (p *Process) Stop(timeout time.Duration) error {
	err := p.end(syscall.SIGTERM, timeout)
	if err == nil {
		return nil
	}
	return errors.Join(err, p.Kill())
}

// end sends a signal to the process's group and waits for the process.
func (p *Process) end(sig syscall.Signal, timeout time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	// ESRCH: it ended by itself just now.
	if err := syscall.Kill(-p.Pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to %s: %v", sig, p.name, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop %s: still there %s after %v: %s", p.name, timeout, sig, strings.TrimSpace(p.Output()))
	}
}

// output collects what a process writes, while others read it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// tee writes to two places; the first is the caller's alone.
type tee struct {
	first  *bytes.Buffer
	second *output
}

func (t *tee) Write(b []byte) (int, error) {
	t.first.Write(b)
	return t.second.Write(b)
}
