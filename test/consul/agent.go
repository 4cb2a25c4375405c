// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// Options say what an agent is like.
type Options struct {
	// Binary is the program, see Build. Required.
	Binary string
	// Config is further configuration in Consul's language. Default none.
	Config string
	// TLS asks for a port with HTTPS; Config has to name the certificates.
	TLS bool
	// Bind is the address that it listens at. Default 127.0.0.1.
	Bind string

	// node, bootstrap and join are for a member of a cluster; bootstrap 0 makes a server that is
	// alone and keeps nothing.
	node      string
	bootstrap int
	join      []string
}

// Agent is a Consul agent that runs. Its methods are for one goroutine; Close ends it and removes
// what it stored.
type Agent struct {
	// Address is where it answers over HTTP, TLSAddress over HTTPS, as HOST:PORT; the latter is
	// empty without TLS.
	Address, TLSAddress string
	// Node is its name in the catalogue.
	Node string

	options Options
	dir     string
	ports   ports
	process *process
}

// ports are those of one agent; 0 is none.
type ports struct {
	http, https, server, serf int
}

const (
	startTimeout = time.Minute
	stopTimeout  = 10 * time.Second
	pollInterval = 20 * time.Millisecond
)

// Start runs a development agent, a server of its own that keeps nothing on disk, and waits until it
// has a leader. What ends ctx later does not end the agent.
func Start(ctx context.Context, o Options) (*Agent, error) {
	// Somebody else may take a port between our choice and the agent's start.
	var err error
	for range 3 {
		var a *Agent
		if a, err = start(o); err != nil {
			continue
		}
		if err = a.AwaitLeader(ctx); err == nil {
			return a, nil
		}
		err = errors.Join(err, a.Close())
	}
	return nil, fmt.Errorf("start Consul: %w", err)
}

// start makes an agent and runs it.
func start(o Options) (*Agent, error) {
	if o.Bind == "" {
		o.Bind = "127.0.0.1"
	}
	dir, err := os.MkdirTemp("", "remora-consul-")
	if err != nil {
		return nil, err
	}
	a := &Agent{options: o, dir: dir, Node: o.node}
	if a.Node == "" {
		a.Node = "agent"
	}
	if err := a.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return a, nil
}

// prepare chooses ports, writes the configuration and runs the agent.
func (a *Agent) prepare() error {
	var err error
	if a.ports, err = freePorts(a.options.Bind); err != nil {
		return err
	}
	a.Address = a.options.Bind + ":" + strconv.Itoa(a.ports.http)
	if a.options.TLS {
		a.TLSAddress = a.options.Bind + ":" + strconv.Itoa(a.ports.https)
	} else {
		a.ports.https = -1
	}
	if err := os.WriteFile(filepath.Join(a.dir, "agent.hcl"), []byte(a.config()), 0o600); err != nil {
		return err
	}
	return a.Run()
}

// config is the agent's configuration file.
func (a *Agent) config() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "node_name = %q\nbind_addr = %q\nclient_addr = %q\ndatacenter = \"dc1\"\nlog_level = \"warn\"\n", a.Node, a.options.Bind, a.options.Bind)
	fmt.Fprintf(&b, "disable_update_check = true\ndisable_host_node_id = true\n")
	fmt.Fprintf(&b, "ports { http = %d https = %d server = %d serf_lan = %d serf_wan = -1 dns = -1 grpc = -1 grpc_tls = -1 }\n",
		a.ports.http, a.ports.https, a.ports.server, a.ports.serf)
	if n := a.options.bootstrap; n > 0 {
		fmt.Fprintf(&b, "server = true\nbootstrap_expect = %d\ndata_dir = %q\nleave_on_terminate = false\nperformance { raft_multiplier = 1 }\nretry_join = [", n, a.dir)
		for i, address := range a.options.join {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%q", address)
		}
		b.WriteString("]\n")
	}
	b.WriteString(a.options.Config)
	return b.String()
}

// Run runs the agent again, with the same ports, after Kill. A development agent has then forgotten
// everything.
func (a *Agent) Run() error {
	args := []string{"agent", "-config-file", filepath.Join(a.dir, "agent.hcl")}
	if a.options.bootstrap == 0 {
		args = append(args, "-dev")
	}
	p, err := launch(a.options.Binary, args...)
	if err == nil {
		a.process = p
	}
	return err
}

// Kill ends the agent at once, as a crash does.
func (a *Agent) Kill() error { return a.process.end(syscall.SIGKILL) }

// Signal sends a signal to the agent; SIGSTOP makes it hang.
func (a *Agent) Signal(s syscall.Signal) error { return a.process.cmd.Process.Signal(s) }

// Close ends the agent and removes what it stored.
func (a *Agent) Close() error {
	return errors.Join(a.Kill(), os.RemoveAll(a.dir))
}

// Client makes a client of the agent, with a token if it is not empty.
func (a *Agent) Client(token string) (*api.Client, error) {
	c := api.DefaultNonPooledConfig()
	c.Address, c.Token = a.Address, token
	return api.NewClient(c)
}

// AwaitLeader waits until the agent knows a leader.
func (a *Agent) AwaitLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := a.Client("")
	if err != nil {
		return err
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		leader, err := client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
		if err == nil && leader != "" {
			return nil
		}
		select {
		case <-a.process.done:
			return fmt.Errorf("agent %s ended: %v: %s", a.Node, a.process.err, lastLines(a.process.out.String()))
		case <-ctx.Done():
			return fmt.Errorf("wait for a leader at %s: %w: %v: %s", a.Node, ctx.Err(), err, lastLines(a.process.out.String()))
		case <-ticker.C:
		}
	}
}

// process is a program that runs. Done is closed when it has ended and err is set.
type process struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{}
	err  error
}

func launch(binary string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(binary, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A group of its own: Ctrl-C at the terminal is for us, and we end it in order.
		Setpgid: true,
		// When we end without Close, it ends with the thread that started it.
		Pdeathsig: syscall.SIGKILL,
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread lives as long as the process
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// end sends a signal and waits until the process has ended.
func (p *process) end(s syscall.Signal) error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop Consul: %v", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop Consul: still there %v after %v", stopTimeout, s)
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
