// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// FuzzProgram compares the outcome of any frame, twice in a row, with the tables of seed 1. testdata
// has short frames of the generator: for each family one of every reason, one of every way to be
// forwarded, for packets and for ICMP errors, errors that just are and just are not about a flow that
// can be told, and one frame whose outer UDP length carries beyond 32 bits where it is added to the
// protocol number (length-carry).
func FuzzProgram(f *testing.F) {
	fuzzed := newFuzzed(f, tablesOf(1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < frames.HeaderLen || len(frame) > frames.MaxLen {
			t.Skip("the kernel's test run does not take the length")
		}
		fuzzed.compare(t, frameSteps(frame, frame))
	})
}

// FuzzWorld compares the outcome of any frame, twice in a row, with all options. The first byte chooses
// one of two worlds. The seeds are short frames of the generator.
func FuzzWorld(f *testing.F) {
	var fuzzed []fuzzed
	for seed := range uint64(2) {
		world := worldOf(seed + 1)
		fuzzed = append(fuzzed, newFuzzed(f, world))
		for _, frame := range next(newWorldGenerator(world, seed), 40) {
			if len(frame) < 300 {
				f.Add(byte(seed), frame)
			}
		}
	}
	f.Fuzz(func(t *testing.T, world byte, frame []byte) {
		if len(frame) < frames.HeaderLen || len(frame) > frames.MaxLen {
			t.Skip("the kernel's test run does not take the length")
		}
		fuzzed[world%2].compare(t, frameSteps(frame, frame))
	})
}

// FuzzSequence compares sequences on VIPs with one slot: each pair of bytes is a packet of one of few
// flows, or a change of a slot, a real or a flow mode.
func FuzzSequence(f *testing.F) {
	tables := fewSlots()
	fuzzed := newFuzzed(f, tables)
	f.Add([]byte{opSYN, 0, opChangeSlot, 6, opData, 0, opError, 0, opChangeReal, 2, opData, 0, opRST, 0, opPause, 1, opData, 0})
	f.Add([]byte{opChangeMode, 1, opSYN, 3, opData, 3, opPause, 0, opPause, 1, opData, 3, opInitial, 3, opShort, 3})
	f.Fuzz(func(t *testing.T, ops []byte) {
		const maxOps = 40 // some cost milliseconds
		var steps []step
		after := copyOf(tables)
		for op := range slices.Chunk(ops[:min(len(ops), 2*maxOps)&^1], 2) {
			s := stepOf(after, op[0], op[1])
			s.change.Apply(after, nil)
			steps = append(steps, s)
		}
		fuzzed.compare(t, steps)
	})
}

type fuzzed struct {
	comparison *comparison
	start      *model.Tables
}

func newFuzzed(f *testing.F, tables *model.Tables) fuzzed {
	f.Helper()
	c, err := newComparison(&oracle{}, load(f, tables), tables)
	if err != nil {
		f.Fatal(err)
	}
	return fuzzed{c, tables}
}

// compare compares one sequence, from the same start each time.
func (f fuzzed) compare(t *testing.T, steps []step) {
	t.Helper()
	if err := f.comparison.rewind(f.start); err != nil {
		t.Fatal(err)
	}
	found, err := f.comparison.sequence(steps)
	if err != nil {
		t.Fatal(err)
	}
	if found != nil {
		report(t, f.comparison.oracle, found)
	}
}

// What the first byte of a pair stands for, modulo opLen.
const (
	opSYN = iota
	opData
	opRST
	opInitial
	opShort
	opError
	opChangeSlot
	opChangeReal
	opChangeMode
	opPause
	opLen
)

// fewReals is how many reals fewSlots has for each VIP.
const fewReals = 4

