// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

// link is the watched interface, as the kernel has it.
type link struct {
	name  string
	index int // 0 if there is no such interface
	mtu   int // bytes
	// up is the operator's wish, carrier what the wire says.
	up, carrier bool
	ethernet    bool
}

// problem is why no frame can leave by the interface; empty if one can.
func (l link) problem() string {
	switch {
	case l.index == 0:
		return fmt.Sprintf("interface %s does not exist", l.name)
	case !l.ethernet:
		return fmt.Sprintf("interface %s is not an Ethernet", l.name)
	case !l.up:
		return fmt.Sprintf("interface %s is down", l.name)
	case !l.carrier:
		return fmt.Sprintf("interface %s has no carrier", l.name)
	}
	return ""
}

// table is everything that decides about next hops.
type table struct {
	link       link
	fixed      *lb.NextHop
	routes     map[netip.Addr]route // by wanted address
	neighbours map[netip.Addr]neighbour
}

// nextHop decides where frames to dst go. via is the neighbour that it depends on; not valid if it
// depends on none.
func (t *table) nextHop(dst netip.Addr) (hop lb.NextHop, via netip.Addr) {
	if t.fixed != nil {
		return t.fixedHop(), netip.Addr{}
	}
	if p := t.link.problem(); p != "" {
		return lb.NextHop{Problem: p}, netip.Addr{}
	}
	r, ok := t.routes[dst]
	if !ok {
		return lb.NextHop{Problem: fmt.Sprintf("route to %s is not looked up yet", dst)}, netip.Addr{}
	}
	if r.problem != "" {
		return lb.NextHop{Problem: r.problem}, netip.Addr{}
	}
	via = t.pick(dst, r.gateways)
	n := t.neighbours[via]
	if n.condition() == missing {
		return lb.NextHop{Problem: n.problem(via, t.link.name)}, via
	}
	mtu := t.link.mtu
	if r.mtu > 0 {
		mtu = min(mtu, r.mtu)
	}
	return lb.NextHop{MAC: n.mac, MTU: mtu}, via
}

func (t *table) fixedHop() lb.NextHop {
	hop := *t.fixed
	if hop.MTU != 0 {
		return hop
	}
	if t.link.index == 0 {
		return lb.NextHop{Problem: t.link.problem()}
	}
	hop.MTU = t.link.mtu
	return hop
}

// pick chooses the gateway of dst. Those with a usable neighbour entry come first; among equals the
// highest hash of gateway and destination wins. So destinations spread over the gateways of a
// multipath route, the choice is always the same, and only the destinations of a gateway that comes
// or goes change theirs. The weights of the route are not honoured.
func (t *table) pick(dst netip.Addr, gateways []netip.Addr) netip.Addr {
	var best netip.Addr
	var bestUsable bool
	var bestScore uint64
	for _, g := range gateways {
		usable := t.neighbours[g].condition() != missing
		score := affinity(g, dst)
		if !best.IsValid() || usable && !bestUsable || usable == bestUsable && score > bestScore {
			best, bestUsable, bestScore = g, usable, score
		}
	}
	return best
}

// affinity is a hash of two addresses.
func affinity(gateway, dst netip.Addr) uint64 {
	h := fnv.New64a()
	for _, a := range [2]netip.Addr{gateway, dst} {
		b := a.As16()
		h.Write(b[:])
	}
	// FNV leaves the high bits, which decide a comparison, nearly untouched by the last bytes. A
	// second round over the sum spreads them.
	var sum [8]byte
	binary.LittleEndian.PutUint64(sum[:], h.Sum64())
	h.Write(sum[:])
	return h.Sum64()
}

// gateways are the conditions of all neighbours that the routes lead to, also of those not chosen:
// they have to be ready when the chosen one fails. It is empty while the interface cannot be used.
func (t *table) gateways() map[netip.Addr]condition {
	all := make(map[netip.Addr]condition)
	if t.fixed != nil || t.link.problem() != "" {
		return all
	}
	for _, r := range t.routes {
		for _, g := range r.gateways {
			all[g] = t.neighbours[g].condition()
		}
	}
	return all
}
