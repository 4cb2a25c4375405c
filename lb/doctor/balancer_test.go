// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/remora-lb/remora/lb"
)

func webVIP() lb.VIP           { return lb.VIP{Addr: addr("192.0.2.10"), Port: 80, Protocol: lb.TCP} }
func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// healthy is a balancer that works, with a running daemon.
func healthy(t *testing.T) (*recorded, *Balancer) {
	t.Helper()
	r := record(t, "balancer")
	b := &Balancer{
		Machine: r.machine(),
		Places: Places{
			File: "/etc/remora/remora.yaml", BPFFS: "/sys/fs/bpf", Pins: "/sys/fs/bpf/remora/default",
			StateDir: "/var/lib/remora", Socket: "/run/remora/default.sock", Instance: "default",
		},
		Setup:  Setup{Interface: "eth0", Mode: "auto", VIPs: []lb.VIP{webVIP()}},
		Plane:  Plane{There: true, Interface: "eth0", Writer: 812, VIPs: []lb.VIP{webVIP()}},
		Daemon: Daemon{Answers: true},
	}
	for i, server := range []string{"10.20.0.11", "10.20.0.12"} {
		b.Plane.Reals = append(b.Plane.Reals, lb.Real{
			ID: lb.RealID(i + 1), VIP: webVIP(), Backend: lb.Backend{Addr: addr(server), Weight: 1}, Tunnel: lb.Tunnel{Destination: addr(server)},
		})
	}
	b.Plane.Reasons[lb.ReasonForwarded] = 1000
	return r, b
}

// breakage is one thing that is wrong, and what is to be found.
type breakage struct {
	name string
	do   func(*recorded, *Balancer)
	want []want
}

func TestHealthyBalancer(t *testing.T) {
	_, b := healthy(t)
	r := b.Examine(t.Context())
	assertFindings(t, r)
	if r.Status() != 0 || r.Count(OK) < 20 {
		t.Errorf("status %d with %d findings that are ok", r.Status(), r.Count(OK))
	}
}

func tryBreakages(t *testing.T, list []breakage) {
	t.Helper()
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			r, b := healthy(t)
			tt.do(r, b)
			report := b.Examine(t.Context())
			assertFindings(t, report, tt.want...)
		})
	}
}

