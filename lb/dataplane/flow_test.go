// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
)

// remembered is what is left of a flow.
type remembered struct {
	real       lb.RealID
	generation uint8
	seen       bool
}

type eventCounts map[lb.FlowEvent]uint64

// flowCase is a row of docs/packet-path.md, section 5.
type flowCase struct {
	name   string
	slot   lb.Slot
	packet func(v6 bool) []byte
	before *remembered // nil: nothing
	to     lb.RealID
	after  *remembered
	events eventCounts
}

func synPacket(v6 bool) []byte  { return frameOf(toVIP(v6, tcpOf(frames.SYN))) }
func dataPacket(v6 bool) []byte { return frameOf(toVIP(v6, tcpOf(frames.ACK|frames.PSH))) }
func rstPacket(v6 bool) []byte  { return frameOf(toVIP(v6, tcpOf(frames.RST|frames.ACK))) }

// flowCases are the rows; those that share one are named after it.
func flowCases() []flowCase {
	moving, settling, lingering, stable := lb.MovingSlot(cur, prev), lb.SettlingSlot(cur), lb.LingeringSlot(cur), lb.StableSlot(cur)
	known, knownSeen := &remembered{elsewhere, otherGeneration, false}, &remembered{elsewhere, otherGeneration, true}
	atRetired, ofEarlier, atAbsent := &remembered{retired, 0, true}, &remembered{elsewhere, otherGeneration - 1, true}, &remembered{absent, 0, true}
	atDraining, atDrainingSeen := &remembered{draining, 0, false}, &remembered{draining, 0, true}
	atCur, atPrev := &remembered{cur, 0, false}, &remembered{prev, 0, false}
	began, hit, stale := eventCounts{lb.FlowBegan: 1}, eventCounts{lb.FlowHit: 1}, eventCounts{lb.FlowHitStale: 1}
	takenOld, takenNew := eventCounts{lb.FlowTakenOld: 1}, eventCounts{lb.FlowTakenNew: 1}
	staleOld, staleNew := eventCounts{lb.FlowHitStale: 1, lb.FlowTakenOld: 1}, eventCounts{lb.FlowHitStale: 1, lb.FlowTakenNew: 1}
	return []flowCase{
		{"moving, SYN", moving, synPacket, nil, cur, atCur, began},
		{"moving, SYN of a known flow", moving, synPacket, knownSeen, cur, atCur, began},
		{"moving, SYN of a flow at a retired real", moving, synPacket, atRetired, cur, atCur, began},
		{"moving, unknown", moving, dataPacket, nil, prev, atPrev, takenOld},
		{"moving, known", moving, dataPacket, known, elsewhere, knownSeen, hit},
		{"moving, at a draining real", moving, dataPacket, atDraining, draining, atDrainingSeen, hit},
		{"moving, at a retired real", moving, dataPacket, atRetired, prev, atPrev, staleOld},
		{"moving, of an earlier generation", moving, dataPacket, ofEarlier, prev, atPrev, staleOld},
		{"moving, at a real without a record", moving, dataPacket, atAbsent, prev, atPrev, staleOld},
		{"moving, RST of an unknown flow", moving, rstPacket, nil, prev, nil, nil},
		{"moving, RST of a known flow", moving, rstPacket, known, elsewhere, knownSeen, hit},
		{"moving, RST of a flow at a retired real", moving, rstPacket, atRetired, prev, atRetired, stale},
		{"moving, error about an unknown flow", moving, errorOf, nil, prev, nil, nil},
		{"moving, error about a known flow", moving, errorOf, known, elsewhere, known, hit},
		{"moving, error about a flow at a retired real", moving, errorOf, atRetired, prev, atRetired, stale},
		{"moving from a draining real, SYN", lb.MovingSlot(cur, draining), synPacket, nil, cur, atCur, began},
		{"moving from a draining real, unknown", lb.MovingSlot(cur, draining), dataPacket, nil, draining, atDraining, takenOld},
		{"moving from a retired real, SYN", lb.MovingSlot(cur, retired), synPacket, nil, cur, atCur, began},
		{"moving from a retired real, unknown", lb.MovingSlot(cur, retired), dataPacket, nil, cur, atCur, takenNew},
		{"moving from a real without a record, unknown", lb.MovingSlot(cur, absent), dataPacket, nil, cur, atCur, takenNew},
		{"moving from a real beyond all records, unknown", lb.MovingSlot(cur, lb.MaxRealID), dataPacket, nil, cur, atCur, takenNew},
		{"moving to none, SYN", lb.MovingSlot(0, prev), synPacket, nil, 0, nil, nil},
		{"moving to none, unknown", lb.MovingSlot(0, prev), dataPacket, nil, prev, atPrev, takenOld},

		{"settling, SYN", settling, synPacket, nil, cur, atCur, began},
		{"settling, SYN of a known flow", settling, synPacket, knownSeen, cur, atCur, began},
		{"settling, unknown", settling, dataPacket, nil, cur, atCur, takenNew},
		{"settling, known", settling, dataPacket, known, elsewhere, knownSeen, hit},
		{"settling, at a retired real", settling, dataPacket, atRetired, cur, atCur, staleNew},
		{"settling, of an earlier generation", settling, dataPacket, ofEarlier, cur, atCur, staleNew},
		{"settling, RST of an unknown flow", settling, rstPacket, nil, cur, nil, nil},
		{"settling, RST of a known flow", settling, rstPacket, known, elsewhere, knownSeen, hit},
		{"settling, error about an unknown flow", settling, errorOf, nil, cur, nil, nil},
		{"settling, error about a known flow", settling, errorOf, known, elsewhere, known, hit},
		{"settling without a real, SYN", lb.SettlingSlot(0), synPacket, nil, 0, nil, nil},
		{"settling without a real, unknown", lb.SettlingSlot(0), dataPacket, nil, 0, nil, nil},

		{"lingering, SYN", lingering, synPacket, nil, cur, nil, nil},
		{"lingering, SYN of a known flow", lingering, synPacket, knownSeen, cur, nil, nil},
		{"lingering, unknown", lingering, dataPacket, nil, cur, nil, takenNew},
		{"lingering, known", lingering, dataPacket, known, elsewhere, knownSeen, hit},
		{"lingering, at a retired real", lingering, dataPacket, atRetired, cur, nil, staleNew},
		{"lingering, of an earlier generation", lingering, dataPacket, ofEarlier, cur, nil, staleNew},
		{"lingering, RST of an unknown flow", lingering, rstPacket, nil, cur, nil, nil},
		{"lingering, RST of a flow at a retired real", lingering, rstPacket, atRetired, cur, atRetired, stale},
		{"lingering, error about a known flow", lingering, errorOf, known, elsewhere, known, hit},
		{"lingering, error about an unknown flow", lingering, errorOf, nil, cur, nil, nil},

		{"stable, SYN", stable, synPacket, nil, cur, nil, nil},
		{"stable, unknown", stable, dataPacket, nil, cur, nil, nil},
		{"stable, remembered", stable, dataPacket, known, cur, known, nil},
		{"stable, error about a remembered flow", stable, errorOf, known, cur, known, nil},
	}
}

func TestFlowTransitions(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.SettlingSlot(cur))
	for _, v6 := range []bool{false, true} {
		b.setSlots(lb.SettlingSlot(cur))
		tag := b.tagOf(dataPacket(v6))
		for _, c := range flowCases() {
			t.Run(fmt.Sprintf("%s, IPv6 %v", c.name, v6), func(t *testing.T) {
				b := &flowBed{t, b.d}
				b.check(c, v6, tag)
			})
		}
	}
}

// check is one row: what is remembered before, a packet, and what has become of all.
func (b *flowBed) check(c flowCase, v6 bool, tag uint64) {
	b.Helper()
	b.sweep(false)
	b.setSlots(c.slot)
	if c.before != nil {
		b.add(lb.Flow{Tag: tag, Real: c.before.real, Generation: c.before.generation, Seen: c.before.seen, Slot: 1 << 19, Idle: time.Hour})
	}
	earlier := b.events()
	b.wantSent("packet", c.packet(v6), c.to)
	events := b.events()
	for e, n := range earlier {
		if events[e] -= n; events[e] == 0 {
			delete(events, e)
		}
	}
	wantEqual(b.T, "events", events, c.events)
	flows := b.flows()
	if c.after == nil {
		wantEqual(b.T, "flows", flows, nil)
		return
	}
	if len(flows) != 1 {
		b.Fatalf("flows %+v, want one", flows)
	}
	f := flows[0]
	wantEqual(b.T, "what is remembered", remembered{f.Real, f.Generation, f.Seen}, *c.after)
	b.wantMet(c, v6, f, tag)
}

// wantMet fails unless the entry says that the flow was met now, if this packet may say so.
func (b *flowBed) wantMet(c flowCase, v6 bool, f lb.Flow, tag uint64) {
	b.Helper()
	untouched := c.before != nil && *c.before == *c.after && c.events[lb.FlowHit] == 0
	isError := bytes.Equal(c.packet(v6), errorOf(v6))
	slot := slotOf(clientAt(v6), bedPort, bedRing)
	if untouched || isError {
		slot = 1 << 19
	}
	if f.Tag != tag || f.Slot != slot || (f.Idle > time.Minute) != (untouched || isError) {
		b.Errorf("flow %+v, want tag %x, slot %d", f, tag, slot)
	}
}

// A SYN whose flow cannot be remembered follows the packets that come after it.
func TestFlowNotRemembered(t *testing.T) {
	seen := func(int) lb.Flow { return lb.Flow{Real: elsewhere, Generation: otherGeneration, Seen: true} }
	for _, tt := range []struct {
		name   string
		slot   lb.Slot
		packet []byte
		to     lb.RealID
	}{
		{"moving, SYN", lb.MovingSlot(cur, prev), tcp4(frames.SYN), prev},
		{"moving, unknown", lb.MovingSlot(cur, prev), tcp4(frames.ACK), prev},
		{"moving from a draining real, SYN", lb.MovingSlot(cur, draining), tcp4(frames.SYN), cur},
		{"moving from a draining real, unknown", lb.MovingSlot(cur, draining), tcp4(frames.ACK), draining},
		{"moving from a retired real, SYN", lb.MovingSlot(cur, retired), tcp4(frames.SYN), cur},
		{"settling, SYN", lb.SettlingSlot(cur), tcp4(frames.SYN), cur},
		{"settling, unknown", lb.SettlingSlot(cur), tcp4(frames.ACK), cur},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, lb.FlowTransitions, tt.slot)
			b.limitInserts(0)
			b.wantSent("too many in this tick", tt.packet, tt.to)
			wantEqual(t, "events", b.events(), eventCounts{lb.FlowRefusedRate: 1})
			wantEqual(t, "flows", b.flows(), nil)

			b = newFlowBed(t, lb.FlowTransitions, tt.slot)
			tag := b.tagOf(tcp4(frames.ACK))
			b.fillPlaces(tag, seen)
			b.wantSent("no place", tt.packet, tt.to)
			if n := b.events()[lb.FlowRefusedFull]; n != 1 {
				t.Errorf("refused %d times for want of a place, want once", n)
			}
			if flows := b.flows(); len(flows) != 2*flowPerBucket {
				t.Errorf("flows %+v, want those that were there", flows)
			}
		})
	}
}

// A flow that has an entry needs no place, and does not count as new.
func TestFlowReplacedInSpiteOfLimit(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	b.wantSent("unknown", tcp4(frames.ACK), prev)
	b.limitInserts(0)
	b.wantSent("SYN", tcp4(frames.SYN), cur)
	b.wantSent("known", tcp4(frames.ACK), cur)
	wantEqual(t, "events", b.events(), eventCounts{lb.FlowTakenOld: 1, lb.FlowBegan: 1, lb.FlowHit: 1})
}

// Where there is no free place, the flow gives way that was not seen after it began, of these the
// one that is idle for longest.
func TestFlowEviction(t *testing.T) {
	idle := []time.Duration{7: time.Minute} // of the others: none
	for _, tt := range []struct {
		name   string
		mode   lb.FlowMode
		seen   func(n int) bool
		idle   func(n int) time.Duration
		victim int
	}{
		{"unseen for longest, in the first bucket", lb.FlowTransitions, func(n int) bool { return n == 1 }, func(n int) time.Duration { return []time.Duration{0, 0, 9, 5, 4, 3, 2, 1}[n] * time.Minute }, 2},
		{"unseen for longest, in the second bucket", lb.FlowTransitions, func(n int) bool { return n == 5 }, func(n int) time.Duration { return []time.Duration{1, 2, 3, 4, 5, 60, 9, 8}[n] * time.Minute }, 6},
		{"the only one that is unseen", lb.FlowTransitions, func(n int) bool { return n != 4 }, func(int) time.Duration { return time.Hour }, 4},
		{"all flows remembered, unseen before idle", lb.FlowAlways, func(n int) bool { return n != 3 }, func(n int) time.Duration { return time.Duration(9-n) * time.Minute }, 3},
		{"all flows remembered, all seen", lb.FlowAlways, func(int) bool { return true }, func(n int) time.Duration { return idle[n] }, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, tt.mode, lb.MovingSlot(cur, prev))
			tag := b.tagOf(tcp4(frames.ACK))
			b.fillPlaces(tag, func(n int) lb.Flow { return lb.Flow{Real: elsewhere, Seen: tt.seen(n), Idle: tt.idle(n)} })
			victim := otherTag(tag, tt.victim+1)
			b.wantSent("SYN", tcp4(frames.SYN), cur)
			left := entries(b.table())
			if _, ok := left[tag]; !ok || len(left) != 2*flowPerBucket {
				t.Errorf("%d flows, the new one among them: %v", len(left), ok)
			}
			if _, ok := left[victim]; ok {
				t.Errorf("flow %d is still there", tt.victim)
			}
			if n := b.events()[lb.FlowEvicted]; n != 1 {
				t.Errorf("%d evicted, want 1", n)
			}
		})
	}
}

// An entry that another CPU writes is neither taken nor broken.
func TestFlowClaimed(t *testing.T) {
	for _, mode := range []lb.FlowMode{lb.FlowTransitions, lb.FlowAlways} {
		t.Run(mode.String(), func(t *testing.T) {
			b := newFlowBed(t, mode, lb.MovingSlot(cur, prev))
			tag := b.tagOf(tcp4(frames.ACK))
			for _, bucket := range b.table().buckets(tag) {
				bucket.Tag = [4]uint64{flowClaimed, flowClaimed, flowClaimed, flowClaimed}
			}
			b.wantSent("SYN", tcp4(frames.SYN), prev)
			for _, bucket := range b.table().buckets(tag) {
				if bucket.Tag != [4]uint64{flowClaimed, flowClaimed, flowClaimed, flowClaimed} {
					t.Errorf("bucket %x", bucket.Tag)
				}
			}
		})
	}
}

// With mode always, stable slots remember too, and a flow stays where it is whatever the slot says.
func TestFlowAlways(t *testing.T) {
	for _, tt := range []struct {
		name         string
		first, later []byte
	}{
		{"TCP from its SYN", tcp4(frames.SYN), tcp4(frames.ACK)},
		{"TCP from its middle", tcp4(frames.ACK), tcp4(frames.ACK)},
		{"UDP", udp4(1), udp4(2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, lb.FlowAlways, lb.StableSlot(cur))
			b.wantSent("first", tt.first, cur)
			if flows := b.flows(); len(flows) != 1 || flows[0].Real != cur || flows[0].Seen {
				t.Errorf("flows %+v, want one at real %d, not seen again", flows, cur)
			}
			b.setSlots(lb.StableSlot(elsewhere))
			b.wantSent("later", tt.later, cur)
			wantEqual(t, "events", b.events(), eventCounts{lb.FlowBegan: 1, lb.FlowHit: 1})
			if flows := b.flows(); len(flows) != 1 || !flows[0].Seen {
				t.Errorf("flows %+v, want one, seen again", flows)
			}
		})
	}
}

// With mode always, a UDP flow that pauses for longer than 30 s is new; one of TCP is not.
func TestFlowIdle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mode   lb.FlowMode
		packet []byte
		idle   time.Duration
		to     lb.RealID
	}{
		{"UDP within", lb.FlowAlways, udp4(1), 25 * time.Second, cur},
		{"UDP after", lb.FlowAlways, udp4(1), 35 * time.Second, elsewhere},
		{"TCP after", lb.FlowAlways, tcp4(frames.ACK), time.Hour, cur},
		{"QUIC after", lb.FlowQUIC, udp4(1), time.Hour, cur},
		// As another CPU may have begun the tick earlier.
		{"UDP in the next tick", lb.FlowAlways, udp4(1), -time.Second, cur},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, tt.mode, lb.SettlingSlot(cur))
			b.wantSent("first", tt.packet, cur)
			b.setSlots(lb.SettlingSlot(elsewhere))
			if tt.idle < 0 {
				b.table().each(func(e flowEntry) { *e.valueAt += 1 << flowTickShift })
			} else {
				b.age(tt.idle)
			}
			b.wantSent("later", tt.packet, tt.to)
			if flows := b.flows(); len(flows) != 1 || flows[0].Real != tt.to || flows[0].Idle > 5*time.Second {
				t.Errorf("flows %+v, want one at real %d, not idle", flows, tt.to)
			}
		})
	}
}

func TestFlowQUIC(t *testing.T) {
	const unknown, known = false, true
	for _, tt := range []struct {
		name   string
		mode   lb.FlowMode
		packet []byte
		known  bool
		to     lb.RealID
		seen   bool
	}{
		{"Initial", lb.FlowQUIC, udp4(0xc3, 0, 0, 0, 1), unknown, cur, false},
		{"0-RTT", lb.FlowQUIC, udp4(0xd3, 0, 0, 0, 1), unknown, cur, false},
		{"Handshake", lb.FlowQUIC, udp4(0xe3, 0, 0, 0, 1), unknown, prev, false},
		{"Retry", lb.FlowQUIC, udp4(0xf3, 0, 0, 0, 1), unknown, prev, false},
		{"short header", lb.FlowQUIC, udp4(0x43), unknown, prev, false},
		{"no payload", lb.FlowQUIC, udp4(), unknown, prev, false},
		{"no payload, but a trailer", lb.FlowQUIC, append(udp4(), 0xc3), unknown, prev, false},
		{"Initial of a known flow", lb.FlowQUIC, udp4(0xc3, 0, 0, 0, 1), known, elsewhere, false},
		{"short header of a known flow", lb.FlowQUIC, udp4(0x43), known, elsewhere, true},
		{"Initial, where it has no meaning", lb.FlowTransitions, udp4(0xc3, 0, 0, 0, 1), unknown, prev, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newFlowBed(t, tt.mode, lb.MovingSlot(cur, prev))
			tag := b.tagOf(udp4(1))
			if tt.known {
				b.add(lb.Flow{Tag: tag, Real: elsewhere, Generation: otherGeneration})
			}
			b.wantSent("packet", tt.packet, tt.to)
			if flows := b.flows(); len(flows) != 1 || flows[0].Tag != tag || flows[0].Real != tt.to || flows[0].Seen != tt.seen {
				t.Errorf("flows %+v, want one at real %d, seen: %v", flows, tt.to, tt.seen)
			}
		})
	}
}

// However a flow's packets are parsed, they are of one flow.
func TestFlowOfAnyForm(t *testing.T) {
	tags := []frames.Tag{{EtherType: frames.EtherTypeSTag, Control: 7}, {EtherType: frames.EtherTypeTag, Control: 8}}
	options := []byte{1, 1, 1, 1, 1, 1, 1, 1}
	tagged := func(p frames.Packet, tags ...frames.Tag) []byte {
		return frames.Frame{Dst: [6]byte{2, 0, 0, 0, 0, 1}, Tags: tags, Packet: p}.Bytes()
	}
	packet := func(v6, special bool, flags uint8) frames.Packet {
		p := toVIP(v6, tcpOf(flags))
		switch p := p.(type) {
		case frames.IPv4:
			if special {
				p.Options = options
			}
			return p
		case frames.IPv6:
			if special {
				p.Extensions = []frames.Extension{frames.DestinationOptions(1), frames.HopByHop(0)}
			}
			return p
		}
		return p
	}
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	for _, v6 := range []bool{false, true} {
		forms := func(flags uint8) [][]byte {
			return [][]byte{
				tagged(packet(v6, false, flags)),
				tagged(packet(v6, false, flags), tags[1]),
				tagged(packet(v6, false, flags), tags...),
				tagged(packet(v6, true, flags)),
				tagged(packet(v6, true, flags), tags...),
			}
		}
		for i, syn := range forms(frames.SYN) {
			b.sweep(false)
			for j, unknown := range forms(frames.ACK) {
				b.wantSent(fmt.Sprintf("form %d, unknown", j), unknown, prev)
				b.wantSent(fmt.Sprintf("form %d, SYN", i), syn, cur)
				b.wantSent(fmt.Sprintf("form %d, known", j), unknown, cur)
				b.wantSent("error", errorOf(v6), cur)
				if flows := b.sweep(false); len(flows) != 1 {
					t.Errorf("IPv6 %v, forms %d and %d: flows %+v, want one", v6, i, j, flows)
				}
			}
		}
	}
}

// Each CPU has the configured number of new flows in a tick.
func TestFlowInsertLimit(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	b.limitInserts(3)
	onOneCPU(t)
	var sent []lb.RealID
	for deadline := time.Now().Add(time.Minute); ; {
		b.sweep(false)
		sent = nil
		b.clearGuards()
		before := flowClockOf(t, b.d).now
		for port := range uint16(5) {
			tcp := tcpOf(frames.SYN)
			tcp.SrcPort += port
			sent = append(sent, b.send(frameOf(toVIP(false, tcp))))
		}
		if before == flowClockOf(t, b.d).now {
			break // all in one tick
		}
		if time.Now().After(deadline) {
			t.Fatal("no tick was long enough for five packets")
		}
	}
	wantEqual(t, "reals", sent, []lb.RealID{cur, cur, cur, prev, prev})
	if n := b.events()[lb.FlowRefusedRate]; n < 2 {
		t.Errorf("%d refused, want 2 at least", n)
	}
}

func TestFlowNever(t *testing.T) {
	b := newFlowBed(t, lb.FlowNever, lb.StableSlot(cur))
	b.wantSent("SYN", tcp4(frames.SYN), cur)
	b.setSlots(lb.StableSlot(elsewhere))
	b.wantSent("later", tcp4(frames.ACK), elsewhere)
	wantEqual(t, "flows", b.flows(), nil)
}
