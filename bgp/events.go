// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// event takes a change of a session in. GoBGP calls it from a goroutine of its own, one call
// after the other.
func (s *Speaker) event(r *api.WatchEventResponse) {
	e := r.GetPeer()
	if e == nil || e.Type != api.WatchEventResponse_PeerEvent_STATE {
		return
	}
	peer, err := netip.ParseAddr(e.Peer.GetConf().GetNeighborAddress())
	if err != nil {
		return
	}
	i := slices.IndexFunc(s.cfg.Peers, func(p Peer) bool { return p.Address == peer })
	if i < 0 {
		return
	}
	state := sessionState(e.Peer.GetState().GetSessionState())
	before := s.sessions.setState(peer, state, time.Now())
	switch {
	case state == Established && before != Established:
		s.cfg.Log.Debug("session established", "peer", peer)
		s.established(i, e.Peer.GetTransport().GetLocalAddress())
	case state != Established && before == Established:
		s.cfg.Log.Debug("session lost", "peer", peer, "reason", s.sessions.lastError(peer))
		s.lost(i)
	}
}

// sessionState translates GoBGP's state.
func sessionState(s api.PeerState_SessionState) SessionState {
	switch s {
	case api.PeerState_CONNECT:
		return Connect
	case api.PeerState_ACTIVE:
		return Active
	case api.PeerState_OPENSENT:
		return OpenSent
	case api.PeerState_OPENCONFIRM:
		return OpenConfirm
	case api.PeerState_ESTABLISHED:
		return Established
	}
	return Idle
}

// established starts what a session needs beside itself.
func (s *Speaker) established(i int, local string) {
	peer := s.cfg.Peers[i]
	if peer.negotiates() {
		s.consent(i)
	}
	if !peer.BFD.Enabled {
		return
	}
	addr, err := netip.ParseAddr(local)
	if err != nil {
		s.problem(peer.Address, fmt.Errorf("start BFD session: local address %q: %v", local, err))
		return
	}
	s.detectors.start(peer, addr)
}

// lost takes it back.
func (s *Speaker) lost(i int) {
	peer := s.cfg.Peers[i]
	s.detectors.stop(peer.Address)
	if peer.negotiates() {
		if err := s.setConsent(i, false); err != nil {
			s.problem(peer.Address, err)
		}
	}
}

// consent lets IPv4 routes through to peer i if it said that it takes IPv6 next hops.
func (s *Speaker) consent(i int) {
	ctx, peer := context.Background(), s.cfg.Peers[i].Address
	var agreed bool
	err := s.server.ListPeer(ctx, &api.ListPeerRequest{Address: peer.String()}, func(p *api.Peer) {
		agreed = takesExtendedNextHop(p.GetState())
	})
	if err == nil && !agreed {
		err = fmt.Errorf("the peer does not take IPv4 routes with an IPv6 next hop: it gets none")
	}
	if err == nil {
		err = s.setConsent(i, true)
	}
	if err == nil {
		soft := &api.ResetPeerRequest{Address: peer.String(), Soft: true, Direction: api.ResetPeerRequest_OUT}
		err = s.server.ResetPeer(ctx, soft)
	}
	if err != nil {
		s.problem(peer, err)
	}
}

// takesExtendedNextHop tells whether the peer's capabilities have IPv4 with IPv6 next hops (RFC
// 8950 section 4).
func takesExtendedNextHop(state *api.PeerState) bool {
	for _, packed := range state.GetRemoteCap() {
		var c api.ExtendedNexthopCapability
		if packed.UnmarshalTo(&c) != nil {
			continue // another capability
		}
		for _, t := range c.Tuples {
			if t.GetNlriFamily().GetAfi() == api.Family_AFI_IP && t.GetNexthopFamily().GetAfi() == api.Family_AFI_IP6 {
				return true
			}
		}
	}
	return false
}

// setConsent puts peer i into its set of the export policy, or takes it out.
func (s *Speaker) setConsent(i int, on bool) error {
	set := &api.DefinedSet{
		DefinedType: api.DefinedType_NEIGHBOR,
		Name:        consentSet(i),
		List:        []string{hostPrefix(s.cfg.Peers[i].Address)},
	}
	if on {
		return s.server.AddDefinedSet(context.Background(), &api.AddDefinedSetRequest{DefinedSet: set})
	}
	return s.server.DeleteDefinedSet(context.Background(), &api.DeleteDefinedSetRequest{DefinedSet: set})
}

// problem logs an error about a peer and keeps it as its last one.
func (s *Speaker) problem(peer netip.Addr, err error) {
	s.sessions.setError(peer, err.Error())
	s.cfg.Log.Warn(err.Error(), "peer", peer)
}
