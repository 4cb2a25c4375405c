// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// flushTimeout is how long the speaker may take to close a connection of its own.
const flushTimeout = 5 * time.Second

// checkListening fails if the sockets on which Go listens are Multipath TCP: those take neither MD5
// keys nor the least TTL of received packets, which GoBGP finds out late or only logs.
func checkListening() error {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback(netip.IPv4Unspecified()).String(), "0"))
	if err != nil {
		return fmt.Errorf("try to listen: %v", err)
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return fmt.Errorf("try to listen: %v", err)
	}
	protocol := 0
	var optErr error
	err = raw.Control(func(fd uintptr) {
		protocol, optErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	})
	if err := errors.Join(err, optErr); err != nil {
		return fmt.Errorf("try to listen: %v", err)
	}
	if protocol == unix.IPPROTO_MPTCP {
		return errors.New("listening sockets are Multipath TCP, without TCP MD5 and TTL security: build the program with //go:debug multipathtcp=0, or run it with GODEBUG=multipathtcp=0")
	}
	return nil
}

// listenAddresses are where the speaker listens.
func (s *Speaker) listenAddresses() []netip.Addr {
	if len(s.cfg.ListenAddresses) > 0 {
		return s.cfg.ListenAddresses
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// checkPort fails if the speaker cannot listen, and says why.
func (s *Speaker) checkPort() error {
	for _, a := range s.listenAddresses() {
		network := "tcp4"
		if a.Is6() {
			network = "tcp6"
		}
		l, err := net.Listen(network, net.JoinHostPort(a.String(), strconv.Itoa(s.cfg.ListenPort)))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// flushConnections returns when each listening socket has no connection left that came before
// now. The kernel hands connections over in their order: it makes one itself, which the speaker
// closes like any that is not from a peer.
func (s *Speaker) flushConnections(ctx context.Context) error {
	for _, a := range s.listenAddresses() {
		if err := flush(ctx, loopback(a), s.cfg.ListenPort); err != nil {
			return fmt.Errorf("close early connections to %v: %v", a, err)
		}
	}
	return nil
}

// loopback is where a socket that listens on all addresses can be reached.
func loopback(a netip.Addr) netip.Addr {
	switch a {
	case netip.IPv4Unspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return a
}

// flush connects and waits until the other end closes.
func flush(ctx context.Context, addr netip.Addr, port int) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(flushTimeout)); err != nil {
		return err
	}
	if _, err = conn.Read(make([]byte, 1)); err == nil {
		return fmt.Errorf("the connection was accepted, although no peer has the address %v", conn.LocalAddr())
	}
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("it was not closed for %v", flushTimeout)
	}
	return nil // closed, or reset
}