func TestMachineOfBalancer(t *testing.T) {
	tryBreakages(t, []breakage{
		{"old kernel", func(r *recorded, _ *Balancer) { r.ReleaseText = "5.15.0-generic" },
			[]want{{"kernel-version", Warn, []string{"5.15.0", "6.1"}, []string{"6.1 or later"}}}},
		{"ancient kernel", func(r *recorded, _ *Balancer) { r.ReleaseText = "5.4.0" },
			[]want{{"kernel-version", Fail, []string{"5.4.0"}, nil}, {"memlock", Warn, []string{"65536"}, []string{"LimitMEMLOCK=infinity"}}}},
		{"kernel without a version", func(r *recorded, _ *Balancer) { r.ReleaseText = "next" },
			[]want{{"kernel-version", CannotTell, []string{`"next"`}, nil}}},
		{"kernel too old for probes", func(r *recorded, b *Balancer) { r.ReleaseText = "6.1.0"; b.Setup.Probes = b.Setup.VIPs },
			[]want{{"kernel-tcx", Fail, []string{"6.6"}, []string{"path: direct"}}}},
		{"daemon lacks a capability", func(r *recorded, _ *Balancer) { r.write("proc/812/status", "Uid:\t997\nCapEff:\t0000008000001000\n") },
			[]want{{"capabilities", Fail, []string{"CAP_PERFMON", "812"}, []string{"AmbientCapabilities="}}}},
		{"daemon has CAP_SYS_ADMIN", func(r *recorded, _ *Balancer) { r.write("proc/812/status", "Uid:\t0\nCapEff:\t0000000000201000\n") }, nil},
		{"daemon in another process namespace", func(r *recorded, _ *Balancer) { delete(r.files, "proc/812/status") },
			[]want{{"capabilities", CannotTell, []string{"812"}, nil}, {"state-dir", CannotTell, nil, nil}}},
		{"no BPF", func(r *recorded, _ *Balancer) { r.unsupported["bpf"] = true }, []want{{"bpf", Fail, nil, []string{"CONFIG_BPF_SYSCALL"}}}},
		{"no BTF", func(r *recorded, _ *Balancer) { delete(r.files, "sys/kernel/btf/vmlinux") }, []want{{"btf", Fail, nil, []string{"CONFIG_DEBUG_INFO_BTF=y"}}}},
		{"no JIT", func(r *recorded, _ *Balancer) { r.write("proc/sys/net/core/bpf_jit_enable", "0\n") }, []want{{"bpf-jit", Warn, nil, []string{"bpf_jit_enable=1"}}}},
		{"JIT with debug", func(r *recorded, _ *Balancer) { r.write("proc/sys/net/core/bpf_jit_enable", "2\n") }, []want{{"bpf-jit", Warn, []string{"log"}, []string{"bpf_jit_enable=1"}}}},
		{"JIT not known", func(r *recorded, _ *Balancer) { delete(r.files, "proc/sys/net/core/bpf_jit_enable") }, []want{{"bpf-jit", CannotTell, []string{"network namespace"}, nil}}},
		{"no bpffs", func(r *recorded, _ *Balancer) { r.FileSystems["/sys/fs/bpf"] = FileSystem{} }, []want{{"bpffs", Warn, nil, []string{"mount -t bpf bpf /sys/fs/bpf"}}}},
		{"no folder for bpffs", func(r *recorded, _ *Balancer) { delete(r.FileSystems, "/sys/fs/bpf") }, []want{{"bpffs", Fail, nil, []string{"mkdir -p"}}}},
		{"bpffs read-only", func(r *recorded, _ *Balancer) { r.FileSystems["/sys/fs/bpf"] = FileSystem{BPF: true, ReadOnly: true} }, []want{{"bpffs", Fail, nil, []string{"remount,rw"}}}},
		{"clock", func(r *recorded, _ *Balancer) { r.Synchronised = false }, []want{{"clock", Warn, nil, []string{"timedatectl set-ntp true"}}}},
		{"clock not readable", func(r *recorded, _ *Balancer) { r.denied["clock"] = true }, []want{{"clock", CannotTell, []string{"root"}, nil}}},
	})
}