// fewSlots is a VIP for each protocol and family, with one slot and few reals.
func fewSlots() *model.Tables {
	t := &model.Tables{VIPs: map[lb.VIP]model.VIP{}, Reals: map[lb.RealID]lb.Real{}, UDPIdle: udpIdle}
	var id lb.RealID
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, 1}), netip.MustParseAddr("2001:db8::1")} {
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			name := lb.VIP{Addr: addr, Port: 443, Protocol: protocol}
			t.VIPs[name] = model.VIP{Ring: model.Ring{lb.MovingSlot(id+1, id+2)}, Flows: lb.FlowQUIC}
			for range fewReals {
				id++
				t.Reals[id] = lb.Real{
					ID: id, VIP: name, NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, byte(id)}, MTU: 1500},
					Tunnel: lb.Tunnel{Destination: netip.AddrFrom4([4]byte{10, 0, 0, byte(id)}), Source: lb.DefaultTunnelSources().IPIP4},
				}
			}
		}
	}
	return t
}

// stepOf is what a pair of bytes stands for. The lower bits of arg choose the VIP.
func stepOf(t *model.Tables, op, arg byte) step {
	targets := frames.Targets(t)
	name := targets[int(arg)%len(targets)]
	arg /= byte(len(targets))
	vip := t.VIPs[name]
	first := lb.RealID(1)
	for t.Reals[first].VIP != name {
		first++
	}
	anyOf := func(n byte) lb.RealID { return first + lb.RealID(n%(fewReals+1)) } // the last one is another VIP's, or none
	change := func() step { return step{change: frames.Change{VIPs: map[lb.VIP]model.VIP{name: vip}}} }
	switch op % opLen {
	case opChangeSlot:
		cur, prev := anyOf(arg), anyOf(arg/2+1)
		vip.Ring = model.Ring{[]lb.Slot{
			lb.MovingSlot(cur, prev), lb.SettlingSlot(cur), lb.LingeringSlot(cur), lb.StableSlot(cur), lb.MovingSlot(0, prev),
		}[arg%5]}
		return change()
	case opChangeReal:
		r := t.Reals[first+lb.RealID(arg%fewReals)]
		r.Use = lb.RealUse(arg / fewReals % 3)
		r.Generation += arg >> 5
		return step{change: frames.Change{Reals: map[lb.RealID]lb.Real{r.ID: r}}}
	case opChangeMode:
		vip.Flows = lb.FlowMode(arg % 4)
		return change()
	case opPause:
		if arg%2 == 0 {
			return step{change: frames.Change{Pause: shortPause}}
		}
		return step{change: frames.Change{Pause: longPause}}
	}
	return step{frame: flowFrame(name, op%opLen, arg)}
}

// flowFrame is a packet to the VIP, or an ICMP error about one from it.
func flowFrame(name lb.VIP, op, flow byte) []byte {
	var payload frames.Payload
	if name.Protocol == lb.TCP {
		flags := map[byte]uint8{opSYN: frames.SYN, opRST: frames.RST, opInitial: frames.SYN | frames.RST}[op]
		payload = frames.TCP{SrcPort: 1000 + uint16(flow%4), DstPort: name.Port, Flags: flags}
	} else {
		data := binary.BigEndian.AppendUint16(nil, map[byte]uint16{opInitial: 0xc000, opShort: 0x4000, opSYN: 0xd000, opRST: 0xe000}[op])
		payload = frames.UDP{SrcPort: 1000 + uint16(flow%4), DstPort: name.Port, Data: data}
	}
	client := netip.AddrFrom4([4]byte{198, 51, 100, 7})
	if name.Addr.Is6() {
		client = netip.MustParseAddr("2001:db8:1::7")
	}
	between := func(src, dst netip.Addr, p frames.Payload) frames.Packet {
		if dst.Is6() {
			return frames.IPv6{HopLimit: 64, Src: src, Dst: dst, Payload: p}
		}
		return frames.IPv4{TTL: 64, Src: src, Dst: dst, Payload: p}
	}
	if op == opError {
		sent := between(name.Addr, client, frames.Reversed(payload))
		payload = frames.ICMP{Type: frames.ErrorTypes(name.Addr.Is6())[0], Data: frames.Quote(sent, frames.QuotedLen)}
	}
	return frames.Frame{Packet: between(client, name.Addr, payload)}.Bytes()
}
