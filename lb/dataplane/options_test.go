// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

func TestOptionBits(t *testing.T) {
	for name, o := range map[string]lb.Options{
		"none":             {},
		"no source port":   {Hash: lb.HashInput{NoSourcePort: true}},
		"keep":             {Hash: lb.HashInput{KeepDestinationPort: true}},
		"destination only": {Hash: lb.HashInput{DestinationPortOnly: true}},
		"by client":        {Fragments: lb.FragmentsByClient},
		"pass":             {Fragments: lb.FragmentsPass},
		"Katran's ids":     {ConnectionIDs: lb.ConnectionIDsKatran},
		"QUIC-LB":          {ConnectionIDs: lb.ConnectionIDsQUICLB},
		"ids":              {TCPIDs: true, UDPIDs: true},
		"source routes":    {SourceRoutes: true},
	} {
		if got := optionsOf(optionBits(o)); got != o {
			t.Errorf("%s: %+v comes back as %+v", name, o, got)
		}
		if word, passes := ringWord(7, o), o.Fragments == lb.FragmentsPass; hasOptions(o) != (o != lb.Options{} && !passes) || uint32(word) != 7 {
			t.Errorf("%s: word %x, has options: %v", name, word, hasOptions(o))
		}
	}
}

// What of a packet is hashed, and what the outer source address is made of.
func TestHashInputs(t *testing.T) {
	const sport, dport = bedClient, bedPort
	client, client6 := clientOf(false), clientOf(true)
	none := netip.IPv4Unspecified()
	entropy := func(a netip.Addr, port uint16) netip.Addr {
		s := a.As4()
		return netip.AddrFrom4([4]byte{172, 16, s[2] ^ byte(port), s[3] ^ byte(port>>8)})
	}
	entropy6 := func(a netip.Addr, port uint16) netip.Addr {
		s := a.As16()
		return netip.AddrFrom4([4]byte{172, 16, s[14] ^ byte(port), s[15] ^ byte(port>>8)})
	}
	for _, tt := range []struct {
		name, vip string
		hash      lb.HashInput
		want      lb.RealID
		source    netip.Addr
	}{
		{"all ports", "203.0.113.10:0/tcp", lb.HashInput{}, own(client, sport, 0), entropy(client, sport)},
		{"no source port", "203.0.113.10:443/tcp", lb.HashInput{NoSourcePort: true}, own(client, 0, dport), entropy(client, 0)},
		{"no source port, all ports", "203.0.113.10:0/tcp", lb.HashInput{NoSourcePort: true}, own(client, 0, 0), entropy(client, 0)},
		{"destination port kept", "203.0.113.10:0/tcp", lb.HashInput{KeepDestinationPort: true}, own(client, sport, dport), entropy(client, sport)},
		{"destination port kept, of a prefix", "203.0.112.0/23:443/tcp", lb.HashInput{KeepDestinationPort: true}, own(client, sport, dport), entropy(client, sport)},
		{"destination port only", "203.0.113.10:443/tcp", lb.HashInput{DestinationPortOnly: true}, own(none, dport, dport), entropy(none, sport)},
		{"destination port only, all ports", "203.0.113.10:0/tcp", lb.HashInput{DestinationPortOnly: true}, own(none, dport, dport), entropy(none, sport)},
		{"destination port only, no source port", "203.0.113.10:0/tcp", lb.HashInput{DestinationPortOnly: true, NoSourcePort: true}, own(none, dport, dport), entropy(none, 0)},
		{"IPv6, no source port", "[2001:db8::10]:443/tcp", lb.HashInput{NoSourcePort: true}, own(client6, 0, dport), entropy6(client6, 0)},
		{"IPv6, destination port only", "[2001:db8::10]:443/tcp", lb.HashInput{DestinationPortOnly: true}, own(netip.IPv6Unspecified(), dport, dport), entropy6(netip.IPv6Unspecified(), sport)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newOptionBed(t, lb.FlowTransitions, lb.Options{Hash: tt.hash}, tt.vip)
			frame := frameOf(toVIP(b.vips[0].VIP.Addr.Is6(), tcpOf(frames.ACK)))
			out := wantEnd(t, b.d, "packet", frame, lb.ReasonForwarded)
			if source := netip.AddrFrom4([4]byte(out[26:30])); sentTo(out) != tt.want || source != tt.source {
				t.Errorf("sent to real %d from %v, want %d from %v", sentTo(out), source, tt.want, tt.source)
			}
			if !bytes.Equal(out[34:], frame[14:]) {
				t.Error("the inner packet changed")
			}
		})
	}
}

// serverIDCase is a packet that may name a server.
type serverIDCase struct {
	name    string
	options lb.Options
	payload frames.Payload
	id      uint32 // that it names; 0: none
}

func serverIDCases() []serverIDCase {
	katran, quicLB := lb.Options{ConnectionIDs: lb.ConnectionIDsKatran}, lb.Options{ConnectionIDs: lb.ConnectionIDsQUICLB}
	tcp, udp := lb.Options{TCPIDs: true}, lb.Options{UDPIDs: true}
	data := func(hex string) frames.Payload {
		return frames.UDP{SrcPort: bedClient, DstPort: bedPort, Data: unhex(hex)}
	}
	segment := func(flags uint8, options string) frames.Payload {
		s := tcpOf(flags)
		s.Options = unhex(options)
		return s
	}
	return []serverIDCase{
		{"version 1, short", katran, data("40 410000 0000000000"), 1024},
		{"version 1, all bits", katran, data("40 7fffc0 0000000000"), 65535},
		{"version 2, short", katran, data("40 80030400 00000000"), 197632},
		{"version 3, short", katran, data("40 c0ffffffff 000000"), 1<<32 - 1},
		{"version 0", katran, data("40 01020304 05060708"), 0},
		{"short, a byte less", katran, data("40 41000000000000"), 0},
		{"long, Handshake", katran, data("e0 00000001 08 c000000400 000000"), 1024},
		{"long, id of 7", katran, data("e0 00000001 07 c000000400 000000"), 0},
		{"long, a byte less", katran, data("e0 00000001 08 c000000400 0000"), 0},
		{"Initial", katran, data("c0 00000001 08 c000000400 000000"), 0},
		{"0-RTT", katran, data("d0 00000001 08 c000000400 000000"), 0},
		{"QUIC-LB, short", quicLB, data("40 5f 010203"), 0x010203},
		{"QUIC-LB, short, a byte less", quicLB, data("40 5f 0102"), 0},
		{"QUIC-LB, another configuration", quicLB, data("40 3f 010203"), 0},
		{"QUIC-LB, long", quicLB, data("e0 00000001 08 40 010203"), 0x010203},
		{"QUIC-LB, long, id too short", quicLB, data("e0 00000001 07 40 010203"), 0},
		{"QUIC-LB, Initial", quicLB, data("c0 00000001 08 40 010203 00000000"), 0},
		{"UDP", udp, data("52 010203 00000000"), 0x010203},
		{"UDP, a byte less", udp, data("52 010203 000000"), 0},
		{"UDP, another mark", udp, data("53 010203 00000000"), 0},
		{"TCP", tcp, segment(frames.ACK, "b706 01020000"), 0x201},
		{"TCP, behind others", tcp, segment(frames.ACK, "0101 080a 0000000000000000 b706 05000000"), 5},
		{"TCP, 14 in front", tcp, segment(frames.ACK, "0101010101010101 010101010101 b706 05000000"), 5},
		{"TCP, 15 in front", tcp, segment(frames.ACK, "0101010101010101 01010101010101 b706 05000000"), 0},
		{"TCP, behind the end", tcp, segment(frames.ACK, "00 b706 05000000"), 0},
		{"TCP, another length", tcp, segment(frames.ACK, "b705 010000 b706 05000000"), 0},
		{"TCP, beyond the header", tcp, segment(frames.ACK, "b706 0500"), 0},
		{"TCP, an option of length 1", tcp, segment(frames.ACK, "0801 b706 05000000"), 0},
		{"TCP, SYN", tcp, segment(frames.SYN, "b706 01020000"), 0},
		{"not asked for", lb.Options{Hash: lb.HashInput{KeepDestinationPort: true}}, segment(frames.ACK, "b706 01020000"), 0},
	}
}

func TestServerIDs(t *testing.T) {
	bed := newOptionBed(t, lb.FlowTransitions, lb.Options{}, "203.0.113.10:443/tcp", "203.0.113.10:443/udp")
	for _, tt := range serverIDCases() {
		t.Run(tt.name, func(t *testing.T) {
			b := bed.with(t, tt.options)
			b.setUse(chosen, lb.RealActive)
			frame := frameOf(toVIP(false, tt.payload))
			ring := own(clientOf(false), bedClient, bedPort)
			var targets []lb.ServerTarget
			for _, id := range []uint32{1024, 65535, 197632, 1<<32 - 1, 0x010203, 0x201, 5, 1} {
				real := beside
				if id == tt.id {
					real = chosen
				}
				targets = append(targets, lb.ServerTarget{Ring: 0, ServerID: id, Real: real}, lb.ServerTarget{Ring: 1, ServerID: id, Real: real})
			}
			want := ring
			if tt.id != 0 {
				want = chosen
			}
			require.NoError(t, b.d.SetTargets(targets, nil))
			b.wantSent("packet", frame, want)
			b.setUse(chosen, lb.RealDraining)
			b.wantSent("draining", frame, want)
			b.setUse(chosen, lb.RealRetired)
			b.wantSent("retired", frame, ring)
			require.NoError(t, b.d.SetTargets(nil, nil))
			b.wantSent("no such server", frame, ring)
			wantEqual(t, "flows of stable slots", b.flows(), nil)
		})
	}
}

// A UDP id that leads somewhere goes before the connection id.
func TestUDPIDBeforeConnectionID(t *testing.T) {
	b := newOptionBed(t, lb.FlowTransitions, lb.Options{ConnectionIDs: lb.ConnectionIDsKatran, UDPIDs: true}, "203.0.113.10:443/udp")
	// The mark makes it a short header, with an id of version 2.
	frame := udp4(0x52, 0x80, 0, 5, 9, 0, 0, 0, 0)
	both := []lb.ServerTarget{{ServerID: 0x800005, Real: chosen}, {ServerID: 5<<8 | 9, Real: beside}}
	require.NoError(t, b.d.SetTargets(both, nil))
	b.wantSent("both", frame, chosen)
	require.NoError(t, b.d.SetTargets(both[1:], nil))
	b.wantSent("connection id alone", frame, beside)
}

// What a server id says is also said to the flow table, where packets ask that.
func TestServerIDsAndFlows(t *testing.T) {
	led := tcpOf(frames.ACK)
	led.Options = unhex("b706 05000000")
	ended := led
	ended.Flags = frames.RST
	tcp, quic, udp := frameOf(toVIP(false, led)), udp4(unhex("40 41400000 00000000")...), udp4(unhex("52 000005 00000000")...)
	moving := func(id lb.RealID) lb.Slot { return lb.MovingSlot(id, beside) }
	for _, tt := range []struct {
		name   string
		mode   lb.FlowMode
		slot   func(lb.RealID) lb.Slot
		frame  []byte
		before *remembered
		after  *remembered
		events eventCounts
	}{
		{"moving", lb.FlowTransitions, moving, tcp, nil, &remembered{chosen, 0, false}, eventCounts{lb.FlowTakenOld: 1}},
		{"settling", lb.FlowTransitions, lb.SettlingSlot, tcp, nil, &remembered{chosen, 0, false}, eventCounts{lb.FlowTakenNew: 1}},
		{"lingering", lb.FlowTransitions, lb.LingeringSlot, tcp, nil, nil, nil},
		{"stable, always", lb.FlowAlways, lb.StableSlot, tcp, nil, &remembered{chosen, 0, false}, eventCounts{lb.FlowBegan: 1}},
		{"stable", lb.FlowTransitions, lb.StableSlot, tcp, &remembered{beside, 0, false}, &remembered{beside, 0, false}, nil},
		{"RST", lb.FlowTransitions, moving, frameOf(toVIP(false, ended)), nil, nil, nil},
		{"another real", lb.FlowTransitions, moving, tcp, &remembered{beside, 0, false}, &remembered{chosen, 0, true}, eventCounts{lb.FlowRepaired: 1}},
		{"another generation", lb.FlowTransitions, lb.LingeringSlot, tcp, &remembered{chosen, 3, true}, &remembered{chosen, 0, true}, eventCounts{lb.FlowRepaired: 1}},
		{"the same", lb.FlowTransitions, moving, tcp, &remembered{chosen, 0, false}, &remembered{chosen, 0, true}, nil},
		{"connection id, unknown", lb.FlowQUIC, moving, quic, nil, nil, nil},
		{"connection id, another real", lb.FlowQUIC, moving, quic, &remembered{beside, 0, false}, &remembered{chosen, 0, true}, eventCounts{lb.FlowRepaired: 1}},
		{"UDP id, another real", lb.FlowAlways, moving, udp, &remembered{beside, 0, false}, &remembered{beside, 0, false}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newOptionBed(t, tt.mode, lb.Options{TCPIDs: true, UDPIDs: true, ConnectionIDs: lb.ConnectionIDsKatran},
				"203.0.113.10:443/tcp", "203.0.113.10:443/udp")
			for ring := range lb.RingID(2) {
				b.setRing(ring, lb.SettlingSlot)
			}
			// Without a target the flow is remembered by its slot.
			tag := b.tagOf(frameOf(toVIP(false, plainOf(tt.frame))))
			for ring := range lb.RingID(2) {
				b.setRing(ring, tt.slot)
			}
			require.NoError(t, b.d.SetTargets([]lb.ServerTarget{{Ring: 0, ServerID: 5, Real: chosen}, {Ring: 1, ServerID: 5, Real: chosen}, {Ring: 1, ServerID: 1<<10 | 5<<8, Real: chosen}, {Ring: 1, ServerID: 1280, Real: chosen}}, nil))
			if tt.before != nil {
				b.add(lb.Flow{Tag: tag, Real: tt.before.real, Generation: tt.before.generation, Seen: tt.before.seen})
			}
			before := b.events()
			b.wantSent("packet", tt.frame, chosen)
			events := b.events()
			for e, n := range before {
				if events[e] -= n; events[e] == 0 {
					delete(events, e)
				}
			}
			wantEqual(t, "events", events, map[lb.FlowEvent]uint64(tt.events))
			var after *remembered
			if flows := b.flows(); len(flows) != 0 {
				after = &remembered{flows[0].Real, flows[0].Generation, flows[0].Seen}
			}
			wantEqual(t, "flow", after, tt.after)
		})
	}
}

// plainOf is a payload of the same flow as a frame, that names no server.
func plainOf(frame []byte) frames.Payload {
	if frame[14+9] == uint8(lb.TCP) {
		return tcpOf(frames.ACK)
	}
	return frames.UDP{SrcPort: bedClient, DstPort: bedPort}
}

