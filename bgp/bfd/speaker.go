// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package bfd detects within a fraction of a second that a neighbour is gone: asynchronous mode
// over a single hop (RFC 5880, RFC 5881), IPv4 and IPv6, without authentication, echo and demand
// mode. It knows nothing of the daemon, so it can run in a process of its own.
package bfd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// ErrRunning is returned for a second session with one peer.
var ErrRunning = errors.New("there is a BFD session with this peer already")

// Speaker owns the receiving sockets, one per family that has had a session. Its methods may be
// called concurrently. Close it after its sessions have ended.
type Speaker struct {
	mu sync.Mutex
	// sessions are by the peer's address.
	sessions map[netip.Addr]*session
	// conns are nil until the first session of their family.
	conns   [2]*net.UDPConn
	readers sync.WaitGroup
}

// New returns a speaker that has opened nothing yet.
func New() *Speaker { return &Speaker{sessions: make(map[netip.Addr]*session)} }

// Run has a session with a peer until ctx ends, and then tells the peer that it ended on purpose.
// It returns an error if the configuration is wrong or a socket cannot be opened, and ErrRunning
// (wrapped) if there is a session with the peer.
func (s *Speaker) Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("start BFD session: %v", err)
	}
	if err := s.listen(ctx, cfg.Remote.Is6()); err != nil {
		return err
	}
	conn, err := dial(ctx, cfg.Local, cfg.Remote)
	if err != nil {
		return err
	}
	defer conn.Close()
	session := newSession(cfg.withDefaults(), conn)
	if err := s.add(cfg.Remote, session); err != nil {
		return err
	}
	defer s.remove(cfg.Remote)
	session.run(ctx)
	return nil
}

// Close closes the receiving sockets.
func (s *Speaker) Close() error {
	s.mu.Lock()
	var errs []error
	for i, c := range s.conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
		s.conns[i] = nil
	}
	s.mu.Unlock()
	s.readers.Wait()
	return errors.Join(errs...)
}

// listen opens the receiving socket of a family if it is not open.
func (s *Speaker) listen(ctx context.Context, v6 bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	if v6 {
		i = 1
	}
	if s.conns[i] != nil {
		return nil
	}
	conn, err := listen(ctx, v6)
	if err != nil {
		return err
	}
	s.conns[i] = conn
	s.readers.Go(func() { s.receive(conn) })
	return nil
}

func (s *Speaker) add(peer netip.Addr, session *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[peer] != nil {
		return fmt.Errorf("start BFD session with %v: %w", peer, ErrRunning)
	}
	s.sessions[peer] = session
	return nil
}

func (s *Speaker) remove(peer netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, peer)
}

// receive hands packets to their sessions until the socket is closed. What is not for a session is
// dropped without a word: anybody can send it.
func (s *Speaker) receive(conn *net.UDPConn) {
	b, oob := make([]byte, 256), make([]byte, 256)
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || hops(oob[:oobn]) != ttl {
			continue
		}
		p, err := decode(b[:n])
		if err != nil {
			continue
		}
		s.mu.Lock()
		session := s.sessions[from.Addr().Unmap().WithZone("")]
		s.mu.Unlock()
		if session != nil {
			session.deliver(p)
		}
	}
}
