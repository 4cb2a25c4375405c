// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

func inspectOf(t *testing.T, d *Dataplane) *Inspection {
	t.Helper()
	i, err := d.Inspect()
	require.NoError(t, err)
	t.Cleanup(i.Close)
	return i
}

// TestFlowTag compares the name that Go gives a flow with that under which the program remembers it.
func TestFlowTag(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.SettlingSlot(cur))
	for _, v6 := range []bool{false, true} {
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			t.Run(fmt.Sprintf("IPv6 %v, %s", v6, protocol), func(t *testing.T) {
				var payload frames.Payload = tcpOf(frames.ACK)
				if protocol == lb.UDP {
					payload = frames.UDP{SrcPort: bedClient, DstPort: bedPort, Data: []byte("hello")}
				}
				name := FlowName{Src: clientOf(v6), Dst: vipOf(v6), SrcPort: bedClient, DstPort: bedPort, Protocol: protocol}
				if got, want := name.Tag(), b.tagOf(frameOf(toVIP(v6, payload))); got != want {
					t.Errorf("tag %x, the program's is %x", got, want)
				}
			})
		}
	}
}

// TestFlowTagOfWideVIPs does so for VIPs of all ports, and of prefixes.
func TestFlowTagOfWideVIPs(t *testing.T) {
	for _, c := range []struct {
		vip     string
		byPort0 bool
	}{
		{"203.0.113.10:0/tcp", true},
		{"203.0.113.0/24:443/tcp", false},
		{"203.0.113.0/28:0/tcp", true},
		{"[2001:db8::/64]:0/tcp", true},
		{"[2001:db8::/64]:443/tcp", false},
	} {
		t.Run(c.vip, func(t *testing.T) {
			d := testOpen(t)
			s := service{vip: c.vip, size: bedRing, firstID: 1, backends: []string{"10.0.0.1"}}
			fill(t, d, s)
			slots := make([]lb.Slot, bedRing)
			for i := range slots {
				slots[i] = lb.SettlingSlot(1)
			}
			_, err := d.SetRing(0, slots)
			require.NoError(t, err)
			vip := testVIP(t, c.vip)
			v6 := vip.Addr.Is6()
			want := (&flowBed{t, d}).tagOf(frameOf(toVIP(v6, tcpOf(frames.ACK))))
			name := FlowName{Src: clientOf(v6), Dst: vipOf(v6), SrcPort: bedClient, DstPort: bedPort, Protocol: lb.TCP,
				HostBits: vip.HostBits, ByPort0: c.byPort0}
			if got := name.Tag(); got != want {
				t.Errorf("tag %x, the program's is %x", got, want)
			}
		})
	}
}

func TestInspectFlow(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.SettlingSlot(cur))
	name := FlowName{Src: clientOf(false), Dst: vipOf(false), SrcPort: bedClient, DstPort: bedPort, Protocol: lb.TCP}
	i := inspectOf(t, b.d)
	if f, found := i.Flow(name); found {
		t.Fatalf("an empty table has %+v", f)
	}
	b.add(lb.Flow{Tag: name.Tag(), Real: elsewhere, Generation: otherGeneration, Slot: 7, Seen: true, Idle: 3 * time.Minute})
	before := b.events()
	f, found := i.Flow(name)
	if !found || f.Real != elsewhere || f.Generation != otherGeneration || f.Slot != 7 || !f.Seen {
		t.Errorf("found %v, %+v", found, f)
	}
	if off := (f.Idle - 3*time.Minute).Abs(); off > time.Minute {
		t.Errorf("idle for %v", f.Idle)
	}
	flows := 0
	i.Flows(func(lb.Flow) { flows++ })
	if flows != 1 {
		t.Errorf("%d flows, want 1", flows)
	}
	if after := b.events(); !maps.Equal(after, before) {
		t.Errorf("looking counted %v, before %v", after, before)
	}
}

func TestInspectFlowRoom(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.SettlingSlot(cur))
	name := FlowName{Src: clientOf(false), Dst: vipOf(false), SrcPort: bedClient, DstPort: bedPort, Protocol: lb.TCP}
	i := inspectOf(t, b.d)
	for _, seen := range []bool{false, true} {
		b.sweep(false)
		if !i.FlowRoom(name) {
			t.Error("an empty table has no room")
		}
		b.fillPlaces(name.Tag(), func(int) lb.Flow { return lb.Flow{Real: cur, Seen: seen} })
		if got := i.FlowRoom(name); got == seen {
			t.Errorf("places with flows that were seen %v: room %v", seen, got)
		}
	}
}

// TestInspectTables demands that an inspection has what was set.
func TestInspectTables(t *testing.T) {
	d := testOpen(t)
	s := service{vip: "203.0.113.10:443/udp", ring: 3, size: 101, firstID: 5, backends: []string{"10.0.0.1", "fd00::2"}}
	fill(t, d, s)
	entry := s.entry(t)
	entry.Options = lb.Options{UDPIDs: true, SourceRoutes: true}
	require.NoError(t, d.SetVIPs([]lb.VIPEntry{entry}))
	six := netip.MustParseAddr("fd00::2")
	require.NoError(t, d.SetTargets([]lb.ServerTarget{{Ring: 3, ServerID: 77, Real: 5}}, []lb.RouteTarget{{Ring: 3, Backend: six, Real: 6}}))
	var routes []lb.SourceRoute
	for _, p := range []string{"198.51.100.0/24", "198.51.100.64/26", "2001:db8::/32"} {
		routes = append(routes, lb.SourceRoute{Prefix: netip.MustParsePrefix(p), Backend: six})
	}
	require.NoError(t, d.SetSourceRoutes(routes))

	i := inspectOf(t, d)
	wantEqual(t, "VIPs", i.VIPs, []lb.VIPEntry{entry})
	wantEqual(t, "reals", i.Reals, s.reals(t))
	wantEqual(t, "slots", i.Slots(3), s.slots(t))
	if i.Slots(4) != nil {
		t.Error("a ring that is not there has slots")
	}
	servers, backends, err := i.Targets(3)
	require.NoError(t, err)
	wantEqual(t, "servers", servers, map[uint32]lb.RealID{77: 5})
	wantEqual(t, "backends", backends, map[netip.Addr]lb.RealID{six: 6})
	for client, want := range map[string]string{
		"198.51.100.7": "198.51.100.0/24", "198.51.100.70": "198.51.100.64/26", "2001:db8::7": "2001:db8::/32",
		"192.0.2.1": "", "::ffff:198.51.100.7": "",
	} {
		r, found, err := i.SourceRoute(netip.MustParseAddr(client))
		require.NoError(t, err)
		if found != (want != "") || found && (r.Prefix.String() != want || r.Backend != six) {
			t.Errorf("route of %s: %v, %+v, want %q", client, found, r, want)
		}
	}
}

func TestInspectSettings(t *testing.T) {
	require.Root(t)
	cfg := Config{Flows: testFlows, UDPIdle: 8 * time.Second, QUICLB: lb.QUICLB{ConfigID: 3, ServerIDBytes: 2}, Decap: lb.Decap{
		GUEPort: 6080, Others: lb.DecapEgress,
		Destinations: map[netip.Addr]lb.DecapAction{
			netip.MustParseAddr("203.0.113.99"): lb.DecapBalance, netip.MustParseAddr("2001:db8::99"): lb.DecapHost,
		},
	}}
	d, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	i := inspectOf(t, d)
	wantEqual(t, "decapsulation", i.Decap, cfg.Decap)
	wantEqual(t, "QUIC-LB", i.QUICLB, cfg.QUICLB)
	if i.UDPIdle < cfg.UDPIdle*8/10 || i.UDPIdle > cfg.UDPIdle*12/10 {
		t.Errorf("a pause of %v, want about %v", i.UDPIdle, cfg.UDPIdle)
	}
}

// flowsButIdle is what is remembered but for the time, which passes.
func flowsButIdle(b *flowBed) []lb.Flow {
	b.Helper()
	flows := b.flows()
	for i := range flows {
		flows[i].Idle = 0
	}
	return flows
}

// TestReplica demands that a replica does what the original does, and leaves no trace there.
func TestReplica(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	name := FlowName{Src: clientOf(false), Dst: vipOf(false), SrcPort: bedClient, DstPort: bedPort, Protocol: lb.TCP}
	b.add(lb.Flow{Tag: name.Tag(), Real: elsewhere, Generation: otherGeneration})
	before, flows := b.events(), flowsButIdle(b)
	r, err := inspectOf(t, b.d).Replicate()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	if !r.Same {
		t.Error("a copy of the program is said to be another one")
	}
	for what, c := range map[string]struct {
		frame []byte
		want  lb.Reason
		to    lb.RealID
	}{
		"known flow": {tcp4(frames.ACK), lb.ReasonForwarded, elsewhere},
		"not a VIP":  {frameOf(frames.IPv4{TTL: 64, Src: clientOf(false), Dst: netip.MustParseAddr("203.0.113.11"), Payload: tcpOf(0)}), lb.ReasonNotVIP, 0},
	} {
		verdict, reason, out, err := r.Run(c.frame)
		require.NoError(t, err)
		if reason != c.want || verdict != reason.Verdict() || c.to != 0 && sentTo(out) != c.to {
			t.Errorf("%s: %s, %s, to real %d", what, verdict, reason, sentTo(out))
		}
	}
	wantEqual(t, "events", b.events(), before)
	wantEqual(t, "flows", flowsButIdle(b), flows)
	s, err := b.d.Snapshot()
	require.NoError(t, err)
	if s.Reasons != [lb.ReasonLen]uint64{} {
		t.Errorf("the original counted %v", s.Reasons)
	}
}

// TestInspectGrowth compares what is foretold with what Reserve does.
func TestInspectGrowth(t *testing.T) {
	for _, c := range []engine.Capacity{
		{}, {Reals: 1000}, {RingSlots: 70000, VIPs4: 1}, {VIPs4: 300, VIPs6: 200}, {VIPs4: 3, Prefixes: 3}, {VIPs6: 40, Reals: 63},
	} {
		t.Run(c.String(), func(t *testing.T) {
			d := testOpen(t)
			before := d.gen.sizes()
			foretold := inspectOf(t, d).Growth(c)
			require.NoError(t, d.Reserve(c))
			after := d.gen.sizes()
			var want []MapGrowth
			for _, m := range []MapGrowth{
				{"reals", before.reals, after.reals}, {"rings", before.words, after.words}, {"vip_infos", before.vips, after.vips},
				{"vip_prefixes", before.prefixes, after.prefixes},
				{"vips4", vip4PerBucket << before.bits4, vip4PerBucket << after.bits4},
				{"vips6", vip6PerBucket << before.bits6, vip6PerBucket << after.bits6},
			} {
				if m.From != m.To {
					want = append(want, m)
				}
			}
			wantEqual(t, "growth", foretold, want)
		})
	}
}
