// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package nexthop

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/remora-lb/remora/lb"
)

var (
	mac1 = [6]byte{2, 0, 0, 0, 0, 1}
	mac2 = [6]byte{2, 0, 0, 0, 0, 2}
)

// goodLink is an interface that works.
func goodLink() link {
	return link{name: "eth0", index: 2, mtu: 1500, up: true, carrier: true, ethernet: true}
}

func TestNextHop(t *testing.T) {
	dst := netip.MustParseAddr("10.9.0.5")
	gw := netip.MustParseAddr("10.0.0.1")
	reachable := neighbour{mac: mac1, state: netlink.NUD_REACHABLE}
	tests := []struct {
		name      string
		link      func(*link)
		fixed     *lb.NextHop
		route     *route // default: by gw
		neighbour neighbour
		want      lb.NextHop
		wantVia   bool
	}{
		{name: "reachable", neighbour: reachable, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{name: "stale is used", neighbour: neighbour{mac1, netlink.NUD_STALE}, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{name: "delay", neighbour: neighbour{mac1, netlink.NUD_DELAY}, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{name: "probe", neighbour: neighbour{mac1, netlink.NUD_PROBE}, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{name: "permanent", neighbour: neighbour{mac1, netlink.NUD_PERMANENT}, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{name: "noarp", neighbour: neighbour{mac1, netlink.NUD_NOARP}, want: lb.NextHop{MAC: mac1, MTU: 1500}, wantVia: true},
		{
			name: "none", wantVia: true,
			want: lb.NextHop{Problem: "no neighbour entry for 10.0.0.1 on eth0 (none)"},
		},
		{
			name: "failed, with the old MAC still there", neighbour: neighbour{mac1, netlink.NUD_FAILED}, wantVia: true,
			want: lb.NextHop{Problem: "no neighbour entry for 10.0.0.1 on eth0 (failed)"},
		},
		{
			name: "incomplete", neighbour: neighbour{state: netlink.NUD_INCOMPLETE}, wantVia: true,
			want: lb.NextHop{Problem: "no neighbour entry for 10.0.0.1 on eth0 (incomplete)"},
		},
		{
			name: "zero MAC is none", neighbour: neighbour{state: netlink.NUD_NOARP}, wantVia: true,
			want: lb.NextHop{Problem: "no neighbour entry for 10.0.0.1 on eth0 (noarp, without a MAC address)"},
		},
		{
			name: "unknown state is not used", neighbour: neighbour{mac1, 0x800}, wantVia: true,
			want: lb.NextHop{Problem: "no neighbour entry for 10.0.0.1 on eth0 (state 0x800)"},
		},
		{
			name: "MTU of the route", neighbour: reachable, wantVia: true,
			route: &route{gateways: []netip.Addr{gw}, mtu: 1400},
			want:  lb.NextHop{MAC: mac1, MTU: 1400},
		},
		{
			name: "MTU of the link is less", neighbour: reachable, wantVia: true,
			route: &route{gateways: []netip.Addr{gw}, mtu: 9000},
			want:  lb.NextHop{MAC: mac1, MTU: 1500},
		},
		{
			name: "problem of the route", neighbour: reachable,
			route: &route{problem: "no route to 10.9.0.5"},
			want:  lb.NextHop{Problem: "no route to 10.9.0.5"},
		},
		{
			name: "interface missing", neighbour: reachable, link: func(l *link) { *l = link{name: "eth0"} },
			want: lb.NextHop{Problem: "interface eth0 does not exist"},
		},
		{
			name: "interface down", neighbour: reachable, link: func(l *link) { l.up, l.carrier = false, false },
			want: lb.NextHop{Problem: "interface eth0 is down"},
		},
		{
			name: "no carrier", neighbour: reachable, link: func(l *link) { l.carrier = false },
			want: lb.NextHop{Problem: "interface eth0 has no carrier"},
		},
		{
			name: "not an Ethernet", neighbour: reachable, link: func(l *link) { l.ethernet = false },
			want: lb.NextHop{Problem: "interface eth0 is not an Ethernet"},
		},
		{
			name: "fixed", fixed: &lb.NextHop{MAC: mac2, MTU: 9000}, link: func(l *link) { *l = link{} },
			want: lb.NextHop{MAC: mac2, MTU: 9000},
		},
		{
			name: "fixed, MTU of the link", fixed: &lb.NextHop{MAC: mac2},
			want: lb.NextHop{MAC: mac2, MTU: 1500},
		},
		{
			name: "fixed, MTU of no link", fixed: &lb.NextHop{MAC: mac2}, link: func(l *link) { *l = link{name: "eth0"} },
			want: lb.NextHop{Problem: "interface eth0 does not exist"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab := table{link: goodLink(), fixed: tt.fixed, neighbours: map[netip.Addr]neighbour{gw: tt.neighbour}}
			if tt.link != nil {
				tt.link(&tab.link)
			}
			tab.routes = map[netip.Addr]route{dst: {gateways: []netip.Addr{gw}}}
			if tt.route != nil {
				tab.routes[dst] = *tt.route
			}
			got, via := tab.nextHop(dst)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if (via == gw) != tt.wantVia || via != gw && via.IsValid() {
				t.Errorf("depends on %v", via)
			}
		})
	}
	t.Run("no route read", func(t *testing.T) {
		tab := table{link: goodLink()}
		got, _ := tab.nextHop(dst)
		if want := (lb.NextHop{Problem: "route to 10.9.0.5 is not looked up yet"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestPickPrefersUsable(t *testing.T) {
	gateways := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3")
	usable := netip.MustParseAddr("10.0.0.2")
	tab := table{neighbours: map[netip.Addr]neighbour{usable: {mac1, netlink.NUD_STALE}}}
	for i := range 100 {
		dst := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
		if got := tab.pick(dst, gateways); got != usable {
			t.Fatalf("%s goes by %s, which is missing", dst, got)
		}
	}
}

// TestPickSpreads: destinations share the gateways about evenly, and a gateway that goes moves no
// other destinations than its own.
func TestPickSpreads(t *testing.T) {
	const destinations = 3000
	var tab table
	gateways := addrs("10.0.0.1", "10.0.0.2", "fe80::1")
	count := make(map[netip.Addr]int)
	for i := range destinations {
		dst := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
		first := tab.pick(dst, gateways)
		count[first]++
		if again := tab.pick(dst, gateways[:2]); first != gateways[2] && again != first {
			t.Fatalf("%s moved from %s to %s, though %s went", dst, first, again, gateways[2])
		}
	}
	for _, g := range gateways {
		if n := count[g]; n < destinations/3*8/10 || n > destinations/3*12/10 {
			t.Errorf("%s has %d of %d destinations", g, n, destinations)
		}
	}
}

func TestGateways(t *testing.T) {
	all := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	tab := table{
		link: goodLink(),
		routes: map[netip.Addr]route{
			netip.MustParseAddr("10.9.0.1"): {gateways: all[:2]},
			netip.MustParseAddr("10.9.0.2"): {gateways: all[1:3]},
			netip.MustParseAddr("10.9.0.3"): {problem: "no route"},
		},
		neighbours: map[netip.Addr]neighbour{
			all[0]: {mac1, netlink.NUD_REACHABLE},
			all[1]: {mac2, netlink.NUD_STALE},
			all[3]: {mac2, netlink.NUD_STALE}, // no route leads there
		},
	}
	want := map[netip.Addr]condition{all[0]: fresh, all[1]: stale, all[2]: missing}
	if got := tab.gateways(); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	tab.link.carrier = false
	if got := tab.gateways(); len(got) != 0 {
		t.Errorf("without carrier: got %v, want none", got)
	}
}

func TestNeighbourOf(t *testing.T) {
	v4 := []byte{10, 0, 0, 1}
	tests := []struct {
		name   string
		in     netlink.Neigh
		want   neighbour
		wantOK bool
	}{
		{"Ethernet", netlink.Neigh{Family: netlink.FAMILY_V4, IP: v4, HardwareAddr: mac1[:], State: netlink.NUD_STALE}, neighbour{mac1, netlink.NUD_STALE}, true},
		{"no MAC", netlink.Neigh{Family: netlink.FAMILY_V4, IP: v4, State: netlink.NUD_FAILED}, neighbour{state: netlink.NUD_FAILED}, true},
		{"InfiniBand", netlink.Neigh{Family: netlink.FAMILY_V4, IP: v4, HardwareAddr: make([]byte, 20), State: netlink.NUD_REACHABLE}, neighbour{state: netlink.NUD_REACHABLE}, true},
		{"proxy", netlink.Neigh{Family: netlink.FAMILY_V4, IP: v4, Flags: netlink.NTF_PROXY}, neighbour{}, false},
		{"bridge", netlink.Neigh{Family: 7, IP: v4, HardwareAddr: mac1[:]}, neighbour{}, false},
		{"no address", netlink.Neigh{Family: netlink.FAMILY_V4, HardwareAddr: mac1[:]}, neighbour{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr, got, ok := neighbourOf(&tt.in)
			if ok != tt.wantOK || got != tt.want || ok && addr != netip.MustParseAddr("10.0.0.1") {
				t.Errorf("got %v %+v %v, want %+v %v", addr, got, ok, tt.want, tt.wantOK)
			}
		})
	}
}

func BenchmarkNextHops(b *testing.B) {
	tab := table{link: goodLink(), routes: map[netip.Addr]route{}, neighbours: map[netip.Addr]neighbour{}}
	for i := range 5000 {
		dst := netip.MustParseAddr(fmt.Sprintf("10.9.%d.%d", i>>8, i&255))
		tab.routes[dst] = route{gateways: addrs("10.0.0.1")}
	}
	for b.Loop() {
		for dst := range tab.routes {
			tab.nextHop(dst)
		}
	}
}
