// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// TCP is a probe that connects and resets the connection.
type TCP struct {
	// Size is the length in bytes of the largest packet to send, with its IP header (inside a
	// tunnel: the inner packet); 128 to 65535. 0 sends nothing. The packets are full of line feeds,
	// may not be fragmented, and must be acknowledged. A server that accepts only smaller segments
	// gets those.
	Size int
}

// minSize leaves room for all headers and options.
const minSize = 128

// tcpHeaderLen is the length without options: the maximum segment size counts options as data.
const tcpHeaderLen = 20

// Validate implements Kind.
func (c TCP) Validate() error { return validateSize(c.Size) }

func validateSize(size int) error {
	if size != 0 && (size < minSize || size > 65535) {
		return fmt.Errorf("Size: %d is neither 0 nor from %d to 65535", size, minSize)
	}
	return nil
}

// Probe implements Kind.
func (c TCP) Probe() (Probe, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make TCP probe: %v", err)
	}
	return &probe{kind: c, ask: c.ask}, nil
}

func (c TCP) ask(ctx context.Context, t Target) (answer, error) {
	if c.Size == 0 {
		_, release, err := t.dialTCP(ctx, nil)
		if err == nil {
			release()
		}
		return answer{}, err
	}
	conn, release, err := t.dialTCP(ctx, func(fd int) error { return c.limit(t, fd) })
	if err != nil {
		return answer{}, err
	}
	defer release()
	// Two segments, so that one is full whatever options the headers carry.
	if _, err := conn.Write(bytes.Repeat([]byte{'\n'}, 2*c.Size)); err != nil {
		return answer{}, awaiting("send padding", err)
	}
	return answer{}, c.acknowledged(ctx, conn.(*net.TCPConn))
}

// limit makes Size the length of full packets. It must be called before the socket connects.
func (c TCP) limit(t Target, fd int) error {
	mss := c.Size - t.ipHeaderLen() - tcpHeaderLen
	if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_MAXSEG, mss); err != nil {
		return fail(Local, "set the segment size to %d: %v", mss, err)
	}
	return t.forbidFragments(fd)
}

// acknowledged waits until the server has all that was sent. The kernel does not say when that is
// so; it must be asked.
func (c TCP) acknowledged(ctx context.Context, conn *net.TCPConn) error {
	const longestPause = 20 * time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, longestPause) {
		select {
		case <-ctx.Done():
			return fail(NoAnswer, "packets of %d bytes were not acknowledged in time", c.Size)
		case <-timer.C:
		}
		info, err := tcpInfo(conn)
		switch {
		case err != nil:
			return fail(Local, "ask for acknowledgements: %v", err)
		case info.Pmtu < uint32(c.Size):
			return fail(TooBig, "packets of %d bytes do not fit: the path takes %d", c.Size, info.Pmtu)
		case info.State == tcpClose:
			return fail(Reset, "the connection was reset before packets of %d bytes were acknowledged", c.Size)
		case info.Unacked == 0 && info.Notsent_bytes == 0:
			return nil
		}
		timer.Reset(pause)
	}
}

// tcpClose is TCP_CLOSE of linux/tcp_states.h.
const tcpClose = 7

func tcpInfo(conn *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
	}); e != nil {
		return nil, e
	}
	return info, err
}
