// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"context"
	"net/netip"
	"sync"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/remora-lb/remora/bgp/bfd"
)

// detectors are the BFD sessions. One lives exactly as long as its BGP session is established:
// some routers make their BFD session anew when BGP comes up, and one that was up already would
// flap and take BGP with it.
type detectors struct {
	speaker *Speaker
	bfd     *bfd.Speaker
	running sync.WaitGroup

	mu sync.Mutex
	// live are by peer; closed refuses new ones.
	live   map[netip.Addr]*detector
	closed bool
}

// detector is one BFD session; done is closed when it has ended.
type detector struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func newDetectors(s *Speaker) *detectors {
	return &detectors{speaker: s, bfd: bfd.New(), live: make(map[netip.Addr]*detector)}
}

// start starts a BFD session in the place of one that is there or ending.
func (d *detectors) start(peer Peer, local netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	old := d.live[peer.Address]
	ctx, cancel := context.WithCancel(context.Background())
	next := &detector{cancel: cancel, done: make(chan struct{})}
	d.live[peer.Address] = next
	d.running.Go(func() {
		defer close(next.done)
		defer cancel()
		if old != nil {
			old.cancel()
			<-old.done
		}
		if ctx.Err() == nil {
			d.run(ctx, peer, local)
		}
	})
}

// run has a BFD session until ctx ends.
func (d *detectors) run(ctx context.Context, peer Peer, local netip.Addr) {
	s := d.speaker
	s.sessions.setBFD(peer.Address, bfd.Down.String())
	defer s.sessions.setBFD(peer.Address, bfdOff)
	err := d.bfd.Run(ctx, bfd.Config{
		Local:      local,
		Remote:     peer.Address,
		Interval:   peer.BFD.Interval,
		Multiplier: peer.BFD.Multiplier,
		OnChange: func(state bfd.State, expired bool) {
			s.cfg.Log.Debug("BFD session changed", "peer", peer.Address, "state", state.String())
			s.sessions.setBFD(peer.Address, state.String())
			if expired {
				d.reset(peer.Address)
			}
		},
	})
	if err != nil {
		s.problem(peer.Address, err)
	}
}

// reset ends a BGP session whose peer is gone. If it was the peer that signalled down, the peer
// ends the BGP session itself, if it wants to.
func (d *detectors) reset(peer netip.Addr) {
	s := d.speaker
	request := &api.ResetPeerRequest{Address: peer.String(), Communication: "BFD: detection time expired"}
	if err := s.server.ResetPeer(context.Background(), request); err != nil {
		s.problem(peer, err)
	}
}

// stop lets a peer's BFD session end on purpose.
func (d *detectors) stop(peer netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if live := d.live[peer]; live != nil {
		live.cancel()
	}
}

// close ends all BFD sessions, telling the peers that it is on purpose, and waits for them.
func (d *detectors) close() {
	d.mu.Lock()
	d.closed = true
	for _, live := range d.live {
		live.cancel()
	}
	d.mu.Unlock()
	d.running.Wait()
	_ = d.bfd.Close() // nothing is lost with sockets that only receive
}
