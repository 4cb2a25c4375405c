// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// withOptions has one VIP with options, whose one real has this slot alone of Katran's ring.
func withOptions(t testing.TB, vip string, options lb.Options, slot int) *model.Tables {
	t.Helper()
	tables := oneReal(t, vip, tunnelTo(t, lb.IPIP, false, "10.0.0.1"), slot)
	for name, entry := range tables.VIPs {
		entry.Options = options
		tables.VIPs[name] = entry
	}
	return tables
}

// TestKatranSlotsWithOptions has flows whose slots with Katran's flags are known, and the bytes that the
// client gives to the outer source 172.16.x.x.
func TestKatranSlotsWithOptions(t *testing.T) {
	const client = "172.16.0.1" // port 31337 is 0x7a69
	cases := []struct {
		name    string
		client  string
		vip     string
		sport   uint16
		dport   uint16
		hash    lb.HashInput
		slot    int
		entropy [2]byte
	}{
		{"no option", client, "203.0.113.10:80/tcp", 31337, 80, lb.HashInput{}, 43349, [2]byte{0x69, 0x7a ^ 1}},
		{"all ports", client, "203.0.113.10:0/tcp", 31337, 80, lb.HashInput{}, 24830, [2]byte{0x69, 0x7a ^ 1}},
		{"a prefix", client, "203.0.113.0/24:80/tcp", 31337, 80, lb.HashInput{}, 24830, [2]byte{0x69, 0x7a ^ 1}},
		{"all ports, destination port kept", client, "203.0.113.10:0/tcp", 31337, 80,
			lb.HashInput{KeepDestinationPort: true}, 43349, [2]byte{0x69, 0x7a ^ 1}},
		{"a prefix, destination port kept", client, "203.0.113.0/24:80/tcp", 31337, 80,
			lb.HashInput{KeepDestinationPort: true}, 43349, [2]byte{0x69, 0x7a ^ 1}},
		{"no source port", client, "203.0.113.10:80/tcp", 31337, 80, lb.HashInput{NoSourcePort: true}, 10127, [2]byte{0, 1}},
		{"destination port only", client, "203.0.113.10:42/tcp", 31337, 42,
			lb.HashInput{DestinationPortOnly: true}, 46348, [2]byte{0x69, 0x7a}},
		{"destination port only, of all ports", "192.0.2.77", "203.0.113.10:0/tcp", 1, 42,
			lb.HashInput{DestinationPortOnly: true}, 46348, [2]byte{1, 0}},
		{"destination port only, no source port", client, "203.0.113.10:42/tcp", 31337, 42,
			lb.HashInput{DestinationPortOnly: true, NoSourcePort: true}, 46348, [2]byte{0, 0}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := withOptions(t, c.vip, lb.Options{Hash: c.hash}, c.slot)
			res := process(t, tables, frame(packet(c.client, vip4, frames.TCP{SrcPort: c.sport, DstPort: c.dport})).Bytes())
			if res.Reason != lb.ReasonForwarded {
				t.Fatalf("%s: the flow is not in slot %d", res.Reason, c.slot)
			}
			if got := [2]byte(res.Frame[14+14:]); got != c.entropy {
				t.Errorf("outer source 172.16.%d.%d, want %d.%d", got[0], got[1], c.entropy[0], c.entropy[1])
			}
		})
	}
}