func TestDaemonOfBalancer(t *testing.T) {
	none := func(_ *recorded, b *Balancer) { b.Plane, b.Daemon = Plane{}, Daemon{} }
	tryBreakages(t, []breakage{
		{"bad configuration", func(_ *recorded, b *Balancer) { b.Setup = Setup{Problem: "line 3: what is this"} },
			[]want{{"configuration", Fail, []string{"line 3"}, []string{"remora check -c /etc/remora/remora.yaml"}}}},
		{"never started", func(r *recorded, b *Balancer) {
			none(r, b)
			r.link("eth0").Program = 0
			r.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
			b.Setup.Reals = nil
		}, []want{{"daemon", Fail, []string{"nothing is pinned"}, []string{"systemctl start remora", "remora run -c /etc/remora/remora.yaml"}}}},
		{"never started, and no privileges", func(r *recorded, b *Balancer) {
			none(r, b)
			r.link("eth0").Program = 0
			r.write("proc/self/status", "CapEff:\t0000000000000000\n")
			b.Plane.Err = fmt.Errorf("read: %w", fs.ErrPermission)
		}, []want{{"daemon", CannotTell, nil, nil}, {"capabilities", CannotTell, []string{"CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"}, nil}, {"xdp-hook", Fail, nil, nil}}},
		{"dead daemon", func(r *recorded, b *Balancer) {
			b.Plane.Writer, b.Daemon = 0, Daemon{}
			r.write("proc/self/status", "CapEff:\t000001ffffffffff\n")
		}, []want{{"daemon", Warn, []string{"forwards as last configured"}, []string{"systemctl start remora", "journalctl -u remora"}}}},
		{"daemon does not answer", func(_ *recorded, b *Balancer) { b.Daemon = Daemon{Err: errors.New("no such socket"), Cure: "start it"} },
			[]want{{"control-socket", Warn, []string{"no such socket"}, []string{"start it"}}}},
		{"socket of others", func(_ *recorded, b *Balancer) {
			b.Daemon = Daemon{Err: errors.Join(errors.New("you may not"), fs.ErrPermission), Cure: "use sudo"}
		}, []want{{"control-socket", CannotTell, []string{"you may not", "root"}, []string{"use sudo"}}}},
		{"socket for everybody", func(r *recorded, _ *Balancer) { r.Owners["/run/remora/default.sock"] = Owner{Mode: 0o666} },
			[]want{{"control-socket", Warn, []string{"0666"}, []string{"chmod 0660 /run/remora/default.sock"}}}},
		{"failed pass", func(_ *recorded, b *Balancer) { b.Daemon.LastError = "map is full" }, []want{{"apply", Fail, []string{"map is full"}, nil}}},
		{"conflict", func(_ *recorded, b *Balancer) { b.Daemon.Conflicts = []string{"web: twice"} }, []want{{"conflict", Warn, []string{"web: twice"}, nil}}},
		{"held change", func(_ *recorded, b *Balancer) {
			b.Daemon.Held = []Held{{"web", "empty", "no server would be left", "remora accept web"}}
		}, []want{{"held", Warn, []string{"web", "rule empty", "no server would be left"}, []string{"remora accept web"}}}},
		{"no state folder", func(r *recorded, _ *Balancer) { delete(r.FileSystems, "/var/lib/remora/default") }, []want{{"state-dir", Warn, nil, []string{"--state-dir"}}}},
		{"state folder read-only", func(r *recorded, _ *Balancer) { r.FileSystems["/var/lib/remora/default"] = FileSystem{ReadOnly: true} }, []want{{"state-dir", Fail, nil, []string{"remount,rw"}}}},
		{"disk full", func(r *recorded, _ *Balancer) { r.FileSystems["/var/lib/remora/default"] = FileSystem{} },
			[]want{{"state-dir", Fail, []string{"0 KiB", "is not written"}, []string{"make room"}}}},
		{"disk nearly full", func(r *recorded, _ *Balancer) {
			r.FileSystems["/var/lib/remora/default"] = FileSystem{FreeBytes: 1 << 20}
		}, []want{{"state-dir", Warn, []string{"1 MiB"}, []string{"make room"}}}},
		{"state folder of another user", func(r *recorded, _ *Balancer) { r.Owners["/var/lib/remora/default"] = Owner{UID: 0, Mode: 0o755} },
			[]want{{"state-dir", Fail, []string{"user 0", "user 997"}, []string{"chown -R 997"}}}},
		{"unit takes the interface away", func(r *recorded, _ *Balancer) {
			r.write("etc/systemd/system/remora.service", "[Service]\nPrivateNetwork=yes\nSystemCallFilter=@system-service\nUser=remora\nAmbientCapabilities=CAP_BPF CAP_NET_ADMIN\n")
		}, []want{
			{"systemd-unit", Fail, []string{"PrivateNetwork=yes"}, []string{"remove the line"}},
			{"systemd-unit", Fail, []string{"no CAP_PERFMON"}, []string{"AmbientCapabilities="}},
			{"systemd-unit", Fail, []string{"SystemCallFilter"}, []string{"@system-service bpf"}},
		}},
		{"no unit", func(r *recorded, _ *Balancer) { delete(r.files, "etc/systemd/system/remora.service") }, nil},
	})
}

