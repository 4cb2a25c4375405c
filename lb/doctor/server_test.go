// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func vips(t *testing.T, texts ...string) (list []lb.VIP) {
	t.Helper()
	for _, text := range texts {
		v, err := lb.ParseVIP(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, v)
	}
	return list
}

// healthyServer is a server that works, with remora decap.
func healthyServer(t *testing.T) (*recorded, *Server) {
	t.Helper()
	r := record(t, "server")
	return r, &Server{
		Machine: r.machine(), VIPs: vips(t, "192.0.2.10:80/tcp", "192.0.2.10:53/udp", "[2001:db8::a]:443/tcp"), IPIP: true, GUEPort: 6080,
	}
}

// useDevices has the kernel's own devices unwrap packets, in the place of remora decap.
func useDevices(r *recorded, _ *Server) {
	r.link("eth0").Program, r.link("eth0").ProgramName = 0, ""
	r.LinkList = append(r.LinkList, Link{Index: 5, Name: "tunl0", Type: "ipip", Up: true, MTU: 1480}, Link{Index: 6, Name: "sit0", Type: "sit", Up: true, MTU: 1480})
	for _, name := range []string{"rp_filter", "accept_local"} {
		r.write("proc/sys/net/ipv4/conf/tunl0/"+name, "0\n")
		r.write("proc/sys/net/ipv4/conf/sit0/"+name, "0\n")
	}
}

