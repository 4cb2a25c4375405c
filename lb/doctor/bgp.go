// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"syscall"
	"time"
)

// established is the state of a session that works.
const established = "established"

func (b *Balancer) checkSessions(ctx context.Context) (found []Finding) {
	const id = "bgp-session"
	if b.Setup.Problem != "" {
		return nil
	}
	if !b.Setup.BGP {
		return []Finding{fine(id, "", "the file has no `bgp:`: routers get the routes to VIPs in another way")}
	}
	if len(b.Setup.Peers) == 0 {
		return []Finding{warn(id, "", "the file has `bgp:` without a router: VIPs are announced to nobody").
			cure("`bgp: {peers: [{address: ADDRESS, asn: NUMBER}]}` in %s", b.Places.File)}
	}
	for _, p := range b.Setup.Peers {
		found = append(found, b.keyFile(p)...)
		switch s := b.session(p.Address); {
		case !b.Daemon.Answers:
			found = append(found, b.reachable(ctx, p))
		case s.State == established:
			found = append(found, fine(id, p.Address.String(), "the session is established"))
		default:
			found = append(found, b.brokenSession(ctx, p, s)...)
		}
	}
	return found
}

// session is that with a router; zero if the daemon does not tell of it.
func (b *Balancer) session(peer netip.Addr) Session {
	for _, s := range b.Daemon.Sessions {
		if s.Peer == peer {
			return s
		}
	}
	return Session{}
}

// dial tries to reach the BGP port of a router.
func (b *Balancer) dial(ctx context.Context, p Peer) error {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return b.Connect(ctx, netip.AddrPortFrom(p.Source, 0), netip.AddrPortFrom(p.Address, p.Port))
}

// reachable is all that can be told of a session without the daemon.
func (b *Balancer) reachable(ctx context.Context, p Peer) Finding {
	const id = "bgp-session"
	object := p.Address.String()
	if !p.Passive {
		if err := b.dial(ctx, p); err != nil {
			return warn(id, object, "no daemon answers, and TCP port %d of the router is not reached: %v", p.Port, err).
				cure("start the daemon; let TCP port %d pass both ways", p.Port)
		}
	}
	return cannotTell(id, object, errors.New("no daemon answers, and only it knows the session"), "a daemon that answers")
}

// keyFile demands that the key can be read.
func (b *Balancer) keyFile(p Peer) []Finding {
	const id = "bgp-key"
	if p.KeyFile == "" {
		return nil
	}
	text, err := b.text(p.KeyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{fail(id, p.Address.String(), "the file of the MD5 key is missing: %s", p.KeyFile).cure("write the key to %s", p.KeyFile)}
	case err != nil:
		return []Finding{cannotTell(id, p.Address.String(), err, "leave to read "+p.KeyFile)}
	case text == "":
		return []Finding{fail(id, p.Address.String(), "the file of the MD5 key is empty: %s", p.KeyFile).cure("write the key to %s", p.KeyFile)}
	}
	return nil
}

// dialTime bounds an attempt to reach a router.
const dialTime = 2 * time.Second

// brokenSession looks for the reason why a session is not established.
func (b *Balancer) brokenSession(ctx context.Context, p Peer, s Session) []Finding {
	const id = "bgp-session"
	object := p.Address.String()
	said := "the daemon does not tell its state"
	if s.State != "" {
		said = "it is in the state " + s.State
	}
	if s.LastError != "" {
		said += ", last error: " + s.LastError
	}
	broken := func(format string, args ...any) Finding {
		return fail(id, object, "the session is not established (%s): %s", said, fmt.Sprintf(format, args...))
	}
	if route, err := b.Network.Route(p.Address); err == nil && route.Problem != "" {
		return []Finding{broken("%s", route.Problem).cure("ip route add %s via GATEWAY", netip.PrefixFrom(p.Address, p.Address.BitLen()))}
	}
	if p.Passive {
		return []Finding{broken("the router is to connect, see `passive:`").
			cure("does the router know this balancer as a neighbour, and may it reach `bgp.listen.port` here?")}
	}
	to := netip.AddrPortFrom(p.Address, p.Port)
	err := b.dial(ctx, p)
	switch {
	case err == nil:
		return []Finding{broken("TCP port %d answers", p.Port).
			cure("compare AS numbers, addresses and `ebgp-multihop`/TTL security with the router: show bgp neighbors"), md5Unknown(p)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return []Finding{broken("%s refuses connections: no BGP there, or this address is not among its neighbours", to).
			cure("on the router: neighbor %s remote-as ASN", sourceName(p))}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return []Finding{broken("the local address %s is not on this host", p.Source).
			cure("`source:` of the peer in %s, or ip address add %s dev %s", b.Places.File, p.Source, b.iface())}
	}
	return []Finding{broken("%s does not answer (%v): a filter, another address, or a router that wants an MD5 key", to, err).
		cure("let TCP port %d pass both ways; ping -c 3 %s", p.Port, p.Address), md5Unknown(p)}
}

// md5Unknown says what cannot be known: packets with a wrong key, or without one, are dropped in
// silence, just as a filter does.
func md5Unknown(p Peer) Finding {
	facts := "this side has no MD5 key; whether the router wants one cannot be seen from here"
	if p.MD5 {
		facts = "this side has an MD5 key; whether the router has the same cannot be seen from here"
	}
	return cannotTell("bgp-md5", p.Address.String(), errors.New(facts), "a look at the router's configuration (FRR: neighbor ADDRESS "+
		"password), and at nstat -az TcpExtTCPMD5NotFound TcpExtTCPMD5Unexpected here")
}

func sourceName(p Peer) string {
	if p.Source.IsValid() {
		return p.Source.String()
	}
	return "THIS-BALANCER"
}

func (b *Balancer) checkAnnouncements(context.Context) (found []Finding) {
	const id = "bgp-announcement"
	if !b.Daemon.Answers || !b.Setup.BGP {
		return nil
	}
	for _, a := range b.Daemon.Announcements {
		if !a.Announced {
			found = append(found, warn(id, a.VIP.String(), "it is not announced: %s", a.Reason).
				cure("remora status shows why; docs/bgp.md has the list of reasons"))
		}
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "%d VIPs are announced", len(b.Daemon.Announcements)))
	}
	return gathered(found)
}
