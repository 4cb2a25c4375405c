// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// The time that a peer has to come back after a restart before the next one is added, see
// startPeers. It is a part of the restart time within these limits.
const (
	minSettleTime = 3 * time.Second
	maxSettleTime = 15 * time.Second
)

// startPeers adds the peers. After a restart there is a fault of GoBGP 3 to work around: as soon as
// one peer has its routes again, GoBGP tells no other peer any more that this is a restart, so
// that those take the routes out. The peers to connect to are therefore added one after the
// other: nextPeer adds the next when the last one has its routes, or did not come in time.
func (s *Speaker) startPeers(ctx context.Context) error {
	if !s.cfg.Restarting {
		return s.addPeers(ctx, s.cfg.Peers...)
	}
	var passive []Peer
	for _, p := range s.cfg.Peers {
		if p.Passive {
			passive = append(passive, p)
		} else {
			s.later = append(s.later, p)
		}
	}
	s.settleTime = max(minSettleTime, min(maxSettleTime, s.cfg.GracefulRestart.RestartTime/time.Duration(2*len(s.cfg.Peers)+1)))
	if err := s.addPeers(ctx, passive...); err != nil {
		return err
	}
	return s.nextPeer(ctx)
}

// nextPeer adds a peer that startPeers left for later, if there is one.
func (s *Speaker) nextPeer(ctx context.Context) error {
	if len(s.later) == 0 {
		s.settle.Stop()
		return nil
	}
	next := s.later[0]
	s.later = s.later[1:]
	s.settle.Reset(s.settleTime)
	return s.addPeers(ctx, next)
}

// settled is called when GoBGP takes a restart for finished.
func (s *Speaker) settled(ctx context.Context, now time.Time) error {
	if !s.cfg.Restarting {
		return nil
	}
	if now.Sub(s.began) < s.cfg.GracefulRestart.RestartTime {
		if err := s.renewPeers(ctx); err != nil {
			return err
		}
	}
	return s.nextPeer(ctx)
}

// renewPeers adds those peers anew that were added but have not begun to talk: there is no other
// way to have GoBGP tell them of the restart. One that begins at this very moment may not hear of
// it; that can befall passive peers, and those that were not there in time.
func (s *Speaker) renewPeers(ctx context.Context) error {
	silent := make(map[netip.Addr]bool)
	err := s.server.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		state := sessionState(p.GetState().GetSessionState())
		if addr, err := netip.ParseAddr(p.GetConf().GetNeighborAddress()); err == nil && (state == Idle || state == Active) {
			silent[addr] = true
		}
	})
	if err != nil {
		return fmt.Errorf("list peers: %v", err)
	}
	var renew []Peer
	for i, p := range s.cfg.Peers {
		if !silent[p.Address] || s.sessions.everEstablished(i) {
			continue
		}
		if err := s.server.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
			return fmt.Errorf("delete peer %v: %v", p.Address, err)
		}
		renew = append(renew, p)
	}
	return s.addPeers(ctx, renew...)
}

// addPeers adds peers disabled, so that their MD5 keys are set, and enables them when no
// connection from before that is left: a listening socket takes connections without a key until
// it has one.
func (s *Speaker) addPeers(ctx context.Context, peers ...Peer) error {
	keys := false
	for _, p := range peers {
		if err := s.addPeer(ctx, p); err != nil {
			return err
		}
		keys = keys || p.PasswordFile != ""
	}
	if keys && s.cfg.ListenPort > 0 {
		if err := s.flushConnections(ctx); err != nil {
			return err
		}
	}
	for _, p := range peers {
		if err := s.server.EnablePeer(ctx, &api.EnablePeerRequest{Address: p.Address.String()}); err != nil {
			return fmt.Errorf("enable peer %v: %v", p.Address, err)
		}
	}
	return nil
}

// addPeer adds a peer, disabled.
func (s *Speaker) addPeer(ctx context.Context, p Peer) error {
	peer := s.cfg.apiPeer(p, s.passwords[p.Address])
	if err := s.server.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil {
		return fmt.Errorf("add peer %v: %v", p.Address, err)
	}
	select {
	case err := <-s.log.unprotected:
		return fmt.Errorf("add peer %v: %v", p.Address, err)
	default:
		return nil
	}
}