// TestNestedVIPs has prefixes in one another, with and without a port, and an exact VIP in both forms.
func TestNestedVIPs(t *testing.T) {
	tables := oneReal(t, "203.0.113.0/24:443/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	for id, vip := range map[lb.RealID]string{
		1: "203.0.113.0/24:443/tcp", 2: "203.0.113.0/28:443/tcp", 3: "203.0.113.10:443/tcp", 4: "203.0.113.10:0/tcp",
		5: "203.0.113.0/28:0/tcp", 6: "203.0.0.0/16:0/tcp", 7: "203.0.113.0/25:53/udp",
	} {
		name, err := lb.ParseVIP(vip)
		if err != nil {
			t.Fatal(err)
		}
		tables.VIPs[name] = model.VIP{Ring: model.Ring{lb.SettlingSlot(id)}}
		r := tables.Reals[1]
		r.ID = id
		tables.Reals[id] = r
	}
	cases := []struct {
		dst      string
		port     uint16
		want     lb.RealID
		hostBits uint8
		byPort0  bool
	}{
		{"203.0.113.10", 443, 3, 0, false},
		{"203.0.113.11", 443, 2, 4, false},
		{"203.0.113.16", 443, 1, 8, false},
		{"203.0.114.16", 443, 6, 16, true},
		{"203.0.113.10", 80, 4, 0, true},
		{"203.0.113.11", 80, 5, 4, true},
		{"203.0.113.16", 80, 6, 16, true},
		{"203.0.113.10", 0, 4, 0, false},
		{"203.0.113.16", 0, 6, 16, false},
		{"203.1.0.1", 443, 0, 0, false},
	}
	for _, c := range cases {
		res := process(t, tables, frame(packet(client4, c.dst, frames.TCP{SrcPort: 1, DstPort: c.port, Flags: frames.ACK})).Bytes())
		flow := res.Flow.Flow
		if res.Real != c.want || flow.HostBits != c.hostBits || flow.ByPort0 != c.byPort0 {
			t.Errorf("%s:%d: %s, real %d, flow %+v; want real %d", c.dst, c.port, res.Reason, res.Real, flow, c.want)
		}
	}
	echo := func(dst string) lb.Reason {
		return process(t, tables, frame(packet(client4, dst, frames.ICMP{Type: frames.EchoRequest})).Bytes()).Reason
	}
	if echo("203.0.0.1") != lb.ReasonEchoAnswered || echo("203.1.0.1") != lb.ReasonICMP {
		t.Error("an address has a VIP if a prefix of one holds it")
	}
}

// TestFlowsOfPrefixesAreOthers: a flow of a prefix is not taken for one of a longer prefix that is added.
func TestFlowsOfPrefixesAreOthers(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, moving)
	exact := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}
	prefix := lb.VIP{Addr: addr("203.0.113.0"), Port: 443, Protocol: lb.TCP, HostBits: 8}
	delete(tables.VIPs, exact)
	tables.VIPs[prefix] = model.VIP{Ring: model.Ring{moving}}
	var flows model.Flows
	send := func(frame []byte, want lb.RealID) {
		t.Helper()
		res := processWith(t, tables, &flows, frame)
		flows.Apply(res.Flow)
		if res.Real != want {
			t.Errorf("real %d, want %d", res.Real, want)
		}
	}
	send(syn, newReal)
	send(data, newReal)
	tables.VIPs[exact] = model.VIP{Ring: model.Ring{lb.MovingSlot(drainingReal, elsewhere)}}
	send(data, elsewhere)
	delete(tables.VIPs, exact)
	send(data, newReal)
	if flows.Len() != 2 {
		t.Errorf("%d flows, want one of each VIP", flows.Len())
	}
}

