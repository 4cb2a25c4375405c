// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// ICMP is a probe that sends an echo request. It uses a ping socket, which needs no privilege
// but a group within net.ipv4.ping_group_range, and otherwise a raw socket, which needs
// CAP_NET_RAW.
type ICMP struct {
	// Size is the length in bytes of the packet with its IP header (inside a tunnel: the inner
	// packet), 128 to 65535; it may not be fragmented. 0: a small packet.
	Size int
}

const (
	icmpHeaderLen = 8
	// nonceLen is the length of the random data by which an answer is known.
	nonceLen = 16
)

// Validate implements Kind.
func (c ICMP) Validate() error { return validateSize(c.Size) }

// Probe implements Kind.
func (c ICMP) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make ICMP probe: %v", err)
	}
	return &probe{kind: c, ask: c.ask}, nil
}

func (c ICMP) ask(ctx context.Context, t Target) (answer, error) {
	fd, raw, err := t.openEcho()
	if err != nil {
		return answer{}, err
	}
	conn := pollable(fd, "echo")
	defer conn.Close()
	stop := obey(ctx, conn)
	defer stop()
	if err := errors.Join(t.reportErrors(fd), t.forbidFragments(fd)); err != nil {
		return answer{}, err
	}
	if err := unix.Connect(fd, sockaddr(t.Addr)); err != nil {
		return answer{}, during("find a way to "+t.Addr.Addr().String(), err)
	}
	request, nonce, err := c.request(t)
	if err != nil {
		return answer{}, err
	}
	if _, err := conn.Write(request); err != nil {
		return answer{}, during("send the echo request", err)
	}
	return answer{}, receiveEcho(conn, t, raw, nonce)
}

// openEcho makes a ping socket if it may, or else a raw one.
func (t Target) openEcho() (fd int, raw bool, err error) {
	protocol := unix.IPPROTO_ICMP
	if t.family() == unix.AF_INET6 {
		protocol = unix.IPPROTO_ICMPV6
	}
	t.Addr = portless(t.Addr)
	fd, err = t.open(unix.SOCK_DGRAM, protocol)
	if !errors.Is(err, unix.EACCES) {
		return fd, false, err
	}
	fd, err = t.open(unix.SOCK_RAW, protocol)
	if errors.Is(err, unix.EPERM) {
		err = fail(Local, "open socket: it needs CAP_NET_RAW, or a group within net.ipv4.ping_group_range")
	}
	return fd, true, err
}

func (c ICMP) request(t Target) (packet, nonce []byte, err error) {
	// The first half tells probes apart; the kernel overwrites the identifier of ping sockets.
	nonce = make([]byte, nonceLen)
	rand.Read(nonce) // it never fails
	data := nonce
	if c.Size != 0 {
		data = make([]byte, c.Size-t.ipHeaderLen()-icmpHeaderLen)
		copy(data, nonce)
	}
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(binary.BigEndian.Uint16(nonce)), Seq: 1, Data: data}}
	if t.family() == unix.AF_INET6 {
		m.Type = ipv6.ICMPTypeEchoRequest // the kernel computes the sum
	}
	packet, err = m.Marshal(nil)
	if err != nil {
		return nil, nil, fail(Local, "make the echo request: %v", err)
	}
	return packet, nonce, nil
}

// receiveEcho reads until the reply comes that holds nonce. A raw socket sees all ICMP packets of
// the server.
func receiveEcho(conn *os.File, t Target, raw bool, nonce []byte) error {
	protocol, reply := unix.IPPROTO_ICMP, icmp.Type(ipv4.ICMPTypeEchoReply)
	if t.family() == unix.AF_INET6 {
		protocol, reply = unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoReply
	}
	buf := make([]byte, 65536)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return during("read the echo reply", err)
		}
		b := buf[:n]
		if raw && t.family() == unix.AF_INET {
			b = skipIPv4Header(b)
		}
		m, err := icmp.ParseMessage(protocol, b)
		if err != nil || m.Type != reply {
			continue
		}
		if echo, ok := m.Body.(*icmp.Echo); ok && len(echo.Data) >= nonceLen && string(echo.Data[:nonceLen]) == string(nonce) {
			return nil
		}
	}
}

// skipIPv4Header returns what follows the header; nothing if that is cut off.
func skipIPv4Header(b []byte) []byte {
	if len(b) == 0 || len(b) < int(b[0]&0xf)*4 {
		return nil
	}
	return b[int(b[0]&0xf)*4:]
}
