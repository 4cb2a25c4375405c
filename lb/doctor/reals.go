// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// servers are the addresses that packets are tunnelled to, each with a real as an example: the one
// with the longest outer headers.
func (b *Balancer) servers() []lb.Real {
	example := make(map[netip.Addr]lb.Real)
	for _, r := range b.reals() {
		if r.Tunnel.Encap == lb.Local {
			continue // this machine
		}
		if e, ok := example[r.Backend.Addr]; !ok || e.Tunnel.OuterLen() < r.Tunnel.OuterLen() {
			example[r.Backend.Addr] = r
		}
	}
	list := make([]lb.Real, 0, len(example))
	for _, r := range example {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b lb.Real) int { return a.Backend.Addr.Compare(b.Backend.Addr) })
	return list
}

// gathered are findings that differ in their objects only, as one.
func gathered(found []Finding) []Finding {
	type kind struct{ id, facts, cure string }
	objects := make(map[kind][]string)
	first := make(map[kind]Finding)
	var order []kind
	for _, f := range found {
		k := kind{f.ID, f.Facts, f.Cure}
		if _, ok := first[k]; !ok {
			order = append(order, k)
			first[k] = f
		}
		objects[k] = append(objects[k], f.Object)
	}
	list := make([]Finding, 0, len(order))
	for _, k := range order {
		f := first[k]
		f.Object = some(objects[k])
		list = append(list, f)
	}
	return list
}

