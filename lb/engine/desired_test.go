// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
)

func TestFold(t *testing.T) {
	web := lb.Service{Name: "web", VIPs: []lb.ServiceVIP{serviceVIP(t, "192.0.2.10:80/tcp"), serviceVIP(t, "[2001:db8::10]:80/tcp")}}
	dns := lb.Service{Name: "dns", VIPs: []lb.ServiceVIP{serviceVIP(t, "192.0.2.11:53/udp")}}
	gue := lb.Service{Name: "gue", VIPs: []lb.ServiceVIP{serviceVIP(t, "192.0.2.12:80/tcp")}}
	gue.VIPs[0].Encap = lb.GUE
	gue.VIPs[0].Tunnel.GUE4 = netip.MustParseAddr("198.51.100.1")
	hop := lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500}

	tests := []struct {
		name string
		in   inputs
		want string
	}{
		{name: "nothing", want: ""},
		{
			name: "services without backends keep their VIPs",
			in:   inputs{services: []lb.Service{web, dns}},
			want: `
				vip 192.0.2.10:80/tcp web maglev-v2/7
				vip 192.0.2.11:53/udp dns maglev-v2/7
				vip [2001:db8::10]:80/tcp web maglev-v2/7`,
		},
		{
			name: "a backend is a real of each VIP, with its next hop",
			in: inputs{
				services: []lb.Service{web},
				backends: sources("a", "web", backend("10.0.0.2", 5), backend("10.0.0.1", 0)),
				hops:     map[netip.Addr]lb.NextHop{netip.MustParseAddr("10.0.0.2"): hop},
			},
			want: `
				vip 192.0.2.10:80/tcp web maglev-v2/7
				real 10.0.0.1 weight=0 ipip from=172.16.0.0/16 hop=not resolved yet
				real 10.0.0.2 weight=5 ipip from=172.16.0.0/16 hop=020000000001
				vip [2001:db8::10]:80/tcp web maglev-v2/7
				real 10.0.0.1 weight=0 ipip from=172.16.0.0/16 hop=not resolved yet
				real 10.0.0.2 weight=5 ipip from=172.16.0.0/16 hop=020000000001`,
		},
		{
			name: "sources add up, and the first by name wins",
			in: inputs{
				services: []lb.Service{dns},
				backends: merge(
					sources("b", "dns", backend("10.0.0.1", 1), backend("10.0.0.3", 1)),
					sources("a", "dns", backend("10.0.0.1", 9), backend("10.0.0.2", 1)),
					sources("c", "dns", backend("10.0.0.1", 2)),
					sources("c", "unknown", backend("10.0.0.9", 2))),
			},
			want: `
				vip 192.0.2.11:53/udp dns maglev-v2/7
				real 10.0.0.1 weight=9 ipip from=172.16.0.0/16 hop=not resolved yet
				real 10.0.0.2 weight=1 ipip from=172.16.0.0/16 hop=not resolved yet
				real 10.0.0.3 weight=1 ipip from=172.16.0.0/16 hop=not resolved yet
				problem service=dns real=10.0.0.1 source=b: backend is there twice: that of source "a" counts
				problem service=dns real=10.0.0.1 source=c: backend is there twice: that of source "a" counts`,
		},
		{
			name: "twice in one source, the greater weight wins",
			in: inputs{
				services: []lb.Service{dns},
				backends: sources("a", "dns", backend("10.0.0.1", 1), backend("10.0.0.1", 3)),
			},
			want: `
				vip 192.0.2.11:53/udp dns maglev-v2/7
				real 10.0.0.1 weight=3 ipip from=172.16.0.0/16 hop=not resolved yet
				problem service=dns real=10.0.0.1 source=a: backend is there twice: that of source "a" counts`,
		},
		{
			name: "addresses that cannot be are left out",
			in: inputs{
				services: []lb.Service{dns},
				backends: sources("a", "dns", lb.Backend{Weight: 1}, backend("::ffff:10.0.0.1", 1), backend("fe80::1%eth0", 1)),
			},
			want: `
				vip 192.0.2.11:53/udp dns maglev-v2/7
				problem service=dns source=a: backend left out: its address is not a plain IPv4 or IPv6 address
				problem service=dns real=::ffff:10.0.0.1 source=a: backend left out: its address is not a plain IPv4 or IPv6 address
				problem service=dns real=fe80::1%eth0 source=a: backend left out: its address is not a plain IPv4 or IPv6 address`,
		},
		{
			name: "a tunnel without a source leaves the backend out",
			in: inputs{
				services: []lb.Service{gue},
				backends: sources("a", "gue", backend("10.0.0.1", 1), backend("2001:db8:1::1", 1)),
			},
			want: `
				vip 192.0.2.12:80/tcp gue maglev-v2/7
				real 10.0.0.1 weight=1 gue from=198.51.100.1/32 hop=not resolved yet
				problem service=gue vip=192.0.2.12:80/tcp real=2001:db8:1::1: backend left out: GUE to 2001:db8:1::1 needs a source address of its family`,
		},
		{
			name: "a VIP of two services is the first's, and a service is there once",
			in: inputs{services: []lb.Service{
				{Name: "z", VIPs: dns.VIPs}, dns, {Name: "dns", VIPs: web.VIPs},
			}},
			want: `
				vip 192.0.2.11:53/udp dns maglev-v2/7
				problem service=dns: service is there twice: the second is left out
				problem service=z vip=192.0.2.11:53/udp: VIP is that of service "dns" already: left out`,
		},
		{
			name: "what a previous run resolved stands in for what is not resolved",
			in: inputs{
				services: []lb.Service{dns},
				backends: sources("a", "dns", backend("10.0.0.1", 1), backend("10.0.0.2", 1), backend("10.0.0.3", 1), backend("10.0.0.4", 1)),
				hops: map[netip.Addr]lb.NextHop{
					netip.MustParseAddr("10.0.0.1"): {MAC: [6]byte{2, 0, 0, 0, 0, 9}},
					netip.MustParseAddr("10.0.0.2"): {Problem: "resolving"},
					netip.MustParseAddr("10.0.0.4"): {Problem: "no route"},
				},
				hopsLeft: map[netip.Addr]lb.NextHop{
					netip.MustParseAddr("10.0.0.1"): hop, netip.MustParseAddr("10.0.0.2"): hop, netip.MustParseAddr("10.0.0.3"): hop,
				},
			},
			want: `
				vip 192.0.2.11:53/udp dns maglev-v2/7
				real 10.0.0.1 weight=1 ipip from=172.16.0.0/16 hop=020000000009
				real 10.0.0.2 weight=1 ipip from=172.16.0.0/16 hop=020000000001
				real 10.0.0.3 weight=1 ipip from=172.16.0.0/16 hop=020000000001
				real 10.0.0.4 weight=1 ipip from=172.16.0.0/16 hop=no route`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(unindent(tt.want), desiredText(fold(tt.in))); diff != "" {
				t.Errorf("desired (-want +got):\n%s", diff)
			}
		})
	}
}

