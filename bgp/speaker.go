// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package bgp announces prefixes to routers. It embeds GoBGP and is the only package that knows
// of it. Whoever uses it hands over the whole set of routes on every change; sessions come and go
// by themselves and are never touched by a change of routes. Nothing is accepted from peers.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
)

// ErrStopped is returned by Announce after Stop or the end of Run.
var ErrStopped = errors.New("the BGP speaker has been stopped")

// closeTimeout is how long GoBGP may take to close all sessions.
const closeTimeout = 5 * time.Second

// Speaker owns the sessions. GoBGP's goroutines end with the process only, so a process makes one
// speaker, and another one only if it broke. Its methods may be called concurrently.
//
// There are two ways to stop. Stop says goodbye: routers take the routes out. To end the context
// of Run and then the process says nothing: with graceful restart the routers keep the routes,
// and the next speaker, with Config.Restarting, takes over without a change of routes. If
// forwarding did not go on meanwhile, the next speaker runs without Config.Restarting, and
// routers drop the routes as soon as it comes up.
type Speaker struct {
	cfg       Config
	passwords map[netip.Addr]string
	sessions  *sessions
	log       *logger

	// ready is closed when server is set and takes routes, first when routes were announced for
	// the first time, stopped when Stop has closed the sessions, ended when Run returns.
	ready, first, stopped, ended chan struct{}
	server                       *server.BgpServer
	detectors                    *detectors

	// The following belong to Run's goroutine. began is when it began.
	began time.Time
	// later are the peers that have not been added yet after a restart; settle fires when the
	// next one is due, settleTime after the one before.
	later      []Peer
	settle     *time.Timer
	settleTime time.Duration

	// mu is held during a change of routes or peers.
	mu sync.Mutex
	// realised are the routes that the server has.
	realised table
	// firstOnce and stopOnce close first and stopped.
	firstOnce, stopOnce sync.Once
}

// New validates the configuration and reads the password files. It starts nothing.
func New(cfg Config) (*Speaker, error) {
	passwords, err := readPasswords(cfg.Peers)
	if err := errors.Join(cfg.Validate(), err); err != nil {
		return nil, fmt.Errorf("configure BGP: %v", err)
	}
	cfg = cfg.withDefaults()
	s := &Speaker{
		cfg:       cfg,
		passwords: passwords,
		sessions:  newSessions(cfg.Peers, time.Now(), cfg.OnChange),
		ready:     make(chan struct{}),
		first:     make(chan struct{}),
		stopped:   make(chan struct{}),
		ended:     make(chan struct{}),
		realised:  make(table),
	}
	s.log = newLogger(cfg.Log, s.sessions)
	s.detectors = newDetectors(s)
	return s, nil
}

// Run starts the speaker, and after the first Announce its sessions. It blocks until ctx ends,
// Stop is done, or the speaker broke, which is an error: then its sockets and sessions are closed, and
// another speaker may be made. It must be called once.
func (s *Speaker) Run(ctx context.Context) (err error) {
	s.began, s.settle = time.Now(), time.NewTimer(time.Hour)
	s.settle.Stop()
	defer close(s.ended)
	defer s.detectors.close()
	defer func() {
		if err != nil {
			s.abandon()
		}
	}()
	closeAPI, err := s.start(ctx)
	if err != nil {
		return fmt.Errorf("start BGP: %v", err)
	}
	defer closeAPI()
	first := s.first
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.stopped:
			return nil
		case err := <-s.log.broken:
			return fmt.Errorf("run BGP: %v", err)
		case <-first:
			first = nil
			err = s.unlessStopped(func() error { return s.startPeers(ctx) })
		case <-s.log.synced:
			err = s.unlessStopped(func() error { return s.settled(ctx, time.Now()) })
		case <-s.settle.C:
			err = s.unlessStopped(func() error { return s.nextPeer(ctx) })
		}
		if err != nil {
			return fmt.Errorf("run BGP: %v", err)
		}
	}
}

// abandon has GoBGP close what it has open, so that another speaker can take its place. What is broken
// in it may keep it from that.
func (s *Speaker) abandon() {
	if s.server == nil {
		return
	}
	done := make(chan struct{})
	go func() { // there is no way to end this early
		defer close(done)
		s.server.Stop()
	}()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

// unlessStopped calls f while Stop does nothing.
func (s *Speaker) unlessStopped(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopped:
		return nil
	default:
		return f()
	}
}