// TestSourceRoutes: the longest prefix counts, and no other if its backend cannot be had.
func TestSourceRoutes(t *testing.T) {
	a, b, c := addr("10.200.0.1"), addr("10.200.0.2"), addr("fd02::3")
	routes := map[netip.Prefix]netip.Addr{
		netip.MustParsePrefix("198.51.0.0/16"): a, netip.MustParsePrefix("198.51.100.0/24"): b,
		netip.MustParsePrefix("198.51.100.9/32"): c, netip.MustParsePrefix("::/0"): a,
	}
	cases := []struct {
		name   string
		client string
		slot   lb.Slot
		real   map[netip.Addr]lb.RealID
		want   lb.RealID
	}{
		{"the shorter prefix", "198.51.1.1", stable, map[netip.Addr]lb.RealID{a: oldReal, b: elsewhere}, oldReal},
		{"the longer prefix", "198.51.100.7", stable, map[netip.Addr]lb.RealID{a: oldReal, b: elsewhere}, elsewhere},
		{"one address", "198.51.100.9", stable, map[netip.Addr]lb.RealID{a: oldReal, b: oldReal, c: elsewhere}, elsewhere},
		{"no prefix", "198.52.100.9", stable, map[netip.Addr]lb.RealID{a: oldReal, b: elsewhere}, newReal},
		{"a backend that is none of the VIP", "198.51.100.7", stable, map[netip.Addr]lb.RealID{a: oldReal}, newReal},
		{"a real without record", "198.51.100.7", stable, map[netip.Addr]lb.RealID{a: oldReal, b: withoutRecord}, newReal},
		{"a draining real", "198.51.100.7", stable, map[netip.Addr]lb.RealID{a: oldReal, b: drainingReal}, newReal},
		{"a retired real", "198.51.100.7", stable, map[netip.Addr]lb.RealID{a: oldReal, b: retiredReal}, newReal},
		{"an empty slot", "198.51.100.7", lb.StableSlot(0), map[netip.Addr]lb.RealID{b: elsewhere}, elsewhere},
		{"a moving slot", "198.51.100.7", moving, map[netip.Addr]lb.RealID{b: elsewhere}, elsewhere},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tables := oneSlot(t, lb.FlowTransitions, c.slot)
			name := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}
			tables.VIPs[name] = model.VIP{Ring: model.Ring{c.slot}, Options: lb.Options{SourceRoutes: true}, Routes: c.real}
			tables.SourceRoutes = routes
			b := frame(packet(c.client, vip4, frames.TCP{SrcPort: 50000, DstPort: 443, Flags: frames.ACK})).Bytes()
			res := process(t, tables, b)
			if res.Real != c.want || c.want != newReal && res.Flow.Flow != (model.Flow{}) {
				t.Errorf("real %d, want %d; flow %+v", res.Real, c.want, res.Flow)
			}
			vip := tables.VIPs[name]
			vip.Options.SourceRoutes, vip.Flows = false, lb.FlowNever
			tables.VIPs[name] = vip
			if res := process(t, tables, b); c.slot == stable && res.Real != newReal {
				t.Errorf("without the option, real %d", res.Real)
			}
		})
	}
}

// TestSourceRouteOfICMPError goes by the client, which the error quotes, and not by the router.
func TestSourceRouteOfICMPError(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, stable)
	for name, vip := range tables.VIPs {
		vip.Options.SourceRoutes, vip.Routes = true, map[netip.Addr]lb.RealID{addr("10.200.0.1"): elsewhere}
		tables.VIPs[name] = vip
	}
	tables.SourceRoutes = map[netip.Prefix]netip.Addr{netip.MustParsePrefix(client4 + "/32"): addr("10.200.0.1")}
	for _, f := range [][]byte{data, tcpError, datagram, udpError} {
		if res := process(t, tables, f); res.Real != elsewhere {
			t.Errorf("real %d", res.Real)
		}
	}
}

// TestLocal: the packet is left alone and counted for the real.
func TestLocal(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		tables := bothFamilies(t)
		r := tables.Reals[1]
		r.Tunnel, r.NextHop = lb.Tunnel{Encap: lb.Local, Destination: addr("10.0.0.1")}, lb.NextHop{}
		tables.Reals[1] = r
		f := frame(to(v6, tcp))
		res := process(t, tables, f.Bytes())
		if res.Reason != lb.ReasonLocal || res.Verdict != lb.Pass || res.Real != 1 || res.Bytes != len(f.Packet.Bytes()) {
			t.Errorf("%s, real %d, %d bytes", res.Reason, res.Real, res.Bytes)
		}
	}
}
