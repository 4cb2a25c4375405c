// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// families are those of the VIPs: false for IPv4, true for IPv6.
func (s *Server) families() (list []bool) {
	for _, ipv6 := range []bool{false, true} {
		if slices.ContainsFunc(s.VIPs, func(v lb.VIP) bool { return v.Addr.Is6() == ipv6 }) {
			list = append(list, ipv6)
		}
	}
	return list
}

func family(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// checkReturn demands a way to the clients.
func (s *Server) checkReturn(context.Context) (found []Finding) {
	const id = "return-route"
	for _, ipv6 := range s.families() {
		object := family(ipv6)
		routes, err := s.returnRoutes(ipv6)
		switch {
		case err != nil:
			found = append(found, cannotTell(id, object, err, "netlink"))
		case len(routes) == 0:
			found = append(found, warn(id, object, "there is no default route: clients without a route of their own get no answer").
				cure("ip route add default via GATEWAY; or doctor --client ADDRESS"))
		case routes[0].Problem != "":
			found = append(found, fail(id, object, "%s: clients get no answer", routes[0].Problem).
				cure("ip route add %s via GATEWAY", netip.PrefixFrom(s.Client, s.Client.BitLen())))
		default:
			found = append(found, fine(id, object, "answers leave by %s", hopNames(routes[0])))
		}
	}
	return found
}

// outerLen is the longest outer header, with the IPv4 and the IPv6 network between balancer and
// server.
func (s *Server) outerLen() int {
	longest := 0
	for _, e := range s.encapsulations() {
		longest = max(longest, lb.Tunnel{Encap: e, Destination: s.outer()}.OuterLen())
	}
	return longest
}

// outer is an address of the family in which balancers send: IPv4 if the server has one beside the
// VIPs, since outer IPv4 is what is usual.
func (s *Server) outer() netip.Addr {
	addresses, err := s.Network.Addresses()
	if err != nil {
		return netip.IPv6Unspecified() // the longer of both
	}
	for _, a := range addresses {
		addr := a.Prefix.Addr()
		if addr.Is4() && addr.IsGlobalUnicast() && !slices.Contains(s.addresses(), addr) {
			return addr
		}
	}
	return netip.IPv6Unspecified()
}

// checkSegments demands that clients' packets, with their outer headers, fit the link: either it
// takes longer ones, or TCP tells clients to send less.
func (s *Server) checkSegments(context.Context) (found []Finding) {
	const id = "mss"
	for _, ipv6 := range s.families() {
		routes, err := s.returnRoutes(ipv6)
		if err != nil {
			return []Finding{cannotTell(id, family(ipv6), err, "netlink")}
		}
		for _, r := range routes {
			if len(r.Hops) > 0 {
				found = append(found, s.segments(id, ipv6, r))
			}
		}
	}
	return found
}

func (s *Server) segments(id string, ipv6 bool, r Route) Finding {
	l, ok, err := s.link(r.Hops[0].Link)
	if err != nil || !ok {
		return cannotTell(id, family(ipv6), errors.Join(errors.New("the interface of the route is not there"), err), "netlink")
	}
	headers, keyword := tcp4, ""
	if ipv6 {
		headers, keyword = tcp6, "-6 "
	}
	outer := s.outerLen()
	good := l.MTU - outer - headers
	announced := min(clientMTU, l.MTU) - headers
	if r.AdvMSS > 0 {
		announced = min(announced, r.AdvMSS)
	}
	if announced <= good {
		return fine(id, family(ipv6), "clients are told segments of %d bytes, and %s takes %d with %d bytes of outer headers",
			announced, l.Name, good, outer)
	}
	gateway := "dev " + l.Name
	if r.Hops[0].Gateway.IsValid() {
		gateway = "via " + r.Hops[0].Gateway.String()
	}
	return warn(id, family(ipv6), "clients are told segments of %d bytes, and with %d bytes of outer headers %s takes %d: full "+
		"packets may be lost on the way here, unless the network clamps the MSS", announced, outer, l.Name, good).
		cure("ip %sroute change default %s advmss %d; or an MTU of %d on the way from the balancers", keyword, gateway, good, clientMTU+outer)
}

// checkICMP looks at what the server does with the messages that path MTU discovery lives on.
func (s *Server) checkICMP(context.Context) []Finding {
	const id = "icmp"
	var found []Finding
	for _, c := range []struct {
		file string
		bad  int
		says string
	}{
		{"ip_no_pmtu_disc", 1, "path MTU discovery is off: long answers are fragmented on the way, or lost"},
		{"icmp_echo_ignore_all", 1, "echo requests are not answered: balancers cannot tell a dead server from a broken tunnel"},
	} {
		path := "/proc/sys/net/ipv4/" + c.file
		n, err := s.number(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // not of this network namespace
		case err != nil:
			found = append(found, cannotTell(id, c.file, err, "leave to read "+path))
		case n == c.bad:
			found = append(found, note(id, c.file, "%s", c.says).cure("sysctl -w net.ipv4.%s=0", c.file))
		}
	}
	if len(found) == 0 {
		found = append(found, fine(id, "", "path MTU discovery is on, and echo requests are answered"))
	}
	return found
}