// checkNextHops follows the way of each real to its link address.
func (b *Balancer) checkNextHops(context.Context) []Finding {
	l, ok := b.device()
	if !ok {
		return nil
	}
	servers := b.servers()
	if b.Setup.FixedNextHop {
		return []Finding{fine("next-hop", "", "the file gives the next hop of all %d reals", len(servers))}
	}
	var found []Finding
	for _, r := range servers {
		if f := b.nextHop(r, l); f.Verdict != OK {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return []Finding{fine("next-hop", "", "all reals have a link address (%d servers)", len(servers))}
	}
	return gathered(found)
}

func (b *Balancer) nextHop(r lb.Real, l Link) Finding {
	addr := r.Backend.Addr
	route, err := b.Network.Route(addr)
	if err != nil {
		return cannotTell("next-hop", addr.String(), err, "netlink")
	}
	if route.Problem != "" {
		return fail("next-hop", addr.String(), "%s: packets to it are dropped as nexthop_unknown", route.Problem).
			cure("ip route add %s via GATEWAY dev %s", netip.PrefixFrom(addr, addr.BitLen()), l.Name)
	}
	if !route.uses(l.Name) {
		return fail("real-interface", addr.String(), "the route to it leaves by %s, but packets can leave by %s only: they are dropped "+
			"as nexthop_unknown", hopNames(route), l.Name).
			cure("ip route replace %s via GATEWAY dev %s, or `interface: %s` in %s",
				netip.PrefixFrom(addr, addr.BitLen()), l.Name, route.Hops[0].Link, b.Places.File)
	}
	return b.neighbour(r, route, l)
}

func hopNames(r Route) string {
	names := make([]string, 0, len(r.Hops))
	for _, h := range r.Hops {
		names = append(names, h.Link)
	}
	slices.Sort(names)
	return some(slices.Compact(names))
}

// neighbour looks at the link addresses of a route's ways; one that is known is enough.
func (b *Balancer) neighbour(r lb.Real, route Route, l Link) Finding {
	const id = "next-hop"
	addr := r.Backend.Addr
	var worst Finding
	for _, h := range route.Hops {
		if h.Link != l.Name {
			continue
		}
		gateway := addr
		if h.Gateway.IsValid() {
			gateway = h.Gateway
		}
		n, err := b.Network.Neighbour(l.Index, gateway)
		if err != nil {
			return cannotTell(id, addr.String(), err, "netlink")
		}
		state := cmp.Or(n.State, "no entry")
		look := fmt.Sprintf("ip neighbour show %s dev %s; ping -c 3 -I %s %s: is %s on, on this link, in the same VLAN?",
			gateway, l.Name, l.Name, gateway, gateway)
		switch {
		case n.MAC != "" && n.State != "failed" && n.State != "incomplete":
			if r.NextHop.Stale {
				return note(id, addr.String(), "%s on %s did not confirm its link address lately; packets still go to it", gateway, l.Name).
					cure("%s", look)
			}
			return fine(id, addr.String(), "by way of %s on %s", gateway, l.Name)
		case n.State == "" && b.Plane.Writer == 0:
			worst = note(id, addr.String(), "nobody has asked for the link address of %s on %s yet: the daemon does when it starts", gateway, l.Name).
				cure("%s", look)
		default:
			worst = fail(id, addr.String(), "%s on %s does not answer for its link address (%s): packets are dropped as nexthop_unknown",
				gateway, l.Name, state).
				cure("%s", look)
		}
	}
	return worst
}

// clientMTU is the longest packet that clients send, where no link is narrower.
const clientMTU = 1500

// checkRealMTU compares the way to each real with the outer headers.
func (b *Balancer) checkRealMTU(context.Context) []Finding {
	l, ok := b.device()
	if !ok {
		return nil
	}
	servers := b.servers()
	var found []Finding
	for _, r := range servers {
		if f := b.realMTU(r, l); f.Verdict != OK {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return []Finding{fine("real-mtu", "", "a client's packet of %d bytes and its outer headers fit the way to all reals (%d servers), as far "+
			"as this host knows it", clientMTU, len(servers))}
	}
	return gathered(found)
}

func (b *Balancer) realMTU(r lb.Real, l Link) Finding {
	const id = "real-mtu"
	addr, outer, mtu := r.Backend.Addr.String(), r.Tunnel.OuterLen(), l.MTU
	if !b.Setup.FixedNextHop {
		route, err := b.Network.Route(r.Backend.Addr)
		if err != nil {
			return cannotTell(id, addr, err, "netlink")
		}
		if route.MTU > 0 {
			mtu = min(mtu, route.MTU)
		}
	}
	if mtu-outer >= clientMTU {
		return fine(id, addr, "%d bytes", mtu)
	}
	facts := fmt.Sprintf("the way takes %d bytes, %v needs %d of them: clients' packets of more than %d bytes are dropped as too_big",
		mtu, r.Tunnel.Encap, outer, mtu-outer)
	cure := fmt.Sprintf("ip link set dev %s mtu %d (switches and servers too), or on the servers: ip route change default via "+
		"GATEWAY advmss %d (IPv6: %d)",
		l.Name, clientMTU+outer, mtu-outer-tcp4, mtu-outer-tcp6)
	if n := b.Plane.Reasons[lb.ReasonTooBig]; n > 0 {
		return fail(id, addr, "%s; %d were", facts, n).cure("%s", cure)
	}
	return warn(id, addr, "%s", facts).cure("%s", cure)
}

// The lengths of IP and TCP headers without options.
const (
	tcp4 = 40
	tcp6 = 60
)

// checkHealth tells of the reals that are down, and of VIPs of which all are.
func (b *Balancer) checkHealth(context.Context) (found []Finding) {
	if !b.Daemon.Answers {
		return nil // daemon and control-socket say so
	}
	checked := 0
	for _, h := range b.Daemon.Health {
		checked += h.Checked
		for _, s := range h.Down {
			if s.Down {
				found = append(found, warn("real-down", s.Backend.String(), "%s: %s", cmp.Or(s.Fault, s.Reason, "down"), s.Detail).
					cure("%s", cureOf(s, h.VIP)))
			} else {
				found = append(found, warn("real-fault", s.Backend.String(), "%s: %s", s.Fault, s.Detail).cure("%s", cureOf(s, h.VIP)))
			}
		}
		if h.Checked == 0 || h.Healthy > 0 {
			continue
		}
		then := "it is not served"
		if h.FailOpen {
			then = "the checks are not believed, and all serve"
		}
		found = append(found, fail("all-reals-down", h.VIP.String(), "all %d reals fail their health checks; %s", h.Checked, then).
			cure("%s", cureOf(h.first(), h.VIP)))
	}
	switch {
	case checked == 0:
		found = append(found, fine("health", "", "no service has health checks"))
	case len(found) == 0:
		found = append(found, fine("health", "", "%d reals are checked, none fails", checked))
	}
	return gathered(found)
}

// first is the first real that is down; zero if there is none.
func (h Health) first() Sick {
	for _, s := range h.Down {
		if s.Down {
			return s
		}
	}
	return Sick{}
}

// cureOf is where to look because of what the health checks found (docs/health.md).
func cureOf(s Sick, v lb.VIP) string {
	one := v
	one.HostBits = 0 // any address of a prefix will do
	examine := fmt.Sprintf("on the server: remora doctor --server --vip %s", one)
	switch s.Fault {
	case "service_down", "service_failing", "wrong_port", "not_on_vip", "tls":
		return "on the server: is the service up, and bound to the VIP? " + examine
	case "decapsulation_missing":
		return fmt.Sprintf("on the server: remora decap --interface DEVICE --vip %s; %s", v.Addr, examine)
	case "vip_missing":
		return fmt.Sprintf("on the server: ip address add %s dev lo; %s", v.Prefix(), examine)
	case "path_mtu":
		return fmt.Sprintf("the MTU of every link to the server, or advmss there; %s", examine)
	case "server_down":
		return "is the server up, and does the network carry packets to it? ping it"
	}
	return examine
}