func TestInterfaceOfBalancer(t *testing.T) {
	tryBreakages(t, []breakage{
		{"no such interface", func(_ *recorded, b *Balancer) { b.Setup.Interface = "eth7" }, []want{{"interface", Fail, []string{"lo, eth0, eth1"}, []string{"`interface:`"}}}},
		{"down", func(r *recorded, _ *Balancer) { r.link("eth0").Up = false }, []want{{"interface", Fail, nil, []string{"ip link set dev eth0 up"}}}},
		{"no carrier", func(r *recorded, _ *Balancer) { r.link("eth0").Carrier = false }, []want{{"interface", Fail, nil, []string{"ethtool eth0"}}}},
		{"another than at the start", func(_ *recorded, b *Balancer) { b.Plane.Interface = "eth1" }, []want{{"interface", Warn, []string{"is on eth1"}, []string{"restart"}}}},
		{"nothing attached", func(r *recorded, _ *Balancer) { r.link("eth0").Program = 0 }, []want{{"xdp-hook", Fail, []string{"no XDP program"}, []string{"systemctl restart remora"}}}},
		{"occupied hook", func(r *recorded, _ *Balancer) { r.link("eth0").Program, r.link("eth0").ProgramName = 99, "theirs" },
			[]want{{"xdp-hook", Fail, []string{`"theirs" (id 99)`, "id 31"}, []string{"bpftool link detach", "ip link set dev eth0 xdp off"}}}},
		{"own program not readable", func(r *recorded, _ *Balancer) { r.denied["pinned"] = true; r.link("eth0").ProgramName = "" }, []want{{"xdp-hook", CannotTell, []string{"id 31", "root"}, nil}}},
		{"data plane not understood", func(_ *recorded, b *Balancer) { b.Plane = Plane{Writer: 812, Err: errors.New("map of another size")} },
			[]want{{"xdp-hook", CannotTell, []string{"map of another size"}, nil}}},
		{"generic as configured", func(r *recorded, b *Balancer) {
			r.link("eth0").Generic, b.Plane.Generic, b.Setup.Mode = true, true, "generic"
		}, []want{{"xdp-mode", Warn, []string{"because the file asks for it"}, []string{"mode: auto"}}}},
		{"generic for the driver's sake", func(r *recorded, b *Balancer) {
			r.link("eth0").Generic, b.Plane.Generic, b.Plane.ModeReason = true, true, "no native XDP"
		}, []want{{"xdp-mode", Warn, []string{"no native XDP"}, []string{"ethtool -l eth0"}}}},
		{"generic for long packets", func(r *recorded, b *Balancer) {
			r.link("eth0").Generic, r.link("eth0").MTU, b.Plane.Generic, b.Plane.ModeReason = true, 9000, true, "MTU is 9000"
		}, []want{{"xdp-mode", Warn, []string{"MTU is 9000"}, []string{"mtu 3498"}}, {"xdp-mtu", Warn, []string{"9000"}, []string{"mtu 3498"}}}},
		{"long packets in native mode", func(r *recorded, _ *Balancer) { r.link("eth0").MTU = 9000 }, nil},
		{"offloads", func(r *recorded, _ *Balancer) {
			r.DriverFacts.Features["rx-lro"], r.DriverFacts.Features["rx-gro-hw"], r.DriverFacts.Features["rx-vlan-hw-parse"] = true, true, true
		}, []want{{"offload-lro", Warn, nil, []string{"ethtool -K eth0 lro off"}}, {"offload-rx-gro-hw", Warn, nil, []string{"rx-gro-hw off"}}, {"offload-rxvlan", Note, nil, []string{"rxvlan off"}}}},
		{"VLAN offload with VLANs", func(r *recorded, _ *Balancer) {
			r.DriverFacts.Features["rx-vlan-hw-parse"] = true
			r.LinkList = append(r.LinkList, Link{Index: 9, Name: "eth0.5", Type: "vlan", Parent: 2})
		}, []want{{"offload-rxvlan", Warn, []string{"VLANs"}, []string{"rxvlan off"}}}},
		{"one queue", func(r *recorded, _ *Balancer) { r.DriverFacts.Queues[0] = 1 }, []want{{"queues", Warn, []string{"receive queues: 1 of at most 8"}, []string{"ethtool -L eth0 combined 4"}}}},
		{"few queues", func(r *recorded, _ *Balancer) { r.DriverFacts.Queues[0] = 2 }, []want{{"queues", Note, nil, []string{"combined 4"}}}},
		{"one queue of veth", func(r *recorded, _ *Balancer) { r.DriverFacts.Queues[0], r.DriverFacts.Name = 1, "veth" }, nil},
		{"driver does not answer", func(r *recorded, _ *Balancer) { r.unsupported["driver"] = true },
			[]want{{"offload", CannotTell, nil, nil}, {"queues", CannotTell, nil, nil}}},
		{"interrupts on one CPU", func(r *recorded, _ *Balancer) { r.write("proc/irq/41/effective_affinity_list", "0\n") }, []want{{"interrupts", Warn, []string{"2 interrupts"}, []string{"irqbalance"}}}},
		{"short receive ring", func(r *recorded, _ *Balancer) { r.DriverFacts.Ring[0] = 256 }, []want{{"ring-buffer", Warn, []string{"256", "4096"}, []string{"ethtool -G eth0 rx 4096"}}}},
		{"receive ring could be longer", func(r *recorded, _ *Balancer) { r.DriverFacts.Ring[0] = 1024 }, []want{{"ring-buffer", Note, nil, []string{"ethtool -G eth0 rx 4096"}}}},
		{"no receive ring", func(r *recorded, _ *Balancer) { r.unsupported["ring"] = true }, nil},
		{"strict rp_filter", func(r *recorded, _ *Balancer) { r.write("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n") }, []want{{"rp-filter", Note, nil, nil}}},
		{"strict rp_filter, and probes answer from elsewhere", func(r *recorded, b *Balancer) {
			r.write("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n")
			r.Routes["192.0.2.10"] = Route{Hops: []Hop{{Link: "eth1"}}}
			b.Setup.Probes = b.Setup.VIPs
		}, []want{{"rp-filter", Warn, []string{"192.0.2.10"}, []string{"net/ipv4/conf/eth0/rp_filter=2"}}}},
		{"ip_forward", func(r *recorded, _ *Balancer) { r.write("proc/sys/net/ipv4/ip_forward", "1\n") }, []want{{"ip-forward", Note, nil, []string{"ip_forward=0"}}}},
	})
}

