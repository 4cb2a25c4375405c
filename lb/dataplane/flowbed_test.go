// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// The reals of a flow bed. Each is at 10.0.0.ID.
const (
	cur lb.RealID = iota + 1
	prev
	elsewhere
	draining
	retired
	absent // has no record
)

// otherGeneration is that of elsewhere's id; all others have generation 0.
const otherGeneration = 9

// flowBed is a data plane with VIPs of both protocols and families at port 443, whose slots all look
// alike.
type flowBed struct {
	*testing.T
	d *Dataplane
}

const (
	bedRing   = 101 // slots
	bedVIP4   = "203.0.113.10"
	bedVIP6   = "2001:db8::10"
	bedPort   = 443
	bedClient = 50000 // port
)

func newFlowBed(t *testing.T, mode lb.FlowMode, slot lb.Slot) *flowBed {
	t.Helper()
	b := &flowBed{t, testOpen(t)}
	b.fill(mode, slot)
	return b
}

func (b *flowBed) fill(mode lb.FlowMode, slot lb.Slot) {
	b.Helper()
	var vips []lb.VIPEntry
	for i, addr := range []string{bedVIP4, bedVIP6} {
		for j, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			vips = append(vips, lb.VIPEntry{
				VIP:    lb.VIP{Addr: netip.MustParseAddr(addr), Port: bedPort, Protocol: protocol},
				RingID: lb.RingID(2*i + j), Ring: lb.Ring{Size: bedRing}, Flows: mode,
			})
		}
	}
	var reals []lb.Real
	for id := cur; id < absent; id++ {
		r := testReal(b.T, id, vips[0].VIP.String(), lb.IPIP, bedAddr(id).String())
		r.Use = map[lb.RealID]lb.RealUse{draining: lb.RealDraining, retired: lb.RealRetired}[id]
		if id == elsewhere {
			r.Generation = otherGeneration
		}
		reals = append(reals, r)
	}
	require.NoError(b.T, b.d.SetReals(reals))
	b.setSlots(slot)
	require.NoError(b.T, b.d.SetVIPs(vips))
}

func bedAddr(id lb.RealID) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 0, byte(id >> 8), byte(id)})
}

// setSlots makes all slots of all rings look like this one.
func (b *flowBed) setSlots(slot lb.Slot) {
	b.Helper()
	slots := make([]lb.Slot, bedRing)
	for i := range slots {
		slots[i] = slot
	}
	for ring := range lb.RingID(4) {
		_, err := b.d.SetRing(ring, slots)
		require.NoError(b.T, err)
	}
}

// send returns the real that a frame is sent to; 0 if it is not sent.
func (b *flowBed) send(frame []byte) lb.RealID {
	b.Helper()
	verdict, out := send(b.T, b.d.Program(), frame)
	if verdict != lb.TX {
		return 0
	}
	return sentTo(out)
}

// sentTo is the real that a frame goes to, behind any VLAN tags.
func sentTo(frame []byte) lb.RealID {
	for len(frame) > 18 && (frame[12] == 0x81 || frame[12] == 0x88) {
		frame = frame[4:]
	}
	if a := outerDestination(frame); a.Is4() {
		return lb.RealID(a.As4()[2])<<8 | lb.RealID(a.As4()[3])
	}
	return 0
}

// wantSent fails unless the frame is sent to the real.
func (b *flowBed) wantSent(what string, frame []byte, to lb.RealID) {
	b.Helper()
	if got := b.send(frame); got != to {
		b.Errorf("%s: sent to real %d, want %d", what, got, to)
	}
}

// flows is what is remembered.
func (b *flowBed) flows() []lb.Flow {
	b.Helper()
	return b.sweep(true)
}

// sweep is what is remembered, or was until now.
func (b *flowBed) sweep(keep bool) (flows []lb.Flow) {
	b.Helper()
	require.NoError(b.T, b.d.SweepFlows(func(f lb.Flow) bool {
		flows = append(flows, f)
		return keep
	}))
	return flows
}

// tagOf is the tag of a frame's flow. It forgets all flows.
func (b *flowBed) tagOf(frame []byte) uint64 {
	b.Helper()
	b.sweep(false)
	b.send(frame)
	flows := b.sweep(false)
	if len(flows) != 1 {
		b.Fatalf("a frame left %d flows", len(flows))
	}
	return flows[0].Tag
}

func (b *flowBed) add(flows ...lb.Flow) {
	b.Helper()
	added, err := b.d.AddFlows(flows)
	require.NoError(b.T, err)
	if added != len(flows) {
		b.Fatalf("%d flows added, want %d", added, len(flows))
	}
}

// table is the flow table itself.
func (b *flowBed) table() flowTable { return b.d.gen.flows.elems }

// age makes all flows look as if their last packet had been so long ago.
func (b *flowBed) age(idle time.Duration) {
	b.Helper()
	clock := flowClockOf(b.T, b.d)
	b.table().each(func(e flowEntry) {
		f := clock.flow(e)
		f.Idle = idle
		_, *e.valueAt = clock.words(f)
	})
}

// events are the counters of the flow table that are not zero.
func (b *flowBed) events() map[lb.FlowEvent]uint64 {
	b.Helper()
	s, err := b.d.Snapshot()
	require.NoError(b.T, err)
	events := make(map[lb.FlowEvent]uint64)
	for e, n := range s.FlowEvents {
		if n != 0 {
			events[lb.FlowEvent(e)] = n
		}
	}
	return events
}

func flowClockOf(t *testing.T, d *Dataplane) flowClock {
	t.Helper()
	clock, err := d.gen.flowClock()
	require.NoError(t, err)
	return clock
}

const settingsSection = ".data.flow_settings"

func flowSettings(t *testing.T, d *Dataplane) (s nativeFlowSettings) {
	t.Helper()
	require.NoError(t, d.gen.maps[settingsSection].Lookup(uint32(0), &s))
	return s
}

// limitInserts changes the limit of new flows for each tick and CPU.
func (b *flowBed) limitInserts(n uint32) {
	b.Helper()
	s := flowSettings(b.T, b.d)
	s.InsertLimit = n
	require.NoError(b.T, b.d.gen.maps[settingsSection].Update(uint32(0), s, ebpf.UpdateExist))
}

// clientOf is the address of a client of the family.
func clientOf(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("2001:db8:1::7")
	}
	return netip.MustParseAddr("198.51.100.7")
}

func vipOf(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(bedVIP6)
	}
	return netip.MustParseAddr(bedVIP4)
}

func frameOf(p frames.Packet) []byte {
	return frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Src: [6]byte{2, 0, 0, 0, 0, 9}, Packet: p}.Bytes()
}

// toVIP is the client's packet to the VIP.
func toVIP(v6 bool, payload frames.Payload) frames.Packet {
	if v6 {
		return frames.IPv6{HopLimit: 64, Src: clientOf(v6), Dst: vipOf(v6), Payload: payload}
	}
	return frames.IPv4{TTL: 64, Src: clientOf(v6), Dst: vipOf(v6), Payload: payload}
}

func tcpOf(flags uint8) frames.TCP {
	return frames.TCP{SrcPort: bedClient, DstPort: bedPort, Flags: flags, Window: 512, Data: []byte("hello")}
}

// tcp4 is a frame of the client's flow with these flags.
func tcp4(flags uint8) []byte { return frameOf(toVIP(false, tcpOf(flags))) }

func udp4(data ...byte) []byte {
	return frameOf(toVIP(false, frames.UDP{SrcPort: bedClient, DstPort: bedPort, Data: data}))
}

// errorOf is a router's complaint about an answer to the client: it belongs to the client's flow.
func errorOf(v6 bool) []byte {
	answer := frames.TCP{SrcPort: bedPort, DstPort: bedClient, Flags: frames.ACK}
	if v6 {
		quote := frames.IPv6{Src: vipOf(v6), Dst: clientOf(v6), Payload: answer}.Bytes()
		return frameOf(frames.IPv6{HopLimit: 64, Src: netip.MustParseAddr("2001:db8:2::1"), Dst: vipOf(v6),
			Payload: frames.ICMP{Type: frames.TooBig6, Rest: 1280, Data: quote}})
	}
	quote := frames.IPv4{Src: vipOf(v6), Dst: clientOf(v6), Payload: answer}.Bytes()
	return frameOf(frames.IPv4{TTL: 64, Src: netip.MustParseAddr("192.0.2.99"), Dst: vipOf(v6),
		Payload: frames.ICMP{Type: frames.Unreachable, Code: 4, Rest: 1280, Data: quote}})
}

// otherTag is the tag of another flow with the same places; n goes from 1 to 1000.
func otherTag(tag uint64, n int) uint64 {
	// Neither half's lower bits, which lead to the buckets, may change.
	return tag ^ uint64(n)<<20
}

// fillPlaces fills the places of a tag with flows, which make says.
func (b *flowBed) fillPlaces(tag uint64, make func(n int) lb.Flow) {
	b.Helper()
	for n := range 2 * flowPerBucket {
		f := make(n)
		f.Tag = otherTag(tag, n+1)
		if got := b.table().buckets(f.Tag); got != b.table().buckets(tag) {
			b.Fatalf("tag %x has other places than %x", f.Tag, tag)
		}
		b.add(f)
	}
}

func clientAt(v6 bool) netip.AddrPort { return netip.AddrPortFrom(clientOf(v6), bedClient) }

// onOneCPU keeps the test on one CPU.
func onOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var before, one unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &before))
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
	for cpu := range 1024 {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	require.NoError(t, unix.SchedSetaffinity(0, &one))
}
