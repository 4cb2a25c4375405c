// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package rig builds the lab that tests and the demonstration run in: network namespaces on this
// machine for a client, a router, balancers and servers, joined by virtual cables. Needs root.
//
//	            client                     198.51.100.2  2001:db8:c::2
//	              |
//	            router ------- lb          10.10.1.2     2001:db8:10:1::2   (lan0)
//	              |
//	   -----------+-----------
//	   |          |          |
//	server1    server2    server3          10.20.0.11 .. 2001:db8:20::11 ..
//
// The router sends packets for the VIPs to the balancers (by ECMP if there are several); the
// servers have the VIPs on their loopback interface and answer the client by way of the router,
// past the balancers.
//
// The cable to the client takes packets of 1500 bytes; all others take 1600, so that a full-size
// packet and its outer headers fit.
package rig

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Config says what a lab looks like. The zero value is a lab without VIPs, with one balancer and
// three servers.
type Config struct {
	// Balancers is the number of balancers, 1 to 9. 0 stands for 1.
	Balancers int
	// Servers is the number of servers, 1 to 9. 0 stands for 3.
	Servers int
	// VIPs are the addresses that the router sends to the balancers and that the servers have.
	VIPs []netip.Addr
}

// Lab is a set of joined network namespaces and what runs in them. Close removes all of it.
type Lab struct {
	// Name is remora-PID-N; the namespaces are called NAME-NODE, as in remora-4711-1-client.
	Name string
	// Dir is a directory for the files of the processes; Close removes it.
	Dir string

	Client, Router     *Node
	Balancers, Servers []*Node

	vips    []netip.Addr
	closers []func() error

	mu        sync.Mutex
	processes []*Process
}

// stopTimeout is how long a process may take to end when asked to, before it is killed.
const stopTimeout = 3 * time.Second

// New builds a lab. On error nothing is left behind. The caller closes the lab.
func New(cfg Config) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("build lab: network namespaces need root")
	}
	if cfg.Balancers == 0 {
		cfg.Balancers = 1
	}
	if cfg.Servers == 0 {
		cfg.Servers = 3
	}
	if cfg.Balancers < 0 || cfg.Balancers > 9 || cfg.Servers < 0 || cfg.Servers > 9 {
		return nil, fmt.Errorf("build lab: %d balancers and %d servers: 1 to 9 of each are possible", cfg.Balancers, cfg.Servers)
	}
	l := &Lab{vips: cfg.VIPs}
	if err := l.build(cfg.Balancers, cfg.Servers); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab: %v", err), l.Close())
	}
	return l, nil
}

// Nodes are all nodes of the lab.
func (l *Lab) Nodes() []*Node {
	var nodes []*Node
	for _, n := range slices.Concat([]*Node{l.Client, l.Router}, l.Balancers, l.Servers) {
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Close ends the processes of the lab, the youngest first, then what others started in its
// namespaces, and removes everything that New made. It may be called more than once; a lab that is closed can start nothing any more.
func (l *Lab) Close() error {
	l.mu.Lock()
	processes, closers := l.processes, l.closers
	l.processes, l.closers = nil, nil
	l.mu.Unlock()

	var errs []error
	for _, p := range slices.Backward(processes) {
		errs = append(errs, p.Stop(stopTimeout))
	}
	for _, n := range l.Nodes() {
		errs = append(errs, killNamespace(n.Namespace))
	}
	for _, f := range slices.Backward(closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// OnClose has f called by Close when the processes have ended, while the namespaces are still
// there. What was given last is called first.
func (l *Lab) OnClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closers = append(l.closers, f)
}

// addDir makes the lab's directory. The name is the lab's alone since there is a client: what has
// it already is from an earlier process with the same id.
func (l *Lab) addDir() error {
	dir := filepath.Join(os.TempDir(), l.Name)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove old directory: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %v", err)
	}
	l.Dir = dir
	l.OnClose(func() error { return os.RemoveAll(dir) })
	return nil
}