func TestServer(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*recorded, *Server)
		want []want
	}{
		{"healthy with remora decap", func(*recorded, *Server) {}, nil},
		{"healthy with devices", useDevices, nil},
		{"healthy with GUE of the kernel", func(r *recorded, s *Server) { useDevices(r, s); s.IPIP, s.GUE, r.GUE = false, true, []uint16{6080} }, nil},
		{"VIP missing", func(r *recorded, _ *Server) { r.AddressList = r.AddressList[:1] },
			[]want{{"vip-address", Fail, []string{"192.0.2.10"}, []string{"ip address add 192.0.2.10/32 dev lo"}}, {"vip-address", Fail, []string{"2001:db8::a"}, []string{"ip address add 2001:db8::a/128 dev lo"}}}},
		{"VIP with a network", func(r *recorded, _ *Server) { r.AddressList[1].Prefix = netip.MustParsePrefix("192.0.2.10/24") },
			[]want{{"vip-address", Warn, []string{"192.0.2.10/24", "whole prefix"}, []string{"ip address del 192.0.2.10/24 dev lo", "192.0.2.10/32"}}}},
		{"VIP on the link", func(r *recorded, _ *Server) { r.AddressList[1].Link = "eth0" }, []want{{"vip-address", Note, []string{"on eth0"}, []string{"dev lo"}}}},
		{"VIP tentative", func(r *recorded, _ *Server) { r.AddressList[2].Tentative = true }, []want{{"vip-address", Warn, []string{"yet"}, []string{"nodad"}}}},
		{"VIP duplicate", func(r *recorded, _ *Server) { r.AddressList[2].Duplicate = true }, []want{{"vip-address", Fail, []string{"another machine"}, nil}}},
		{"ARP", func(r *recorded, _ *Server) { r.write("proc/sys/net/ipv4/conf/all/arp_ignore", "0\n") },
			[]want{{"arp", Warn, []string{"eth0", "arp_ignore is 0 and arp_announce 2"}, []string{"net.ipv4.conf.all.arp_ignore=1"}}}},
		{"nothing listens", func(r *recorded, _ *Server) { r.write("proc/net/tcp", "  sl\n"); delete(r.files, "proc/net/tcp6") },
			[]want{{"listener", Fail, []string{"192.0.2.10:80/tcp", "no socket"}, []string{"192.0.2.10:80"}}, {"listener", Fail, []string{"443"}, nil}}},
		{"listens elsewhere", func(_ *recorded, s *Server) { s.VIPs = vips(t, "192.0.2.10:8080/tcp") },
			[]want{{"listener", Fail, []string{"on other addresses only: 10.20.0.11"}, []string{"listen on 192.0.2.10:8080"}}}},
		{"listens on an address of IPv6", func(_ *recorded, s *Server) { s.VIPs = vips(t, "192.0.2.10:81/tcp") },
			[]want{{"listener", Fail, []string{"2001:db8::a"}, nil}}},
		{"IPv6 wildcard takes IPv4", func(_ *recorded, s *Server) { s.VIPs = vips(t, "192.0.2.10:443/tcp") }, nil},
		{"all ports", func(_ *recorded, s *Server) { s.VIPs = vips(t, "192.0.2.10:0/tcp") }, []want{{"listener", CannotTell, []string{"all ports"}, nil}}},
		{"no decapsulation", func(r *recorded, _ *Server) { r.link("eth0").Program = 0; r.link("eth0").ProgramName = "" },
			[]want{{"decapsulation", Fail, []string{"192.0.2.10 by ipip", "nothing unwraps"}, []string{"remora decap --interface DEVICE --vip 192.0.2.10", "tunl0"}},
				{"decapsulation", Fail, []string{"2001:db8::a by ipip"}, []string{"sit0"}}}},
		{"program of unknown name", func(r *recorded, _ *Server) { r.link("eth0").ProgramName = "" },
			[]want{{"decapsulation", CannotTell, []string{"192.0.2.10 by ipip, 2001:db8::a by ipip", "root"}, nil}}},
		{"decap for other VIPs", func(r *recorded, _ *Server) {
			r.Decapsulators["77"] = Decapsulator{VIPs: []netip.Addr{addr("192.0.2.10")}}
		},
			[]want{{"decapsulation-vips", Fail, []string{"2001:db8::a", "192.0.2.10 only"}, []string{"--vip 2001:db8::a"}}}},
		{"tables not readable", func(r *recorded, _ *Server) { r.denied["decapsulator"] = true }, []want{{"decapsulation-vips", CannotTell, []string{"root"}, nil}}},
		{"device down", func(r *recorded, s *Server) { useDevices(r, s); r.link("tunl0").Up = false }, []want{{"decapsulation", Fail, []string{"tunl0 is down"}, []string{"ip link set tunl0 up"}}}},
		{"device for one balancer", func(r *recorded, s *Server) { useDevices(r, s); r.link("tunl0").Remote = addr("10.10.1.2") },
			[]want{{"decapsulation", Fail, []string{"packets of 10.10.1.2 only"}, []string{"remora decap"}}}},
		{"GUE without fou", func(r *recorded, s *Server) {
			useDevices(r, s)
			s.GUE, s.IPIP = true, false
			r.unsupported["fou"] = true
		},
			[]want{{"decapsulation", Fail, []string{"192.0.2.10 by gue, 2001:db8::a by gue", "no fou module"}, []string{"ip fou add port 6080 gue"}}}},
		{"GUE on another port", func(r *recorded, s *Server) {
			useDevices(r, s)
			s.VIPs = s.VIPs[:1]
			s.GUE, s.IPIP, r.GUE = true, false, []uint16{5555}
		},
			[]want{{"decapsulation", Fail, []string{"nothing takes UDP packets to port 6080"}, []string{"ip fou add"}}}},
		{"strict rp_filter of a device", func(r *recorded, s *Server) {
			useDevices(r, s)
			r.write("proc/sys/net/ipv4/conf/tunl0/rp_filter", "1\n")
		},
			[]want{{"rp-filter", Fail, []string{"tunl0", "do not leave by tunl0"}, []string{"net/ipv4/conf/tunl0/rp_filter=0"}}}},
		{"strict rp_filter where answers leave", func(r *recorded, _ *Server) { r.write("proc/sys/net/ipv4/conf/all/rp_filter", "1\n") }, []want{{"rp-filter", Note, []string{"eth0"}, []string{"rp_filter=2"}}}},
		{"no way back", func(r *recorded, _ *Server) { r.Default4 = nil }, []want{{"return-route", Warn, []string{"IPv4", "no default route"}, []string{"ip route add default"}}}},
		{"no way back to a client", func(_ *recorded, s *Server) { s.Client = addr("198.51.100.2") }, []want{{"return-route", Fail, []string{"no route leads to 198.51.100.2"}, []string{"ip route add 198.51.100.2/32"}}}},
		{"client of IPv6 only", func(r *recorded, s *Server) { s.Client, r.Default4, r.Default6 = addr("2001:db8:c::2"), nil, nil },
			[]want{{"return-route", Fail, []string{"2001:db8:c::2"}, nil}, {"return-route", Warn, []string{"IPv4"}, nil}}},
		{"MSS", func(r *recorded, _ *Server) { r.link("eth0").MTU = 1500 },
			[]want{{"mss", Warn, []string{"IPv4", "1460 bytes", "takes 1440"}, []string{"ip route change default via 10.20.0.1 advmss 1440", "1520"}},
				{"mss", Warn, []string{"IPv6", "takes 1420"}, []string{"ip -6 route change default via 2001:db8:20::1 advmss 1420"}}}},
		{"MSS told", func(r *recorded, _ *Server) {
			r.link("eth0").MTU = 1500
			r.Default4[0].AdvMSS, r.Default6[0].AdvMSS = 1440, 1420
		}, nil},
		{"MSS with GUE over IPv6", func(r *recorded, s *Server) {
			r.link("eth0").MTU, s.GUE, s.VIPs = 1500, true, s.VIPs[:1]
			r.AddressList = r.AddressList[:3]
		}, []want{{"mss", Warn, []string{"48 bytes of outer headers"}, []string{"advmss 1412"}}}},
		{"ICMP", func(r *recorded, _ *Server) {
			r.write("proc/sys/net/ipv4/ip_no_pmtu_disc", "1\n")
			r.write("proc/sys/net/ipv4/icmp_echo_ignore_all", "1\n")
		},
			[]want{{"icmp", Note, []string{"ip_no_pmtu_disc"}, []string{"ip_no_pmtu_disc=0"}}, {"icmp", Note, []string{"echo"}, []string{"icmp_echo_ignore_all=0"}}}},
		{"filter by policy", func(r *recorded, _ *Server) {
			r.Rules = "chain input {\n type filter hook input priority filter; policy drop;\n}"
		},
			[]want{{"packet-filter", Note, []string{"policy drop", "inner packets"}, []string{"nft list ruleset"}}}},
		{"filter of the tunnel", func(r *recorded, s *Server) { useDevices(r, s); r.Rules = "chain input {\n ip protocol 4 drop\n}" },
			[]want{{"packet-filter", Note, []string{"ip protocol 4 drop", "protocol 41"}, nil}}},
		{"filter not readable", func(r *recorded, _ *Server) { r.denied["rules"] = true }, []want{{"packet-filter", CannotTell, []string{"root"}, nil}}},
		{"netlink fails", func(r *recorded, _ *Server) { r.denied["netlink"] = true },
			[]want{{"vip-address", CannotTell, nil, nil}, {"arp", CannotTell, nil, nil}, {"decapsulation", CannotTell, nil, nil}, {"rp-filter", CannotTell, nil, nil},
				{"return-route", CannotTell, nil, nil}, {"return-route", CannotTell, nil, nil}, {"mss", CannotTell, nil, nil}, {"packet-filter", CannotTell, nil, nil}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, s := healthyServer(t)
			tt.do(r, s)
			assertFindings(t, s.Examine(t.Context()), tt.want...)
		})
	}
}