// serviceVIP is a VIP with a ring of 7 slots and default tunnels.
func serviceVIP(t testing.TB, s string) lb.ServiceVIP {
	t.Helper()
	v, err := lb.ParseVIP(s)
	if err != nil {
		t.Fatal(err)
	}
	return lb.ServiceVIP{VIP: v, Ring: lb.Ring{Size: 7}, Tunnel: lb.DefaultTunnelSources()}
}

func backend(addr string, weight uint32) lb.Backend {
	return lb.Backend{Addr: netip.MustParseAddr(addr), Weight: weight}
}

func sources(source, service string, list ...lb.Backend) map[string]map[string][]lb.Backend {
	return map[string]map[string][]lb.Backend{source: {service: list}}
}

func merge(all ...map[string]map[string][]lb.Backend) map[string]map[string][]lb.Backend {
	whole := make(map[string]map[string][]lb.Backend)
	for _, one := range all {
		for source, services := range one {
			if whole[source] == nil {
				whole[source] = make(map[string][]lb.Backend)
			}
			for service, list := range services {
				whole[source][service] = append(whole[source][service], list...)
			}
		}
	}
	return whole
}

// desiredText is one line for each VIP, each real below its VIP, and each problem.
func desiredText(d desired) string {
	var lines []string
	for _, v := range d.vips {
		lines = append(lines, fmt.Sprintf("vip %s %s %s/%d", v.vip, v.service, v.ring.Hash, v.ring.Size))
		for _, r := range v.reals {
			hop := r.hop.Problem
			if r.hop.Resolved() {
				hop = fmt.Sprintf("%x", r.hop.MAC)
			}
			lines = append(lines, fmt.Sprintf("real %s weight=%d %s from=%s hop=%s",
				r.key.addr, r.backend.Weight, r.key.tunnel.Encap, r.key.tunnel.Source, hop))
		}
	}
	for _, p := range d.problems {
		line := "problem"
		for _, a := range p.attrs() {
			line += " " + a.String()
		}
		lines = append(lines, line+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// unindent removes the tabs in front of lines and the first line break.
func unindent(s string) string {
	return strings.TrimPrefix(strings.ReplaceAll(s, "\t", ""), "\n")
}