// start starts GoBGP without peers.
func (s *Speaker) start(ctx context.Context) (closeAPI func(), err error) {
	if s.cfg.ListenPort > 0 {
		if err := checkListening(); err != nil {
			return nil, err
		}
		// GoBGP keeps the goroutines of a server that could not listen.
		if err := s.checkPort(); err != nil {
			return nil, err
		}
	}
	socket, err := newAPISocket(s.cfg.APISocket)
	if err != nil {
		return nil, err
	}
	s.server = server.NewBgpServer(append(socket.options(), server.LoggerOption(s.log))...)
	go s.server.Serve()
	defer func() {
		if err != nil {
			socket.close()
		}
	}()
	if err := socket.publish(ctx, s.log.broken); err != nil {
		return nil, err
	}
	global := &api.Global{Asn: s.cfg.ASN, RouterId: s.cfg.RouterID.String(), ListenPort: int32(s.cfg.ListenPort)}
	for _, a := range s.cfg.ListenAddresses {
		global.ListenAddresses = append(global.ListenAddresses, a.String())
	}
	// GoBGP's server lives on when ctx has ended, see Speaker.
	ctx = context.WithoutCancel(ctx)
	if err := s.server.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return nil, err
	}
	if err := newPolicies(s.cfg).install(ctx, s.server); err != nil {
		return nil, err
	}
	watch := &api.WatchEventRequest{Peer: &api.WatchEventRequest_Peer{}}
	if err := s.server.WatchEvent(ctx, watch, s.event); err != nil {
		return nil, fmt.Errorf("watch sessions: %v", err)
	}
	close(s.ready)
	return socket.close, nil
}

// Announce makes the routes the whole set that is announced. Before Run it waits for it. On error
// some of the changes may not have been made; calling again makes them. A problem with a route
// is found before anything changes. ErrStopped (wrapped) may come.
func (s *Speaker) Announce(ctx context.Context, routes []Route) error {
	wanted, err := newTable(routes)
	if err != nil {
		return fmt.Errorf("announce: %v", err)
	}
	select {
	case <-s.ready:
	case <-s.ended:
		return fmt.Errorf("announce: %w", ErrStopped)
	case <-ctx.Done():
		return fmt.Errorf("announce: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopped:
		return fmt.Errorf("announce: %w", ErrStopped)
	case <-s.ended:
		return fmt.Errorf("announce: %w", ErrStopped)
	default:
	}
	err = s.apply(ctx, diff(s.realised, wanted))
	s.sessions.count(s.cfg.Peers, s.realised)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	s.firstOnce.Do(func() { close(s.first) })
	return nil
}

// apply makes the steps, and notes each after it succeeded. mu is held.
func (s *Speaker) apply(ctx context.Context, steps steps) error {
	var errs []error
	for _, p := range steps.withdraw {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if err := s.withdraw(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("withdraw %v: %v", p, err))
			continue
		}
		delete(s.realised, p)
	}
	for _, r := range steps.announce {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		if err := s.add(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("route %v: %v", r.Prefix, err))
			continue
		}
		s.realised[r.Prefix] = r
	}
	return errors.Join(errs...)
}

func (s *Speaker) add(ctx context.Context, r Route) error {
	path, err := r.path()
	if err != nil {
		return err
	}
	_, err = s.server.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
	return err
}

// withdraw always names a path: without one GoBGP would withdraw everything.
func (s *Speaker) withdraw(ctx context.Context, p netip.Prefix) error {
	path, err := Route{Prefix: p}.path()
	if err != nil {
		return err
	}
	return s.server.DeletePath(ctx, &api.DeletePathRequest{TableType: api.TableType_GLOBAL, Path: path})
}

// Sessions returns the sessions in the order of the configuration.
func (s *Speaker) Sessions() []Session { return s.sessions.list() }

// Stop says goodbye: it withdraws all routes, waits so that routers can move their traffic while
// the sessions are still there, and closes the sessions, after which Run returns. It must come
// before the end of Run's context. If ctx ends early, sessions are closed at once.
func (s *Speaker) Stop(ctx context.Context, wait time.Duration) error {
	err := s.Announce(ctx, nil)
	if errors.Is(err, ErrStopped) {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.ended:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ready:
	default:
		return err // it never ran
	}
	defer s.stopOnce.Do(func() { close(s.stopped) })
	done := make(chan error, 1)
	// There is no way to end this early.
	go func() { done <- s.server.StopBgp(context.WithoutCancel(ctx), &api.StopBgpRequest{}) }()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case stopErr := <-done:
		return errors.Join(err, stopErr)
	case <-timeout.C:
		return errors.Join(err, fmt.Errorf("stop BGP: sessions were not closed for %v", closeTimeout))
	}
}
