// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestRouteTo(t *testing.T) {
	const eth0, eth3 = 2, 3
	gw := net.IPv4(10, 0, 0, 1).To4()
	gw2 := net.IPv4(10, 0, 0, 2).To4()
	tests := []struct {
		name   string
		dst    string // default 10.9.0.5
		answer netlink.Route
		want   route
	}{
		{
			name:   "on the link",
			answer: netlink.Route{LinkIndex: eth0},
			want:   route{gateways: addrs("10.9.0.5")},
		},
		{
			name:   "by a gateway, with an MTU",
			answer: netlink.Route{LinkIndex: eth0, Gw: gw, MTU: 1400},
			want:   route{gateways: addrs("10.0.0.1"), mtu: 1400},
		},
		{
			name:   "by an IPv6 gateway",
			answer: netlink.Route{LinkIndex: eth0, Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: net.ParseIP("fe80::1")}},
			want:   route{gateways: addrs("fe80::1")},
		},
		{
			name:   "IPv6 with an unspecified gateway is on the link",
			dst:    "2001:db8::5",
			answer: netlink.Route{LinkIndex: eth0, Gw: net.IPv6zero},
			want:   route{gateways: addrs("2001:db8::5")},
		},
		{
			name:   "by another interface",
			answer: netlink.Route{LinkIndex: eth3, Gw: gw},
			want:   route{problem: "route to 10.9.0.5 leaves by eth3, not eth0"},
		},
		{
			name: "several ways, one of them ours, one dead",
			answer: netlink.Route{MultiPath: []*netlink.NexthopInfo{
				{LinkIndex: eth3, Gw: gw2},
				{LinkIndex: eth0, Gw: gw2, Flags: unix.RTNH_F_DEAD},
				{LinkIndex: eth0, Gw: gw},
			}},
			want: route{gateways: addrs("10.0.0.1")},
		},
		{
			name: "several ways are ordered and each there once",
			answer: netlink.Route{MultiPath: []*netlink.NexthopInfo{
				{LinkIndex: eth0, Gw: gw2}, {LinkIndex: eth0, Gw: gw}, {LinkIndex: eth0, Gw: gw2},
			}},
			want: route{gateways: addrs("10.0.0.1", "10.0.0.2")},
		},
		{
			name: "several ways, all by others",
			answer: netlink.Route{MultiPath: []*netlink.NexthopInfo{
				{LinkIndex: 9, Gw: gw2}, {LinkIndex: eth3, Gw: gw}, {LinkIndex: eth3, Gw: gw2},
			}},
			want: route{problem: "route to 10.9.0.5 leaves by eth3, number 9, not eth0"},
		},
		{
			name:   "link of the way is down",
			answer: netlink.Route{LinkIndex: eth0, Gw: gw, Flags: unix.RTNH_F_LINKDOWN},
			want:   route{problem: "route to 10.9.0.5 is down on eth0"},
		},
		{
			name:   "encapsulation",
			answer: netlink.Route{LinkIndex: eth0, Gw: gw, Encap: &netlink.MPLSEncap{}},
			want:   route{problem: "route to 10.9.0.5 has an encapsulation of its own"},
		},
		{
			name:   "no way",
			answer: netlink.Route{},
			want:   route{problem: "no route to 10.9.0.5"},
		},
		{
			name:   "local",
			answer: netlink.Route{Type: unix.RTN_LOCAL, LinkIndex: eth0},
			want:   route{problem: "10.9.0.5 is an address of this host"},
		},
		{
			name:   "broadcast",
			answer: netlink.Route{Type: unix.RTN_BROADCAST, LinkIndex: eth0},
			want:   route{problem: "10.9.0.5 is a broadcast address"},
		},
		{
			name:   "multicast",
			answer: netlink.Route{Type: unix.RTN_MULTICAST, LinkIndex: eth0},
			want:   route{problem: "10.9.0.5 is a multicast address"},
		},
		{
			name:   "blackhole",
			answer: netlink.Route{Type: unix.RTN_BLACKHOLE},
			want:   route{problem: "route to 10.9.0.5 is a blackhole"},
		},
		{
			name:   "translation",
			answer: netlink.Route{Type: unix.RTN_NAT, LinkIndex: eth0},
			want:   route{problem: "route to 10.9.0.5 is of type 10, which leads nowhere"},
		},
	}
	nameOf := func(index int) string {
		if index == eth3 {
			return "eth3"
		}
		return fmt.Sprintf("number %d", index)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := netip.MustParseAddr("10.9.0.5")
			if tt.dst != "" {
				dst = netip.MustParseAddr(tt.dst)
			}
			if tt.answer.Type == 0 {
				tt.answer.Type = unix.RTN_UNICAST
			}
			got := routeTo(dst, tt.answer, link{name: "eth0", index: eth0}, nameOf)
			if !got.equal(tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRouteRefused(t *testing.T) {
	dst := netip.MustParseAddr("10.9.0.5")
	tests := []struct {
		name   string
		err    error
		want   string
		wantOK bool
	}{
		{"none or throw", unix.ENETUNREACH, "no route to 10.9.0.5", true},
		{"unreachable", unix.EHOSTUNREACH, "route to 10.9.0.5 says unreachable", true},
		{"prohibit", unix.EACCES, "route to 10.9.0.5 says prohibited", true},
		{"blackhole", unix.EINVAL, "route to 10.9.0.5 is a blackhole", true},
		{"family not there", unix.EOPNOTSUPP, "route to 10.9.0.5 cannot be looked up: operation not supported", true},
		{"time-out", unix.EAGAIN, "", false},
		{"no memory", unix.ENOBUFS, "", false},
		{"not from the kernel", errors.New("short answer"), "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := routeRefused(dst, tt.err)
			if ok != tt.wantOK || got.problem != tt.want {
				t.Errorf("got %q, %v, want %q, %v", got.problem, ok, tt.want, tt.wantOK)
			}
		})
	}
}

// addrs parses addresses.
func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}
