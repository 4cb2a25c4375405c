// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxConns and maxRefusedConns bound the connections at one time, of peers that may use the API and
// of those that are only told that they may not.
const (
	maxConns        = 512
	maxRefusedConns = 16
)

// listen makes the socket. What is there already is replaced if it is a socket that no process serves.
func listen(ctx context.Context, cfg Config, who access) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Socket), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(cfg.Socket); err != nil {
		return nil, err
	}
	// Linux gives the file the mode of the socket's inode, less the umask: none can connect before the
	// group and mode are as they are to be, but root.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if controlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	l, err := lc.Listen(ctx, "unix", cfg.Socket)
	if err != nil {
		return nil, err
	}
	if err := permit(cfg, who); err != nil {
		l.Close()
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// permit gives the socket its group and mode.
func permit(cfg Config, who access) error {
	if who.group != "" {
		if err := os.Chown(cfg.Socket, -1, int(who.gid)); err != nil {
			return err
		}
	}
	return os.Chmod(cfg.Socket, cfg.mode())
}

// removeStale removes the socket of a process that has ended. It refuses what is no socket, or is
// served.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: remove it, or name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process serves %s: end it, or name another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("find out whether another process serves %s: %v", path, err)
	}
	return os.Remove(path)
}

// listener accepts connections and asks who is at their other end.
type listener struct {
	*net.UnixListener
	log *slog.Logger
	who access
	// Each connection takes a place of one of them until it is closed.
	allowed, refused chan struct{}
}

func newListener(l *net.UnixListener, who access, log *slog.Logger) *listener {
	return &listener{l, log, who, make(chan struct{}, maxConns), make(chan struct{}, maxRefusedConns)}
}

// Accept implements net.Listener. Connections beyond the bounds are closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(c)
		if err != nil {
			l.log.Warn("control API: connection closed, its peer is not known", "error", err)
			c.Close()
			continue
		}
		places := l.refused
		if l.who.allows(p) {
			places = l.allowed
		}
		select {
		case places <- struct{}{}:
			return &peerConn{UnixConn: c, peer: p, leave: sync.OnceFunc(func() { <-places })}, nil
		default:
			l.log.Warn("control API: connection closed, there are too many", "uid", p.uid, "pid", p.pid, "limit", cap(places))
			c.Close()
		}
	}
}

// peerConn is a connection of a known peer.
type peerConn struct {
	*net.UnixConn
	peer  peer
	leave func()
}

// Close also gives the connection's place back.
func (c *peerConn) Close() error {
	defer c.leave()
	return c.UnixConn.Close()
}
