// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prepare sets the options of a new socket, before it is bound or connected.
//
// TCP sockets get SO_LINGER with 0 seconds: closing sends a reset. Whoever closes a connection
// first in the usual way keeps it in TIME_WAIT for a minute; at 10 000 probes a second that would
// be 600 000 sockets, and for one server every local port. The server sees a reset where it would
// have seen the end of the stream.
func (t Target) prepare(fd int, stream bool) error {
	if t.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(t.Mark)); err != nil {
			return fail(Local, "set mark %#x: %v (it needs CAP_NET_ADMIN)", t.Mark, err)
		}
	}
	if t.Interface != "" {
		if err := unix.BindToDevice(fd, t.Interface); err != nil {
			return fail(Local, "bind to interface %q: %v", t.Interface, err)
		}
	}
	if !stream {
		return nil
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fail(Local, "set SO_LINGER: %v", err)
	}
	if t.Source.IsValid() {
		// The port is chosen when the destination is known, so one can serve many destinations.
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fail(Local, "set IP_BIND_ADDRESS_NO_PORT: %v", err)
		}
	}
	return nil
}

// bind gives a socket the target's source address, if there is one.
func (t Target) bind(fd int) error {
	if !t.Source.IsValid() {
		return nil
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(t.Source.Unmap(), 0))); err != nil {
		return fail(Local, "bind to source address %s: %v", t.Source, err)
	}
	return nil
}

// open makes a prepared and bound socket that does not block. The caller closes it.
func (t Target) open(kind, protocol int) (int, error) {
	fd, err := unix.Socket(t.family(), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := t.prepare(fd, kind == unix.SOCK_STREAM); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := t.bind(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (t Target) family() int {
	if t.Addr.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// dialTCP connects, after extra has seen the socket, if it is not nil. The connection's reads and
// writes end when the context does; release lets go of the context and closes the connection.
func (t Target) dialTCP(ctx context.Context, extra func(fd int) error) (conn net.Conn, release func(), err error) {
	dialer := net.Dialer{KeepAlive: -1, Control: control(func(fd int) error {
		if err := t.prepare(fd, true); err != nil || extra == nil {
			return err
		}
		return extra(fd)
	})}
	if t.Source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.Source, 0))
	}
	return t.dial(ctx, dialer, "tcp")
}

// dialUDP is dialTCP for a connected UDP socket, which also receives ICMP errors.
func (t Target) dialUDP(ctx context.Context) (conn net.Conn, release func(), err error) {
	dialer := net.Dialer{Control: control(func(fd int) error {
		return errors.Join(t.prepare(fd, false), t.reportErrors(fd))
	})}
	if t.Source.IsValid() {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.Source, 0))
	}
	return t.dial(ctx, dialer, "udp")
}

func (t Target) dial(ctx context.Context, dialer net.Dialer, network string) (net.Conn, func(), error) {
	conn, err := dialer.DialContext(ctx, network, t.Addr.String())
	if err != nil {
		return nil, nil, during("connect to "+t.Addr.String(), err)
	}
	stop := obey(ctx, conn)
	return conn, func() { stop(); conn.Close() }, nil
}

// control makes f what a net.Dialer does with a new socket.
func control(f func(fd int) error) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
			return e
		}
		return err
	}
}

// reportErrors asks the kernel to report every ICMP error, not only those that it takes for final.
func (t Target) reportErrors(fd int) error {
	level, option := unix.SOL_IP, unix.IP_RECVERR
	if t.family() == unix.AF_INET6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fail(Local, "ask for ICMP errors: %v", err)
	}
	return nil
}

// forbidFragments has packets sent with "don't fragment", whatever their size.
func (t Target) forbidFragments(fd int) error {
	level, option, do := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if t.family() == unix.AF_INET6 {
		level, option, do = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
		if err := unix.SetsockoptInt(fd, level, unix.IPV6_DONTFRAG, 1); err != nil {
			return fail(Local, "forbid fragments: %v", err)
		}
	}
	if err := unix.SetsockoptInt(fd, level, option, do); err != nil {
		return fail(Local, "forbid fragments: %v", err)
	}
	return nil
}

// ipHeaderLen is the length of the IP header of packets to the target.
func (t Target) ipHeaderLen() int {
	if t.family() == unix.AF_INET6 {
		return 40
	}
	return 20
}

// obey has the reads and writes of c end when ctx ends. The caller calls stop when it is done.
func obey(ctx context.Context, c interface{ SetDeadline(time.Time) error }) (stop func() bool) {
	if deadline, ok := ctx.Deadline(); ok {
		// It fails on closed connections only; the next read says so too.
		_ = c.SetDeadline(deadline)
	}
	return context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
}

// pollable hands a socket to the Go runtime, so that reads and writes wait without a thread. The
// file owns the socket.
func pollable(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }
