// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

const loopback = "lo"

// checkAddresses demands that the kernel takes packets to the VIPs for its own.
func (s *Server) checkAddresses(context.Context) (found []Finding) {
	const id = "vip-address"
	addresses, err := s.Network.Addresses()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	for _, vip := range s.addresses() {
		i := slices.IndexFunc(addresses, func(a Address) bool { return a.Prefix.Addr() == vip })
		if i < 0 {
			found = append(found, fail(id, vip.String(), "no interface has the address: the kernel does not take its packets, even if they "+
				"are unwrapped").
				cure("ip address add %s dev lo", netip.PrefixFrom(vip, vip.BitLen())))
			continue
		}
		found = append(found, vipAddress(id, addresses[i]))
	}
	return found
}

func vipAddress(id string, a Address) Finding {
	vip := a.Prefix.Addr()
	host := netip.PrefixFrom(vip, vip.BitLen())
	again := fmt.Sprintf("ip address del %s dev %s && ip address add %s dev lo", a.Prefix, a.Link, host)
	switch {
	case a.Duplicate:
		return fail(id, vip.String(), "IPv6 does not use the address on %s: another machine on the link has it", a.Link).cure("%s", again)
	case a.Tentative:
		return warn(id, vip.String(), "IPv6 does not use the address on %s yet: it waits whether another machine has it", a.Link).
			cure("ip address add %s dev lo nodad", host)
	case a.Link == loopback && a.Prefix.Bits() != vip.BitLen():
		return warn(id, vip.String(), "the address on lo is %s: the whole prefix counts as this server's own, so answers to clients in "+
			"it never leave", a.Prefix).
			cure("%s", again)
	case a.Link != loopback:
		return note(id, vip.String(), "the address is on %s: all servers with the VIP would answer ARP or neighbour requests for it "+
			"there, if the link is shared", a.Link).
			cure("%s", again)
	}
	return fine(id, vip.String(), "it is on %s with scope %s", a.Link, a.Scope)
}

// The least values that keep a server from answering for a VIP, and from naming it in its requests.
const (
	arpIgnore   = 1
	arpAnnounce = 2
)

// checkARP demands that no server answers for the address that all of them have.
func (s *Server) checkARP(context.Context) (found []Finding) {
	const id = "arp"
	if !slices.ContainsFunc(s.VIPs, func(v lb.VIP) bool { return v.Addr.Is4() }) {
		return nil
	}
	links, err := s.Network.Links()
	if err != nil {
		return []Finding{cannotTell(id, "", err, "netlink")}
	}
	for _, l := range links {
		if !l.Ethernet || !l.Up || l.Name == loopback {
			continue
		}
		ignore, err := s.setting(l.Name, "arp_ignore")
		announce, announceErr := s.setting(l.Name, "arp_announce")
		switch {
		case err != nil || announceErr != nil:
			found = append(found, cannotTell(id, l.Name, errors.Join(err, announceErr), "leave to read /proc/sys"))
		case ignore < arpIgnore || announce < arpAnnounce:
			found = append(found, warn(id, l.Name, "arp_ignore is %d and arp_announce %d: on a link that the router or clients share, this "+
				"server takes the VIPs' packets away from the balancers", ignore, announce).
				cure("sysctl -w net.ipv4.conf.all.arp_ignore=%d net.ipv4.conf.all.arp_announce=%d", arpIgnore, arpAnnounce))
		default:
			found = append(found, fine(id, l.Name, "arp_ignore is %d and arp_announce %d", ignore, announce))
		}
	}
	return gathered(found)
}

// checkListeners looks for the sockets of the VIPs.
func (s *Server) checkListeners(context.Context) (found []Finding) {
	for _, v := range s.VIPs {
		found = append(found, s.listener(v))
	}
	return found
}

func (s *Server) listener(v lb.VIP) Finding {
	const id = "listener"
	if v.Port == 0 {
		return cannotTell(id, v.String(), errors.New("the VIP is for all ports"), "the ports that matter, as --vip ADDRESS:PORT/PROTOCOL")
	}
	bound, err := s.boundTo(v.Protocol, v.Port)
	switch {
	case err != nil:
		return cannotTell(id, v.String(), err, "leave to read /proc/net")
	case slices.Contains(bound, v.Addr), slices.ContainsFunc(bound, func(a netip.Addr) bool {
		// A socket of :: takes IPv4 too, unless its program does not want that.
		return a.IsUnspecified() && (a.Is6() || v.Addr.Is4())
	}):
		return fine(id, v.String(), "a socket is bound to it")
	case len(bound) > 0:
		return fail(id, v.String(), "port %d is bound on other addresses only: %s", v.Port, some(texts(bound))).
			cure("have the service listen on %s, or on all addresses", netip.AddrPortFrom(v.Addr, v.Port))
	}
	return fail(id, v.String(), "no socket is bound to port %d: connections are refused", v.Port).
		cure("start the service, listening on %s; ss -lnt, ss -lnu show what listens", netip.AddrPortFrom(v.Addr, v.Port))
}

func texts(addrs []netip.Addr) (list []string) {
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}

// boundTo are the addresses of sockets that take connections or datagrams on a port. Kernels without
// IPv6 have no files of it.
func (s *Server) boundTo(p lb.Protocol, port uint16) (addrs []netip.Addr, err error) {
	for _, name := range []string{p.String(), p.String() + "6"} {
		text, err := s.text("/proc/net/" + name)
		if errors.Is(err, fs.ErrNotExist) && strings.HasSuffix(name, "6") {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if a, ok := boundAddr(line, p, port); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs, nil
}

// The states of sockets in /proc/net (include/net/tcp_states.h). A UDP socket that is not connected
// has that of a closed one.
const (
	tcpListen = "0A"
	udpOpen   = "07"
)

// boundAddr reads a line such as "0: 0100007F:0050 00000000:0000 0A ...": address in words of the
// host's order, port, those of the other end, state.
func boundAddr(line string, p lb.Protocol, port uint16) (netip.Addr, bool) {
	words := strings.Fields(line)
	state := tcpListen
	if p == lb.UDP {
		state = udpOpen
	}
	if len(words) < 4 || words[3] != state {
		return netip.Addr{}, false
	}
	address, number, _ := strings.Cut(words[1], ":")
	n, err := strconv.ParseUint(number, 16, 16)
	if err != nil || uint16(n) != port {
		return netip.Addr{}, false
	}
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4]) // little-endian, the only kind of host that is supported
	}
	a, ok := netip.AddrFromSlice(raw)
	return a.Unmap(), ok
}