func TestVIPsAndReals(t *testing.T) {
	other := lb.VIP{Addr: addr("192.0.2.11"), Port: 80, Protocol: lb.TCP}
	tryBreakages(t, []breakage{
		{"VIP not loaded", func(_ *recorded, b *Balancer) { b.Setup.VIPs = append(b.Setup.VIPs, other) }, []want{{"vip-loaded", Fail, []string{"192.0.2.11:80/tcp"}, []string{"systemctl reload remora"}}}},
		{"VIP without reals", func(_ *recorded, b *Balancer) { b.Plane.VIPs = append(b.Plane.VIPs, other) }, []want{{"vip-reals", Fail, []string{"192.0.2.11", "ring_empty"}, []string{"`backends:`"}}}},
		{"all reals drain", func(_ *recorded, b *Balancer) {
			b.Plane.Reals[0].Use, b.Plane.Reals[1].Backend.Weight = lb.RealDraining, 0
		}, []want{{"vip-reals", Fail, []string{"none of its 2 reals"}, []string{"remora undrain"}}}},
		{"VIP on the balancer", func(r *recorded, _ *Balancer) {
			r.AddressList = append(r.AddressList, Address{Link: "lo", Prefix: netip.MustParsePrefix("192.0.2.10/32")})
		}, []want{{"vip-local", Warn, []string{"on lo"}, []string{"ip address del 192.0.2.10/32 dev lo"}}}},
		{"VIP on the balancer, with probes", func(r *recorded, b *Balancer) {
			r.AddressList = append(r.AddressList, Address{Link: "lo", Prefix: netip.MustParsePrefix("192.0.2.10/32")})
			b.Setup.Probes = b.Setup.VIPs
		}, []want{{"vip-local", Fail, []string{"health checks"}, []string{"ip address del"}}}},
		{"VIP served here, too", func(r *recorded, b *Balancer) {
			r.AddressList = append(r.AddressList, Address{Link: "lo", Prefix: netip.MustParsePrefix("192.0.2.10/32")})
			b.Plane.Reals[0].Tunnel.Encap = lb.Local
		}, nil},
		{"nothing arrives", func(_ *recorded, b *Balancer) { b.Plane.Reasons = [lb.ReasonLen]uint64{lb.ReasonNotVIP: 7} }, []want{{"traffic", Note, []string{"saw 7 packets"}, []string{"route for each VIP"}}}},
		{"drops", func(_ *recorded, b *Balancer) { b.Plane.Reasons[lb.ReasonRingEmpty] = 5 }, []want{{"traffic", Note, []string{"ring_empty 5"}, nil}}},
		{"no route", func(r *recorded, _ *Balancer) { delete(r.Routes, "10.20.0.12") }, []want{{"next-hop", Fail, []string{"10.20.0.12", "no route"}, []string{"ip route add 10.20.0.12/32 via GATEWAY dev eth0"}}}},
		{"wrong interface", func(r *recorded, _ *Balancer) {
			r.Routes["10.20.0.12"] = Route{Hops: []Hop{{Link: "eth1"}}}
		},
			[]want{{"real-interface", Fail, []string{"10.20.0.12", "leaves by eth1"}, []string{"ip route replace 10.20.0.12/32 via GATEWAY dev eth0", "interface: eth1"}}}},
		{"neighbour does not answer", func(r *recorded, _ *Balancer) { r.Neighbours["2 10.10.1.1"] = Neighbour{State: "failed"} },
			[]want{{"next-hop", Fail, []string{"10.20.0.11, 10.20.0.12", "10.10.1.1", "failed"}, []string{"ip neighbour show 10.10.1.1 dev eth0"}}}},
		{"neighbour unknown", func(r *recorded, _ *Balancer) { r.Neighbours = nil }, []want{{"next-hop", Fail, []string{"no entry"}, nil}}},
		{"neighbour stale and used", func(r *recorded, _ *Balancer) {
			r.Neighbours["2 10.10.1.1"] = Neighbour{State: "stale", MAC: "02:00:00:00:00:01"}
		}, nil},
		{"neighbour not confirmed", func(_ *recorded, b *Balancer) { b.Plane.Reals[0].NextHop.Stale = true }, []want{{"next-hop", Note, []string{"10.20.0.11", "did not confirm"}, nil}}},
		{"fixed next hop", func(r *recorded, b *Balancer) { b.Setup.FixedNextHop, r.Routes = true, nil }, nil},
		{"MTU", func(r *recorded, _ *Balancer) { r.link("eth0").MTU = 1500 },
			[]want{{"real-mtu", Warn, []string{"10.20.0.11, 10.20.0.12", "more than 1480 bytes"}, []string{"ip link set dev eth0 mtu 1520", "advmss 1440", "IPv6: 1420"}}}},
		{"MTU of a route, and packets were lost", func(r *recorded, b *Balancer) {
			route := r.Routes["10.20.0.12"]
			route.MTU = 1500
			r.Routes["10.20.0.12"] = route
			b.Plane.Reals[1].Tunnel.Encap = lb.GUE
			b.Plane.Reasons[lb.ReasonTooBig] = 3
		}, []want{{"real-mtu", Fail, []string{"10.20.0.12", "gue", "more than 1472 bytes", "3 were"}, []string{"mtu 1528"}}, {"traffic", Note, []string{"too_big 3"}, nil}}},
		{"netlink fails", func(r *recorded, _ *Balancer) { r.denied["netlink"] = true }, []want{{"interface", CannotTell, []string{"root"}, nil}, {"vip-local", CannotTell, nil, nil}}},
		{"a real is down", func(_ *recorded, b *Balancer) {
			b.Daemon.Health = []Health{{VIP: webVIP(), Checked: 2, Healthy: 1, Down: []Sick{{Backend: addr("10.20.0.12"), Down: true, Fault: "decapsulation_missing", Detail: "nobody unwraps"}}}}
		}, []want{{"real-down", Warn, []string{"10.20.0.12", "decapsulation_missing"}, []string{"remora decap", "doctor --server --vip 192.0.2.10:80/tcp"}}}},
		{"a real has a fault", func(_ *recorded, b *Balancer) {
			b.Daemon.Health = []Health{{VIP: webVIP(), Checked: 2, Healthy: 2, Down: []Sick{{Backend: addr("10.20.0.12"), Fault: "path_mtu", Detail: "full-size packets are lost"}}}}
		}, []want{{"real-fault", Warn, []string{"path_mtu"}, []string{"MTU of every link"}}}},
		{"all reals are down", func(_ *recorded, b *Balancer) {
			sick := []Sick{{Backend: addr("10.20.0.11"), Down: true, Fault: "vip_missing"}, {Backend: addr("10.20.0.12"), Down: true, Fault: "vip_missing"}}
			b.Daemon.Health = []Health{{VIP: webVIP(), Checked: 2, FailOpen: true, Down: sick}}
		}, []want{{"all-reals-down", Fail, []string{"all 2 reals", "not believed"}, []string{"ip address add 192.0.2.10/32 dev lo"}}, {"real-down", Warn, []string{"10.20.0.11, 10.20.0.12"}, nil}}},
	})
}

