// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// connector makes many TCP connections at once from one goroutine. A probe that only connects is
// nearly all system calls; a goroutine and a timer for each would add half of their cost again
// (README.md has the figures). begin, forget and wake may be called from any
// goroutine, one at a time for the first two; wait and close are one goroutine's.
type connector struct {
	epoll, bell int
	events      []unix.EpollEvent
	// serial tells a socket from an earlier one with the same number, whose event was read but
	// not yet looked at.
	serial int32
}

// connection is a socket that is being connected.
type connection struct {
	fd     int32
	serial int32
}

// connected is a connection that was made, or could not be made.
type connected struct {
	connection
	events uint32
}

// maxEvents is how many events are read at once.
const maxEvents = 256

func newConnector() (*connector, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %v", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make eventfd: %v", err)
	}
	c := &connector{epoll: epoll, bell: bell, events: make([]unix.EpollEvent, maxEvents)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(bell)}); err != nil {
		c.close()
		return nil, fmt.Errorf("watch eventfd: %v", err)
	}
	return c, nil
}

// begin starts to connect. The caller calls forget, whatever becomes of the connection.
func (c *connector) begin(t Target) (connection, error) {
	fd, err := t.open(unix.SOCK_STREAM, 0)
	if err != nil {
		return connection{}, err
	}
	if err := unix.Connect(fd, sockaddr(t.Addr)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return connection{}, err
	}
	c.serial++
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLOUT, Fd: int32(fd), Pad: c.serial,
	}); err != nil {
		unix.Close(fd)
		return connection{}, fail(Local, "watch socket: %v", err)
	}
	return connection{int32(fd), c.serial}, nil
}

func connectFailure(t Target, err error) error {
	return during("connect to "+t.Addr.String(), err)
}

// forget closes the connection's socket, with a reset if it was connected.
func (c *connector) forget(n connection) { unix.Close(int(n.fd)) }

// wait returns what has become of connections, as soon as there is something, wake is called, or
// the time has passed; a negative time never passes. The time is rounded up to milliseconds, which
// makes small batches of what is due.
func (c *connector) wait(timeout time.Duration) ([]connected, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(c.epoll, c.events, ms)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return nil, fmt.Errorf("wait for sockets: %v", err)
	}
	var done []connected
	for _, e := range c.events[:max(n, 0)] {
		if int(e.Fd) == c.bell {
			c.drainBell()
			continue
		}
		done = append(done, connected{connection{e.Fd, e.Pad}, e.Events})
	}
	return done, nil
}

// look tells at once what has become of a connection; false if nothing yet.
func (c *connector) look(n connection) (connected, bool) {
	poll := []unix.PollFd{{Fd: n.fd, Events: unix.POLLOUT}}
	if ready, err := unix.Poll(poll, 0); err != nil || ready == 0 {
		return connected{}, false
	}
	// The bits of poll and epoll are the same, see linux/eventpoll.h.
	return connected{n, uint32(poll[0].Revents)}, true
}

// outcome is the error of the connection, nil if it was made. The connection must not have been
// forgotten: the question takes the error from the socket, and another one may have its number.
func (c connected) outcome() error {
	if c.events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		return nil
	}
	errno, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	switch unix.Errno(errno) {
	case 0, unix.ECONNRESET, unix.EPIPE:
		return nil // it was made, and the server has already ended it
	}
	return unix.Errno(errno)
}

// wake has wait return.
func (c *connector) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It fails only if the counter is full, and then the bell rings anyway.
	_, _ = unix.Write(c.bell, one[:])
}

func (c *connector) drainBell() {
	var count [8]byte
	_, _ = unix.Read(c.bell, count[:]) // empty if somebody was faster; there is nobody
}

func (c *connector) close() {
	unix.Close(c.bell)
	unix.Close(c.epoll)
}
