// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/frames"
	"github.com/remora-lb/remora/test/require"
)

// A flood of packets of ever other flows replaces its own entries only, whatever its packets are: flows
// that were seen again keep theirs, and so do those that were added as such, and a new flow finds a
// place.
func TestFloodReplacesItsOwn(t *testing.T) {
	const added, places, flood = 77, 4, 500
	for name, packet := range map[string]func(port uint16) frames.Payload{
		"SYN": func(port uint16) frames.Payload {
			return frames.TCP{SrcPort: port, DstPort: bedPort, Flags: frames.SYN}
		},
		"data": func(port uint16) frames.Payload {
			return frames.TCP{SrcPort: port, DstPort: bedPort, Flags: frames.ACK}
		},
		"UDP": func(port uint16) frames.Payload { return frames.UDP{SrcPort: port, DstPort: bedPort} },
	} {
		t.Run(name, func(t *testing.T) {
			require.Root(t)
			d, err := Open(Config{Flows: places})
			require.NoError(t, err)
			t.Cleanup(func() { d.Close() })
			b := &flowBed{t, d}
			b.fill(lb.FlowTransitions, lb.MovingSlot(cur, prev))
			b.add(lb.Flow{Tag: added, Real: elsewhere, Generation: otherGeneration, Seen: true})
			b.wantSent("SYN", tcp4(frames.SYN), cur)
			b.wantSent("data", tcp4(frames.ACK), cur)
			for port := range uint16(flood) {
				b.send(frameOf(toVIP(false, packet(1000+port))))
			}
			b.wantSent("data after the flood", tcp4(frames.ACK), cur)
			late := tcpOf(frames.SYN)
			late.SrcPort++
			b.wantSent("SYN after the flood", frameOf(toVIP(false, late)), cur)
			late.Flags = frames.ACK
			b.wantSent("data of that flow", frameOf(toVIP(false, late)), cur)
			if flows := b.flows(); len(flows) != places || !tagsOf(flows)[added] {
				t.Errorf("flows %+v, want %d and tag %x among them", flows, places, added)
			}
			// All but the two that found a free place, and the late SYN.
			events := b.events()
			if events[lb.FlowEvicted] != flood-2+1 || events[lb.FlowRefusedFull] != 0 {
				t.Errorf("events %v, want %d evicted and none refused", events, flood-2+1)
			}
		})
	}
}

// What finds no place does not use up the rate of new flows.
func TestRefusedFlowsAreNoInserts(t *testing.T) {
	b := newFlowBed(t, lb.FlowTransitions, lb.MovingSlot(cur, prev))
	tag := b.tagOf(tcp4(frames.ACK))
	b.fillPlaces(tag, func(int) lb.Flow { return lb.Flow{Real: elsewhere, Seen: true} })
	b.clearGuards()
	b.wantSent("no place", tcp4(frames.SYN), prev)
	if n := b.events()[lb.FlowRefusedFull]; n != 1 {
		t.Errorf("refused %d times for want of a place, want once", n)
	}
	if n := b.inserts(); n != 0 {
		t.Errorf("%d inserts, none was made", n)
	}
	// The rate is looked at first.
	b.limitInserts(0)
	b.wantSent("neither rate nor place", tcp4(frames.SYN), prev)
	if events := b.events(); events[lb.FlowRefusedRate] != 1 || events[lb.FlowRefusedFull] != 1 {
		t.Errorf("events %v, want one refusal for the rate and the one before", events)
	}

	b.sweep(false)
	b.limitInserts(1)
	b.clearGuards()
	b.wantSent("a place", tcp4(frames.SYN), cur)
	if n := b.inserts(); n != 1 {
		t.Errorf("%d inserts, want 1", n)
	}
}

// clearGuards lets all CPUs begin to count new flows.
func (b *flowBed) clearGuards() {
	b.Helper()
	require.NoError(b.T, b.d.gen.maps["flow_guards"].Put(uint32(0), make([]nativeFlowGuard, ebpf.MustPossibleCPU())))
}

// inserts are those that all CPUs have counted, each in the tick of its last one.
func (b *flowBed) inserts() (n uint32) {
	b.Helper()
	var guards []nativeFlowGuard
	require.NoError(b.T, b.d.gen.maps["flow_guards"].Lookup(uint32(0), &guards))
	for _, g := range guards {
		n += g.Inserts
	}
	return n
}
