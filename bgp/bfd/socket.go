// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bfd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// Port is where control packets of single-hop sessions go (RFC 5881 section 4).
	Port = 3784
	// ttl is that of every packet sent and accepted: it came over no router (RFC 5881 section 5).
	ttl = 255
	// trafficClass marks packets as network control (DSCP CS6).
	trafficClass = 0xc0

	// Source ports are from this range, and one belongs to one session (RFC 5881 section 4).
	firstSourcePort = 49152
	sourcePorts     = 16384
	// portTries is how many source ports are tried before the session gives up for now.
	portTries = 16
)

// option is one socket option with a value.
type option struct{ level, name, value int }

// options are those of a socket of the family.
func options(v6 bool) []option {
	if v6 {
		return []option{
			{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl},
			{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, trafficClass},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		}
	}
	return []option{
		{unix.IPPROTO_IP, unix.IP_TTL, ttl},
		{unix.IPPROTO_IP, unix.IP_TOS, trafficClass},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
	}
}

// control sets the options of a new socket.
func control(v6 bool) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var errs []error
		err := c.Control(func(fd uintptr) {
			for _, o := range options(v6) {
				errs = append(errs, unix.SetsockoptInt(int(fd), o.level, o.name, o.value))
			}
		})
		return errors.Join(append(errs, err)...)
	}
}

func network(v6 bool) string {
	if v6 {
		return "udp6"
	}
	return "udp4"
}

// listen opens the socket that receives the packets of all sessions of a family.
func listen(ctx context.Context, v6 bool) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: control(v6)}
	conn, err := lc.ListenPacket(ctx, network(v6), ":"+strconv.Itoa(Port))
	if err != nil {
		return nil, fmt.Errorf("open BFD port: %v", err)
	}
	return conn.(*net.UDPConn), nil
}

// dial opens the socket that a session sends from.
func dial(ctx context.Context, local, remote netip.Addr) (conn net.Conn, err error) {
	for range portTries {
		from := netip.AddrPortFrom(local, uint16(firstSourcePort+rand.IntN(sourcePorts)))
		d := net.Dialer{Control: control(local.Is6()), LocalAddr: net.UDPAddrFromAddrPort(from)}
		conn, err = d.DialContext(ctx, network(local.Is6()), netip.AddrPortFrom(remote, Port).String())
		if err == nil || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open BFD socket: %v", err)
	}
	return conn, nil
}

// hops returns the TTL or hop limit that a packet came with, from its control messages; 0 if they
// do not tell.
func hops(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, m := range messages {
		isTTL := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_TTL
		isHopLimit := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT
		if (isTTL || isHopLimit) && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}