func TestSourceRoutes(t *testing.T) {
	const vip4, vip6 = "203.0.113.10:443/tcp", "[2001:db8::10]:443/tcp"
	for _, v6 := range []bool{false, true} {
		name, near, far := "IPv4", "198.51.100.0/24", "198.51.0.0/16"
		if v6 {
			name, near, far = "IPv6", "2001:db8:1::/64", "2001:db8::/32"
		}
		t.Run(name, func(t *testing.T) {
			b := newOptionBed(t, lb.FlowTransitions, lb.Options{SourceRoutes: true}, vip4, vip6)
			ring := own(clientOf(v6), bedClient, bedPort)
			data, about := frameOf(toVIP(v6, tcpOf(frames.ACK))), errorOf(v6)
			all := []lb.SourceRoute{
				{Prefix: netip.MustParsePrefix(near), Backend: bedAddr(chosen)},
				{Prefix: netip.MustParsePrefix(far), Backend: bedAddr(beside)},
			}
			require.NoError(t, b.d.SetTargets(nil, []lb.RouteTarget{
				{Ring: 0, Backend: bedAddr(chosen), Real: chosen}, {Ring: 0, Backend: bedAddr(beside), Real: beside},
				{Ring: 1, Backend: bedAddr(chosen), Real: chosen}, {Ring: 1, Backend: bedAddr(beside), Real: beside},
			}))
			for _, step := range []struct {
				name   string
				routes []lb.SourceRoute
				use    lb.RealUse
				want   lb.RealID
			}{
				{"no route", nil, lb.RealActive, ring},
				{"longest prefix", all, lb.RealActive, chosen},
				{"its real drains", all, lb.RealDraining, ring},
				{"other prefix", all[1:], lb.RealActive, beside},
				{"no route again", nil, lb.RealActive, ring},
			} {
				require.NoError(t, b.d.SetSourceRoutes(step.routes))
				b.setUse(chosen, step.use)
				b.wantSent(step.name, data, step.want)
				b.wantSent(step.name+", ICMP error", about, step.want)
			}
			require.NoError(t, b.d.SetSourceRoutes(all))
			b.setUse(chosen, lb.RealActive)
			require.NoError(t, b.d.SetTargets(nil, nil))
			b.wantSent("no backend of this address", data, ring)
		})
	}
}

// A source route chooses as a stable slot would: with flow mode always, what is remembered goes before.
func TestSourceRouteOfARememberedFlow(t *testing.T) {
	b := newOptionBed(t, lb.FlowAlways, lb.Options{SourceRoutes: true}, "203.0.113.10:443/tcp")
	ring := own(clientOf(false), bedClient, bedPort)
	b.wantSent("before there is a route", tcp4(frames.SYN), ring)
	require.NoError(t, b.d.SetTargets(nil, []lb.RouteTarget{{Backend: bedAddr(chosen), Real: chosen}}))
	require.NoError(t, b.d.SetSourceRoutes([]lb.SourceRoute{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Backend: bedAddr(chosen)}}))
	b.wantSent("of a known flow", tcp4(frames.ACK), ring)
	b.wantSent("of a new one", tcp4(frames.SYN), chosen)
	b.wantSent("later", tcp4(frames.ACK), chosen)
}

func TestLocal(t *testing.T) {
	d := testOpen(t)
	s := web()
	s.size, s.backends = 7, s.backends[:1]
	fill(t, d, s)
	local := s.reals(t)[0]
	local.Tunnel = lb.Tunnel{Encap: lb.Local, Destination: local.Backend.Addr}
	local.Backend.Local, local.NextHop = true, lb.NextHop{}
	require.NoError(t, d.DeleteReals([]lb.RealID{1}))
	require.NoError(t, d.SetReals([]lb.Real{local}))
	frame := tcpFrame(client, webTarget)
	if out := wantEnd(t, d, "packet", frame, lb.ReasonLocal); !bytes.Equal(out, frame) {
		t.Errorf("the frame became %x", out)
	}
	wantCounts(t, d, counts{Reasons: map[lb.Reason]uint64{lb.ReasonLocal: 1}, Reals: map[lb.RealID]Counter{1: {1, 45}}})
	snapshot, err := d.Snapshot()
	require.NoError(t, err)
	wantEqual(t, "real", snapshot.Reals[0].Real, local)
}
