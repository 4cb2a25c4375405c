// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bgp

import (
	"time"

	api "github.com/osrg/gobgp/v3/api"
)

// ttlMax is the greatest TTL; packets of a session with TTL security start with it.
const ttlMax = 255

// apiPeer is a peer with defaults in GoBGP's form. It is disabled, see Speaker.addPeers.
func (c Config) apiPeer(p Peer, password string) *api.Peer {
	peer := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			PeerAsn:         p.ASN,
			AuthPassword:    password,
			AdminDown:       true,
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:               seconds(p.HoldTime),
			KeepaliveInterval:      seconds(p.KeepaliveTime),
			ConnectRetry:           seconds(p.ConnectRetryTime),
			IdleHoldTimeAfterReset: seconds(p.IdleTime),
		}},
		Transport: &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(p.Port)},
	}
	if p.Source.IsValid() {
		peer.Transport.LocalAddress = p.Source.String()
	}
	if p.MultihopTTL > 0 {
		peer.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.MultihopTTL)}
	}
	if p.TTLSecurityHops > 0 {
		peer.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: ttlMax + 1 - uint32(p.TTLSecurityHops)}
	}
	c.addFamilies(peer, p.Families)
	return peer
}

// addFamilies adds the families and graceful restart, which GoBGP wants by family too.
func (c Config) addFamilies(peer *api.Peer, families []Family) {
	graceful := c.GracefulRestart.RestartTime > 0
	for _, f := range families {
		peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
		})
	}
	if graceful {
		peer.GracefulRestart = &api.GracefulRestart{
			Enabled:             true,
			RestartTime:         uint32(seconds(c.GracefulRestart.RestartTime)),
			DeferralTime:        uint32(seconds(c.GracefulRestart.DeferralTime)),
			NotificationEnabled: true,
			LocalRestarting:     c.Restarting,
		}
	}
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }
