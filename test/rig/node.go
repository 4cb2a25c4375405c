// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where named network namespaces are, as in ip-netns(8).
const netnsDir = "/run/netns"

// Node is one machine of the lab: a network namespace, and a thread that lives in it. Its methods
// may be called concurrently.
type Node struct {
	// Name is the node's role, such as client or server1.
	Name string
	// Namespace is the name of its network namespace.
	Namespace string
	// IPv4 and IPv6 are the node's addresses towards the router; invalid for the router itself.
	IPv4, IPv6 netip.Addr

	lab   *Lab
	links *netlink.Handle
	// addrs are all IPv6 addresses that were added, see settled.
	addrs []netip.Addr
	calls chan func()
	// closed is closed by close: no call is taken any more. ended is closed by the thread.
	closed, ended chan struct{}
}

// errNodeClosed is what a node answers after its lab was closed.
var errNodeClosed = errors.New("the lab is closed")

// addNode makes the namespace LAB-NAME and its thread. The error is fs.ErrExist if there is a
// namespace of this name.
func (l *Lab) addNode(name string) (*Node, error) {
	n := &Node{
		Name:      name,
		Namespace: l.Name + "-" + name,
		lab:       l,
		calls:     make(chan func()),
		closed:    make(chan struct{}),
		ended:     make(chan struct{}),
	}
	started := make(chan error, 1)
	go n.serve(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", n.Namespace, err)
	}
	l.OnClose(n.close)
	if err := n.Do(func() (err error) {
		n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}); err != nil {
		return nil, fmt.Errorf("open netlink in %s: %v", n.Namespace, err)
	}
	return n, n.prepare()
}

// serve moves its thread to a new namespace and runs the node's calls there. The thread is never
// given back to the Go runtime: it ends with the node. Before that it returns to where it came
// from, because the runtime keeps the process's first thread, which would keep the namespace.
func (n *Node) serve(started chan<- error) {
	defer close(n.ended)
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		started <- err
		return
	}
	defer home.Close()
	handle, err := netns.NewNamed(n.Namespace)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			err = errors.Join(err, removeNamespace(n.Namespace))
		}
		started <- errors.Join(err, netns.Set(home))
		return
	}
	handle.Close()
	started <- nil
	for {
		select {
		case f := <-n.calls:
			f()
		case <-n.closed:
			// A failure leaves the namespace without a name until the process ends.
			_ = netns.Set(home)
			return
		}
	}
}

// Do calls f on the node's thread: sockets that f opens and files in /proc/sys/net that it
// touches are the node's. One call runs at a time, so f must not block for long, nor call the
// node's methods.
func (n *Node) Do(f func() error) error {
	result := make(chan error, 1)
	select {
	case n.calls <- func() { result <- f() }:
		return <-result
	case <-n.closed:
		return fmt.Errorf("use node %s: %v", n.Name, errNodeClosed)
	}
}

// close ends the thread and removes the namespace.
func (n *Node) close() error {
	if n.links != nil {
		n.links.Close()
	}
	close(n.closed)
	<-n.ended
	return removeNamespace(n.Namespace)
}

// removeNamespace removes a namespace's name; the kernel removes the namespace and its links when
// nothing is in it any more.
func removeNamespace(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: the file is there, but the namespace was never tied to it.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove network namespace %s: %v", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %v", err)
	}
	return nil
}

// prepare sets what must be set before the first link comes.
func (n *Node) prepare() error {
	for _, s := range []struct{ key, value string }{
		// Addresses are usable at once.
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		// Outer source addresses belong to nobody, and answers take another way than requests.
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		// Packets may leave by the interface that they came in by.
		{"net.ipv4.conf.all.send_redirects", "0"},
		{"net.ipv4.conf.default.send_redirects", "0"},
	} {
		if err := n.SetSysctl(s.key, s.value); err != nil {
			return err
		}
	}
	return n.setUp("lo")
}

// SetSysctl sets a kernel parameter of the node's network, such as net.ipv4.ip_forward, as
// sysctl(8) does.
func (n *Node) SetSysctl(key, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("set %s=%s in %s: %v", key, value, n.Namespace, err)
	}
	return nil
}
