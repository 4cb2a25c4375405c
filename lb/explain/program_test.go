// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// inspected is an inspection as the tables of a world.
type inspected struct{ *dataplane.Inspection }

func (i inspected) Flow(name model.Flow) (lb.Flow, bool) {
	return i.Inspection.Flow(dataplane.FlowName(name))
}

func (i inspected) FlowRoom(name model.Flow) bool {
	return i.Inspection.FlowRoom(dataplane.FlowName(name))
}

// worldOf is the world of a data plane.
func worldOf(t *testing.T, d *dataplane.Dataplane) *World {
	t.Helper()
	i, err := d.Inspect()
	require.NoError(t, err)
	t.Cleanup(i.Close)
	return &World{VIPs: i.VIPs, Reals: i.Reals, UDPIdle: i.UDPIdle, Decap: i.Decap, QUICLB: i.QUICLB, Tables: inspected{i}}
}

// seed is new for each run, or comes from the environment to repeat an earlier one.
func seed(t *testing.T) uint64 {
	t.Helper()
	const variable = "REMORA_SEED"
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv(variable); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("read %s: %v", variable, err)
		}
	}
	t.Logf("%s=%d repeats this run", variable, n)
	return n
}

// open is a data plane with the tables, attached to nothing.
func open(t *testing.T, tables *model.Tables) *dataplane.Dataplane {
	t.Helper()
	require.Root(t)
	d, err := dataplane.Open(dataplane.Config{Flows: 1 << 12, AnswerLimit: dataplane.AnswersUnlimited})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	var reals []lb.Real
	for _, r := range tables.Reals {
		reals = append(reals, r)
	}
	require.NoError(t, d.SetReals(reals))
	var entries []lb.VIPEntry
	for id, name := range frames.Targets(tables) {
		vip := tables.VIPs[name]
		_, err := d.SetRing(lb.RingID(id), vip.Ring)
		require.NoError(t, err)
		entries = append(entries, lb.VIPEntry{VIP: name, Service: "test", RingID: lb.RingID(id), Flows: vip.Flows,
			Ring: lb.Ring{Size: uint32(len(vip.Ring))}, Options: vip.Options})
	}
	require.NoError(t, d.SetVIPs(entries))
	return d
}

// TestExplainsWhatTheProgramDoes explains random frames, and then runs each. Flows are remembered on the
// way, so explanations depend on the table, too.
func TestExplainsWhatTheProgramDoes(t *testing.T) {
	n := seed(t)
	tables := frames.Tables(n)
	d := open(t, tables)
	w := worldOf(t, d)
	w.Reals = nil // those of the tables know why there is no next hop
	for _, r := range tables.Reals {
		w.Reals = append(w.Reals, r)
	}
	generator := frames.NewGenerator(rand.New(rand.NewPCG(n, 1)), frames.Targets(tables)...)
	const count = 600
	reasons, asked, found := make(map[string]int), 0, 0
	for range count {
		frame := generator.Next().Bytes
		r, err := w.Packet(frame)
		require.NoError(t, err)
		before := counts(t, d)
		verdict, out, err := d.Program().Test(frame)
		require.NoError(t, err)
		reason, real := grown(before, counts(t, d))
		reasons[r.Reason]++
		if r.Flow != nil && r.Flow.Asked {
			asked++
			if r.Flow.Found {
				found++
			}
		}
		if got := lb.Verdict(verdict).String(); got != r.Verdict || reason.String() != r.Reason || !bytes.Equal(out, r.frame) {
			t.Fatalf("explained as %s, %s, %x; the program: %s, %s, %x\n%s\n%x", r.Verdict, r.Reason, r.frame, got, reason, out, text(t, r), frame)
		}
		if r.Reason == lb.ReasonForwarded.String() {
			checkForwarded(t, r, real)
		}
		if r.Why == "" {
			t.Errorf("nothing is said on why: %s", text(t, r))
		}
	}
	t.Logf("%d frames: %v; %d asked the flow table, %d were found there", count, reasons, asked, found)
	if len(reasons) < 8 || asked < 50 || found < 10 {
		t.Error("too few cases to tell")
	}
}

// checkForwarded demands that a report on a forwarded packet names what the program did.
func checkForwarded(t *testing.T, r *Report, real lb.RealID) {
	t.Helper()
	if r.Real == nil || r.Real.ID != real || !r.Real.Fits || r.VIP == nil || r.Slot == nil || r.Flow == nil {
		t.Fatalf("the packet was sent to real %d:\n%s", real, text(t, r))
	}
	if r.Sent == nil || r.Sent.Frame != hex.EncodeToString(r.frame) || len(r.Sent.Outer) < 2*ipv4Len {
		t.Fatalf("what was sent is not told:\n%s", text(t, r))
	}
}

// counters are those of reasons, and of packets by real.
type counters struct {
	reasons [lb.ReasonLen]uint64
	reals   map[lb.RealID]uint64
}

func counts(t *testing.T, d *dataplane.Dataplane) counters {
	t.Helper()
	s, err := d.Snapshot()
	require.NoError(t, err)
	c := counters{reasons: s.Reasons, reals: make(map[lb.RealID]uint64)}
	for _, r := range s.Reals {
		c.reals[r.ID] = r.Packets
	}
	return c
}

// grown is the reason and the real whose counters grew.
func grown(before, after counters) (reason lb.Reason, real lb.RealID) {
	for r := range lb.ReasonLen {
		if after.reasons[r] != before.reasons[r] {
			reason = r
		}
	}
	for id, n := range after.reals {
		if n != before.reals[id] {
			real = id
		}
	}
	return reason, real
}

func text(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.Print(&b))
	return b.String()
}

// TestExplainLeavesNoTrace demands that explaining changes neither counters nor flows.
func TestExplainLeavesNoTrace(t *testing.T) {
	n := seed(t)
	tables := frames.Tables(n)
	d := open(t, tables)
	w := worldOf(t, d)
	generator := frames.NewGenerator(rand.New(rand.NewPCG(n, 2)), frames.Targets(tables)...)
	for range 100 { // something that can be changed
		_, _, err := d.Program().Test(generator.Next().Bytes)
		require.NoError(t, err)
	}
	before, flows := counts(t, d), flowsOf(t, d)
	for range 100 {
		_, err := w.Packet(generator.Next().Bytes)
		require.NoError(t, err)
	}
	for _, real := range w.Reals[:3] {
		_, err := w.Real(real.Backend.Addr, lb.VIP{}, 5)
		require.NoError(t, err)
	}
	if after := counts(t, d); after.reasons != before.reasons || !maps.Equal(after.reals, before.reals) {
		t.Error("counters changed")
	}
	if after := flowsOf(t, d); !maps.Equal(after, flows) {
		t.Errorf("flows changed: %v, before %v", after, flows)
	}
}

// flowsOf is the flow table but for the time, which passes.
func flowsOf(t *testing.T, d *dataplane.Dataplane) map[uint64]lb.Flow {
	t.Helper()
	flows := make(map[uint64]lb.Flow)
	require.NoError(t, d.SweepFlows(func(f lb.Flow) bool {
		f.Idle = 0
		flows[f.Tag] = f
		return true
	}))
	return flows
}

// TestExamplesReachTheReal runs the examples of reals through the program.
func TestExamplesReachTheReal(t *testing.T) {
	tables := frames.Tables(seed(t))
	d := open(t, tables)
	w := worldOf(t, d)
	ran := 0
	for _, real := range w.Reals[:20] {
		report, err := w.Real(real.Backend.Addr, real.VIP, 3)
		require.NoError(t, err)
		for _, v := range report.VIPs {
			for _, example := range v.Examples {
				frame, err := ParsePacket(example)
				require.NoError(t, err)
				before := counts(t, d)
				_, _, err = d.Program().Test(frame)
				require.NoError(t, err)
				reason, to := grown(before, counts(t, d))
				if reason == lb.ReasonForwarded && to != v.ID {
					t.Errorf("%s went to real %d, not %d", example, to, v.ID)
				}
				ran++
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d examples", ran)
	}
}

// TestExplainOptions explains packets of VIPs whose options choose the real, and runs them.
func TestExplainOptions(t *testing.T) {
	require.Root(t)
	d, err := dataplane.Open(dataplane.Config{Flows: 1 << 12})
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	vip := lb.VIP{Addr: netip.MustParseAddr("203.0.113.0"), Protocol: lb.UDP, HostBits: 8}
	var reals []lb.Real
	for id := lb.RealID(1); id <= 3; id++ {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(id)})
		tunnel, err := lb.DefaultTunnelSources().Tunnel(lb.IPIP, addr)
		require.NoError(t, err)
		reals = append(reals, lb.Real{ID: id, VIP: vip, Backend: lb.Backend{Addr: addr, Weight: 1}, Tunnel: tunnel,
			NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 1, byte(id)}, MTU: 1500}})
	}
	require.NoError(t, d.SetReals(reals))
	slots := make([]lb.Slot, 101)
	for i := range slots {
		slots[i] = lb.StableSlot(1)
	}
	_, err = d.SetRing(0, slots)
	require.NoError(t, err)
	require.NoError(t, d.SetVIPs([]lb.VIPEntry{{VIP: vip, Service: "wide", Ring: lb.Ring{Size: 101}, Options: lb.Options{UDPIDs: true, SourceRoutes: true}}}))
	require.NoError(t, d.SetTargets([]lb.ServerTarget{{ServerID: 77, Real: 2}}, []lb.RouteTarget{{Backend: reals[2].Backend.Addr, Real: 3}}))
	require.NoError(t, d.SetSourceRoutes([]lb.SourceRoute{{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Backend: reals[2].Backend.Addr}}))
	w := worldOf(t, d)
	for _, c := range []struct {
		name, client string
		data         []byte
		to           lb.RealID
		why          string
	}{
		{"ring", "192.0.2.1", []byte("hello"), 1, "is stable at 10.0.0.1"},
		{"source route", "198.51.100.7", []byte("hello"), 3, "source route 198.51.100.0/24 leads to 10.0.0.3"},
		{"server id", "198.51.100.7", []byte{0x52, 0, 0, 77, 0, 0, 0, 0}, 2, "names its server, which leads to 10.0.0.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := frames.Frame{Packet: frames.IPv4{TTL: 64, Src: netip.MustParseAddr(c.client), Dst: netip.MustParseAddr("203.0.113.9"),
				Payload: frames.UDP{SrcPort: 50000, DstPort: 443, Data: c.data}}}.Bytes()
			r, err := w.Packet(frame)
			require.NoError(t, err)
			before := counts(t, d)
			_, out, err := d.Program().Test(frame)
			require.NoError(t, err)
			_, to := grown(before, counts(t, d))
			if to != c.to || r.Real == nil || r.Real.ID != to || !bytes.Equal(out, r.frame) {
				t.Errorf("sent to real %d, want %d:\n%s", to, c.to, text(t, r))
			}
			if !bytes.Contains([]byte(r.Why), []byte(c.why)) {
				t.Errorf("why: %s, want %q", r.Why, c.why)
			}
		})
	}
}

// TestCheck compares with a replica, and finds a report that is wrong.
func TestCheck(t *testing.T) {
	tables := frames.Tables(1)
	d := open(t, tables)
	i, err := d.Inspect()
	require.NoError(t, err)
	replica, err := i.Replicate()
	require.NoError(t, err)
	t.Cleanup(func() { replica.Close() })
	w := worldOf(t, d)
	generator := frames.NewGenerator(rand.New(rand.NewPCG(seed(t), 3)), frames.Targets(tables)...)
	for range 100 {
		frame := generator.Next().Bytes
		r, err := w.Packet(frame)
		require.NoError(t, err)
		verdict, reason, out, err := replica.Run(frame)
		require.NoError(t, err)
		r.Compare(verdict, reason, out, !replica.Same)
		if r.Reason == lb.ReasonForwarded.String() && r.Flow.Asked {
			continue // the replica remembers what it met before
		}
		if !r.Check.Agrees || r.Check.OtherProgram {
			t.Fatal(text(t, r))
		}
		r.Compare(lb.Drop, lb.ReasonNoRoom, out, false)
		if r.Check.Agrees || !bytes.Contains([]byte(text(t, r)), []byte(fmt.Sprintf("program:   %s, %s", lb.Drop, lb.ReasonNoRoom))) {
			t.Fatal(text(t, r))
		}
	}
}
