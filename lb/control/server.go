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
	"net/http"
	"os"
	"time"

	"github.com/remora-lb/remora/lb/event"
)

// Config is what a server serves, to whom, and where.
type Config struct {
	// Socket is the path of the unix socket. Its folder is made if it is not there, with mode 0755.
	// At most 107 bytes, as the kernel has no room for more. Required; see DefaultSocket.
	Socket string
	// Mode is the socket's mode: who may connect needs the write bit. Default 0660.
	Mode fs.FileMode
	// Group owns the socket, and its members may use the API, beside root and the daemon's own user. A
	// name or a number. Default none: the socket has the daemon's group, whose members may connect but
	// are refused.
	Group string
	// Log receives calls that change something, and faults; nil discards them.
	Log *slog.Logger
	// Daemon is what is asked and steered. Required.
	Daemon Daemon
	// Events are what the daemon emits, for those who ask. Default: none.
	Events *event.Log
	// WatchInterval is the time between two looks at a drain that is watched. Default 1 s.
	WatchInterval time.Duration
}

// maxSocketBytes is the room of sockaddr_un, less the terminating zero (unix(7)).
const maxSocketBytes = 107

// Validate reports all problems, each with its field.
func (c Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Socket == "" || len(c.Socket) > maxSocketBytes {
		problem("Socket: %q has %d bytes, not 1 to %d", c.Socket, len(c.Socket), maxSocketBytes)
	}
	if c.Mode&^fs.ModePerm != 0 {
		problem("Mode: %#o is more than permissions", uint32(c.Mode))
	}
	if c.Group != "" {
		if _, err := lookupGroup(c.Group); err != nil {
			problem("Group: %v", err)
		}
	}
	if c.Daemon == nil {
		problem("Daemon: there is none")
	}
	if c.WatchInterval < 0 {
		problem("WatchInterval: %v is negative", c.WatchInterval)
	}
	return errors.Join(errs...)
}

func (c Config) mode() fs.FileMode {
	if c.Mode == 0 {
		return 0o660
	}
	return c.Mode
}

// bounds are those of calls. A call that streams is bounded by its parts, and by what it waits for.
type bounds struct {
	// call bounds a call that has one answer; answer is what is left for an answer that says that it
	// took too long.
	call, answer time.Duration
	// part bounds the wait for one part of a stream, and transfer an export or import as a whole.
	part, transfer time.Duration
	// grace is what calls have left when the server stops.
	grace time.Duration
	// document bounds a document that is imported, in bytes.
	document int
}

func defaultBounds() bounds {
	return bounds{
		call:     callTime,
		answer:   5 * time.Second,
		part:     30 * time.Second,
		transfer: 10 * time.Minute,
		grace:    3 * time.Second,
		document: 256 << 20,
	}
}

// pingTime is how long a peer may be silent before it is asked whether it is there, and how long it
// may take to say so.
const pingTime = 10 * time.Second

// callTime is how long servers work on a call, and clients wait for one.
const callTime = 30 * time.Second

// Server serves the API. There is nothing to close.
type Server struct {
	cfg    Config
	who    access
	bounds bounds
}

// New checks cfg and starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check control API configuration: %v", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = event.NewLog(nil)
	}
	if cfg.WatchInterval == 0 {
		cfg.WatchInterval = time.Second
	}
	s := &Server{cfg: cfg, who: access{uid: uint32(os.Geteuid()), group: cfg.Group}, bounds: defaultBounds()}
	if cfg.Group != "" {
		s.who.gid, _ = lookupGroup(cfg.Group) // Validate has found it
	}
	return s, nil
}

// Run serves until ctx ends, and then returns nil when no call is left: streams end at once, other
// calls have a few seconds. It fails if the socket cannot be made, or is another process's. One Run
// may be under way at a time.
func (s *Server) Run(ctx context.Context) error {
	socket, err := listen(ctx, s.cfg, s.who)
	if err != nil {
		return fmt.Errorf("serve control API: %v", err)
	}
	calls, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	h := newHandler(ctx, s.cfg, s.who, s.bounds)
	server := newHTTPServer(calls, h, s.cfg.Log)
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(newListener(socket, s.who, s.cfg.Log))
		h.stop()
	}()
	s.cfg.Log.Info("control API served", "socket", s.cfg.Socket)
	<-h.running.Done()
	grace, cancel := context.WithTimeout(context.Background(), s.bounds.grace)
	defer cancel()
	if server.Shutdown(grace) != nil { // calls or connections are left
		giveUp()
		server.Close()
	}
	err = <-served
	h.wait()
	if ctx.Err() == nil {
		return fmt.Errorf("serve control API: %v", err)
	}
	return nil
}

func newHTTPServer(calls context.Context, h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 64, SendPingTimeout: pingTime, PingTimeout: pingTime},
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return calls },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*peerConn).peer)
		},
	}
}