// withPeer gives the balancer a router.
func withPeer(b *Balancer, p Peer, sessions ...Session) {
	p.Address, p.Port = addr("10.10.1.1"), 179
	b.Setup.BGP, b.Setup.Peers, b.Daemon.Sessions = true, []Peer{p}, sessions
}

func TestBGPAndConsul(t *testing.T) {
	router := netip.MustParseAddrPort("10.10.1.1:179")
	idle := Session{addr("10.10.1.1"), "idle", "connection refused"}
	key := Peer{MD5: true, KeyFile: "/etc/remora/key"}
	tryBreakages(t, []breakage{
		{"session established", func(_ *recorded, b *Balancer) { withPeer(b, key, Session{addr("10.10.1.1"), "established", ""}) }, nil},
		{"no router", func(_ *recorded, b *Balancer) { b.Setup.BGP = true }, []want{{"bgp-session", Warn, nil, []string{"peers:"}}}},
		{"router refuses", func(r *recorded, b *Balancer) { withPeer(b, Peer{}, idle); r.answers[router] = syscall.ECONNREFUSED },
			[]want{{"bgp-session", Fail, []string{"idle", "refuses", "10.10.1.1:179"}, []string{"remote-as"}}}},
		{"router is silent", func(_ *recorded, b *Balancer) { withPeer(b, key, idle) },
			[]want{{"bgp-session", Fail, []string{"does not answer", "MD5"}, []string{"TCP port 179"}}, {"bgp-md5", CannotTell, []string{"this side has an MD5 key", "cannot be seen"}, nil}}},
		{"router accepts", func(r *recorded, b *Balancer) { withPeer(b, Peer{}, idle); r.answers[router] = nil },
			[]want{{"bgp-session", Fail, []string{"port 179 answers"}, []string{"AS numbers"}}, {"bgp-md5", CannotTell, []string{"no MD5 key"}, nil}}},
		{"router is silent, and the daemon dead", func(_ *recorded, b *Balancer) {
			withPeer(b, Peer{})
			b.Daemon = Daemon{Err: errors.New("it hangs"), Cure: "kill it"}
		},
			[]want{{"bgp-session", Warn, []string{"TCP port 179", "not reached"}, []string{"start the daemon"}}, {"control-socket", Warn, []string{"it hangs"}, []string{"kill it"}}}},
		{"router answers, and the daemon is dead", func(r *recorded, b *Balancer) {
			withPeer(b, Peer{})
			r.answers[router] = nil
			b.Daemon = Daemon{Err: errors.New("it hangs"), Cure: "kill it"}
		}, []want{{"bgp-session", CannotTell, []string{"only it knows"}, nil}, {"control-socket", Warn, nil, nil}}},
		{"no source address", func(r *recorded, b *Balancer) {
			withPeer(b, Peer{Source: addr("10.99.0.1")}, idle)
			r.answers[router] = syscall.EADDRNOTAVAIL
		}, []want{{"bgp-session", Fail, []string{"10.99.0.1 is not on this host"}, []string{"ip address add 10.99.0.1 dev eth0"}}}},
		{"passive", func(_ *recorded, b *Balancer) { withPeer(b, Peer{Passive: true}, idle) }, []want{{"bgp-session", Fail, []string{"router is to connect"}, []string{"bgp.listen.port"}}}},
		{"no route to the router", func(r *recorded, b *Balancer) { withPeer(b, Peer{}, idle); delete(r.Routes, "10.10.1.1") }, []want{{"bgp-session", Fail, []string{"no route"}, []string{"ip route add 10.10.1.1/32"}}}},
		{"key missing", func(r *recorded, b *Balancer) {
			withPeer(b, key, Session{addr("10.10.1.1"), "established", ""})
			delete(r.files, "etc/remora/key")
		}, []want{{"bgp-key", Fail, []string{"/etc/remora/key"}, []string{"write the key"}}}},
		{"key empty", func(r *recorded, b *Balancer) {
			withPeer(b, key, Session{addr("10.10.1.1"), "established", ""})
			r.write("etc/remora/key", "\n")
		}, []want{{"bgp-key", Fail, []string{"empty"}, nil}}},
		{"not announced", func(_ *recorded, b *Balancer) {
			withPeer(b, Peer{}, Session{addr("10.10.1.1"), "established", ""})
			b.Daemon.Announcements = []Announcement{{webVIP(), false, "no healthy real"}}
		}, []want{{"bgp-announcement", Warn, []string{"192.0.2.10:80/tcp", "no healthy real"}, []string{"remora status"}}}},
		{"Consul answers", func(_ *recorded, b *Balancer) { b.Consul = []ConsulRead{{Service: "web", Status: 200, Instances: 2}} }, nil},
		{"Consul away", func(_ *recorded, b *Balancer) {
			b.Consul = []ConsulRead{{Service: "web", Err: errors.New("connection refused")}}
		},
			[]want{{"consul", Fail, []string{"not reached", "connection refused"}, []string{"`addresses:`"}}}},
		{"Consul fails", func(_ *recorded, b *Balancer) {
			b.Consul = []ConsulRead{{Service: "web", Status: 500, Err: errors.New("no cluster leader")}}
		},
			[]want{{"consul", Fail, []string{"status 500"}, nil}}},
		{"Consul has no leader", func(_ *recorded, b *Balancer) { b.Consul = []ConsulRead{{Service: "web", Status: 200, NoLeader: true}} }, []want{{"consul", Fail, []string{"no leader"}, []string{"raft list-peers"}}}},
		{"unknown token", func(_ *recorded, b *Balancer) {
			b.Consul = []ConsulRead{{Service: "web", Status: 403, Err: errors.New("ACL not found")}}
		},
			[]want{{"consul-acl", Fail, []string{"service web", "ACL not found"}, []string{"token_file:", `service "web" { policy = "read" }`}}}},
		{"no token", func(_ *recorded, b *Balancer) {
			b.Consul = []ConsulRead{{Service: "web", Status: 200, Anonymous: true}}
		},
			[]want{{"consul-acl", Fail, []string{"denies by default"}, []string{"token_file:"}}}},
		{"narrow token", func(_ *recorded, b *Balancer) {
			b.Consul = []ConsulRead{{Folder: "remora/overlay/", Status: 200, Filtered: true}}
		},
			[]want{{"consul-acl", Fail, []string{"keys below remora/overlay/"}, []string{`key_prefix "remora/overlay/" { policy = "read" }`}}}},
		{"no instance", func(_ *recorded, b *Balancer) { b.Consul = []ConsulRead{{Service: "web", Status: 200}} }, []want{{"consul-service", Warn, []string{"service web"}, []string{"consul catalog services"}}}},
		{"claims and registration", func(_ *recorded, b *Balancer) { b.Setup.Claims, b.Setup.Registers = true, true },
			[]want{{"consul-claims", CannotTell, nil, nil}, {"consul-register", CannotTell, []string{`policy = "write"`}, nil}}},
	})
}

// TestWithoutPrivileges: what cannot be read is said, and nothing is called broken for it.
func TestWithoutPrivileges(t *testing.T) {
	r, b := healthy(t)
	for _, what := range []string{"bpf", "pinned"} {
		r.denied[what] = true
	}
	b.Plane = Plane{Writer: 812, Err: fmt.Errorf("read instance: %w", fs.ErrPermission)}
	b.Daemon = Daemon{Err: errors.Join(errors.New("you may not connect"), fs.ErrPermission)}
	report := b.Examine(context.Background())
	if report.Status() != 0 {
		t.Errorf("status %d: %+v", report.Status(), report.Sorted())
	}
	if got, want := strings.Join(report.Unprivileged(), " "), "bpf control-socket xdp-hook"; got != want {
		t.Errorf("not checked for want of privileges: %s, want %s", got, want)
	}
}
