// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// The reals of the tests of flows. Their generations are ten times their ids.
const (
	oldReal, newReal, elsewhere lb.RealID = 1, 2, 3 // active
	drainingReal, retiredReal   lb.RealID = 4, 5
	withoutRecord               lb.RealID = 6
)

// oneSlot has VIPs of both protocols, with one slot.
func oneSlot(t testing.TB, mode lb.FlowMode, slot lb.Slot) *model.Tables {
	t.Helper()
	tables := oneReal(t, vip4+":443/tcp", tunnelTo(t, lb.IPIP, false, "10.0.0.1"))
	any := tables.Reals[1]
	for id := oldReal; id <= retiredReal; id++ {
		r := any
		r.ID, r.Generation = id, uint8(10*id)
		r.Use = map[lb.RealID]lb.RealUse{drainingReal: lb.RealDraining, retiredReal: lb.RealRetired}[id]
		tables.Reals[id] = r
	}
	for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
		name := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: protocol}
		tables.VIPs[name] = model.VIP{Ring: model.Ring{slot}, Flows: mode}
	}
	return tables
}

// The packets of the tests of flows.
var (
	syn       = segment(frames.SYN)
	data      = segment(frames.ACK)
	fin       = segment(frames.FIN | frames.ACK)
	rst       = segment(frames.RST | frames.ACK)
	synRST    = segment(frames.SYN | frames.RST)
	tcpError  = about(false, frames.Quote(sentBy(false, frames.TCP{SrcPort: 50000, DstPort: 443}), frames.QuotedLen))
	udpError  = about(false, frames.Quote(sentBy(false, frames.UDP{SrcPort: 50000, DstPort: 443}), frames.QuotedLen))
	datagram  = datagramOf("hello")
	noData    = datagramOf("")
	initial   = datagramOf("\xc0 Initial")
	zeroRTT   = datagramOf("\xd0 0-RTT")
	handshake = datagramOf("\xe0 Handshake")
	retry     = datagramOf("\xf0 Retry")
	short     = datagramOf("\x40 short header")
)

func segment(flags uint8) []byte {
	return frame(packet(client4, vip4, frames.TCP{SrcPort: 50000, DstPort: 443, Flags: flags})).Bytes()
}

func datagramOf(data string) []byte {
	return frame(packet(client4, vip4, frames.UDP{SrcPort: 50000, DstPort: 443, Data: []byte(data)})).Bytes()
}

// flowOf is the flow of the packets above.
func flowOf(protocol lb.Protocol) model.Flow {
	return model.Flow{Src: addr(client4), Dst: addr(vip4), SrcPort: 50000, DstPort: 443, Protocol: protocol}
}

// protocolOf is that of the flow of one of the packets above.
func protocolOf(frame []byte) lb.Protocol {
	packet := frame[14:]
	if packet[9] == 1 {
		packet = packet[20+8:] // what the error quotes
	}
	return lb.Protocol(packet[9])
}

// at is an entry of a flow that was seen at the real.
func at(id lb.RealID) model.Entry {
	return model.Entry{Real: id, Generation: uint8(10 * id), Seen: true, Idle: time.Second}
}

// idle is an entry that was not used for so long.
func idle(id lb.RealID, d time.Duration) model.Entry {
	e := at(id)
	e.Idle = d
	return e
}

// unseen is an entry of a flow that only began.
func unseen(id lb.RealID) model.Entry { return model.Entry{Real: id, Generation: uint8(10 * id)} }

// otherGeneration is an entry of an earlier holder of the real's id.
func otherGeneration(id lb.RealID) model.Entry {
	e := at(id)
	e.Generation++
	return e
}

type flowCase struct {
	name    string
	mode    lb.FlowMode
	slot    lb.Slot
	has     model.Entry // of the flow; none if its real is 0
	frame   []byte
	refused bool
	want    lb.RealID
	change  model.Change
	seen    bool // afterwards, if used
	events  []lb.FlowEvent
}

func runFlows(t *testing.T, cases []flowCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, flowOf(protocolOf(c.frame)))
		})
	}
}

func (c flowCase) run(t *testing.T, flow model.Flow) {
	var flows model.Flows
	if c.has.Real != 0 {
		flows.Set(flow, c.has)
	}
	if c.refused {
		flows.Refuse = func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedFull, true }
	}
	res := processWith(t, oneSlot(t, c.mode, c.slot), &flows, c.frame)
	if got := res.Flow; res.Real != c.want || got.Change != c.change || !slices.Equal(got.Events, c.events) {
		t.Errorf("real %d, %s, %v, want real %d, %s, %v", res.Real, got.Change, got.Events, c.want, c.change, c.events)
	}
	want := c.has
	switch c.change {
	case model.ChangeForget:
		want = model.Entry{}
	case model.ChangeUse:
		want.Seen, want.Idle = c.seen, 0
	case model.ChangeRemember:
		want = unseen(c.want)
		if c.want > retiredReal {
			want.Generation = 0
		}
	}
	if e, _ := flows.Get(flow); e != c.has {
		t.Errorf("Process changed the entry %+v to %+v", c.has, e)
	}
	flows.Apply(res.Flow)
	if e, _ := flows.Get(flow); e != want {
		t.Errorf("the entry is %+v afterwards, want %+v", e, want)
	}
}

var (
	moving    = lb.MovingSlot(newReal, oldReal)
	settling  = lb.SettlingSlot(newReal)
	lingering = lb.LingeringSlot(newReal)
	stable    = lb.StableSlot(newReal)
)

// one is the events of a packet that has one.
func one(e lb.FlowEvent) []lb.FlowEvent { return []lb.FlowEvent{e} }

// stale is the events of a packet whose flow was remembered in vain.
func stale(then ...lb.FlowEvent) []lb.FlowEvent {
	return append([]lb.FlowEvent{lb.FlowHitStale}, then...)
}

func TestStableSlots(t *testing.T) {
	const transitions, always, never, quic = lb.FlowTransitions, lb.FlowAlways, lb.FlowNever, lb.FlowQUIC
	runFlows(t, []flowCase{
		{name: "transitions", mode: transitions, slot: stable, frame: data, want: newReal},
		{name: "never", mode: never, slot: stable, frame: data, want: newReal},
		{name: "quic, TCP", mode: quic, slot: stable, frame: syn, want: newReal},
		{name: "quic, Initial", mode: quic, slot: stable, frame: initial, want: newReal},
		{name: "quic, short header", mode: quic, slot: stable, frame: short, want: newReal},
		{name: "transitions, a flow that is elsewhere", mode: transitions, slot: stable, has: at(elsewhere), frame: data, want: newReal},
		{name: "transitions, a retired real", mode: transitions, slot: lb.StableSlot(retiredReal), frame: data, want: retiredReal},
		{name: "always, SYN", mode: always, slot: stable, frame: syn, want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "always, data", mode: always, slot: stable, frame: data, want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "always, a flow that is elsewhere", mode: always, slot: stable, has: at(elsewhere), frame: data,
			want: elsewhere, change: model.ChangeUse, seen: true, events: one(lb.FlowHit)},
		{name: "always, a flow at a retired real", mode: always, slot: stable, has: at(retiredReal), frame: data,
			want: newReal, change: model.ChangeRemember, events: stale(lb.FlowBegan)},
		{name: "always, an empty slot", mode: always, slot: lb.StableSlot(0), frame: syn, want: 0},
		{name: "always, an empty slot, a flow that is elsewhere", mode: always, slot: lb.StableSlot(0), has: at(elsewhere), frame: data,
			want: elsewhere, change: model.ChangeUse, seen: true, events: one(lb.FlowHit)},
	})
}

func TestKnownFlows(t *testing.T) {
	hit := one(lb.FlowHit)
	use := func(name string, slot lb.Slot, has model.Entry, frame []byte, seen bool) flowCase {
		return flowCase{name: name, mode: lb.FlowQUIC, slot: slot, has: has, frame: frame,
			want: has.Real, change: model.ChangeUse, seen: seen, events: hit}
	}
	always := func(c flowCase) flowCase {
		c.mode = lb.FlowAlways
		return c
	}
	runFlows(t, []flowCase{
		use("data, moving", moving, at(elsewhere), data, true),
		use("data, settling", settling, at(elsewhere), data, true),
		use("data, lingering", lingering, at(elsewhere), data, true),
		use("data, for the first time", moving, unseen(elsewhere), data, true),
		use("FIN, for the first time", moving, unseen(elsewhere), fin, true),
		use("RST, for the first time", moving, unseen(elsewhere), rst, true),
		use("a draining real", moving, at(drainingReal), data, true),
		use("Initial", moving, at(elsewhere), initial, true),
		use("Initial again", moving, unseen(elsewhere), initial, false),
		use("0-RTT behind an Initial", moving, unseen(elsewhere), zeroRTT, false),
		use("Handshake", moving, unseen(elsewhere), handshake, true),
		use("short header", moving, unseen(elsewhere), short, true),
		use("idle for long, TCP", moving, idle(elsewhere, time.Hour), data, true),
		use("idle for long, UDP", moving, idle(elsewhere, time.Hour), datagram, true),
		always(use("always, idle for long, TCP", settling, idle(elsewhere, time.Hour), data, true)),
		always(use("always, idle for not quite 30 s, UDP", settling, idle(elsewhere, 30*time.Second-1), datagram, true)),
		{name: "ICMP error", slot: moving, has: unseen(elsewhere), frame: tcpError, want: elsewhere, events: hit},
		{name: "ICMP error, UDP", slot: lingering, has: at(elsewhere), frame: udpError, want: elsewhere, events: hit},

		{name: "SYN, moving", slot: moving, has: at(elsewhere), frame: syn,
			want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "SYN and RST, settling", slot: settling, has: at(elsewhere), frame: synRST,
			want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "SYN, lingering", slot: lingering, has: at(elsewhere), frame: syn, want: newReal, change: model.ChangeForget},
		{name: "SYN, no place for others", slot: moving, has: at(elsewhere), frame: syn, refused: true,
			want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
	})
}

func TestFlowsThatAreNotKnown(t *testing.T) {
	old, fresh := one(lb.FlowTakenOld), one(lb.FlowTakenNew)
	take := func(name string, slot lb.Slot, has model.Entry, frame []byte, want lb.RealID, events []lb.FlowEvent) flowCase {
		return flowCase{name: name, slot: slot, has: has, frame: frame, want: want,
			change: model.ChangeRemember, events: events}
	}
	begin := func(name string, mode lb.FlowMode, slot lb.Slot, frame []byte) flowCase {
		return flowCase{name: name, mode: mode, slot: slot, frame: frame, want: newReal,
			change: model.ChangeRemember, events: one(lb.FlowBegan)}
	}
	none := model.Entry{}
	pause := idle(elsewhere, 30*time.Second)
	runFlows(t, []flowCase{
		begin("SYN, moving", lb.FlowTransitions, moving, syn),
		begin("SYN, settling", lb.FlowNever, settling, syn),
		begin("SYN and RST, moving", lb.FlowTransitions, moving, synRST),
		begin("Initial, moving", lb.FlowQUIC, moving, initial),
		begin("0-RTT, settling", lb.FlowQUIC, settling, zeroRTT),
		{name: "SYN, lingering", slot: lingering, frame: syn, want: newReal},
		take("data, moving", moving, none, data, oldReal, old),
		take("FIN, moving", moving, none, fin, oldReal, old),
		take("datagram, moving", moving, none, datagram, oldReal, old),
		take("empty datagram, moving", moving, none, noData, oldReal, old),
		take("Initial without mode quic, moving", moving, none, initial, oldReal, old),
		take("data, settling", settling, none, data, newReal, fresh),
		{name: "data, lingering", slot: lingering, frame: data, want: newReal, events: fresh},
		{name: "Handshake, moving", mode: lb.FlowQUIC, slot: moving, frame: handshake, want: oldReal,
			change: model.ChangeRemember, events: old},
		{name: "Retry, moving", mode: lb.FlowQUIC, slot: moving, frame: retry, want: oldReal,
			change: model.ChangeRemember, events: old},
		{name: "short header, moving", mode: lb.FlowQUIC, slot: moving, frame: short, want: oldReal,
			change: model.ChangeRemember, events: old},
		{name: "empty datagram with mode quic, moving", mode: lb.FlowQUIC, slot: moving, frame: noData, want: oldReal,
			change: model.ChangeRemember, events: old},

		take("from a draining real", lb.MovingSlot(newReal, drainingReal), none, data, drainingReal, old),
		take("from a retired real", lb.MovingSlot(newReal, retiredReal), none, data, newReal, fresh),
		take("from a real without a record", lb.MovingSlot(newReal, withoutRecord), none, data, newReal, fresh),
		take("from none", lb.MovingSlot(newReal, 0), none, data, newReal, fresh),
		{name: "to a real without a record", slot: lb.SettlingSlot(withoutRecord), frame: data, want: withoutRecord},

		{name: "to none, SYN", slot: lb.MovingSlot(0, oldReal), frame: syn, want: 0},
		take("to none, data", lb.MovingSlot(0, oldReal), none, data, oldReal, old),
		{name: "settling at none", slot: lb.SettlingSlot(0), frame: data, want: 0},
		{name: "settling at none, at a retired real", slot: lb.SettlingSlot(0), has: at(retiredReal), frame: data, want: 0, events: stale()},

		{name: "RST, moving", slot: moving, frame: rst, want: oldReal},
		{name: "RST, settling", slot: settling, frame: rst, want: newReal},
		{name: "RST, at a retired real", slot: lingering, has: at(retiredReal), frame: rst, want: newReal, events: stale()},
		{name: "ICMP error, moving", slot: moving, frame: tcpError, want: oldReal},
		{name: "ICMP error, lingering, at a retired real", slot: lingering, has: at(retiredReal), frame: tcpError, want: newReal, events: stale()},

		take("at a retired real", moving, at(retiredReal), data, oldReal, stale(lb.FlowTakenOld)),
		take("at a real without a record", settling, at(withoutRecord), data, newReal, stale(lb.FlowTakenNew)),
		take("at an earlier holder of the id", moving, otherGeneration(elsewhere), data, oldReal, stale(lb.FlowTakenOld)),
		{name: "at a retired real, lingering", slot: lingering, has: at(retiredReal), frame: data,
			want: newReal, change: model.ChangeForget, events: stale(lb.FlowTakenNew)},
		{name: "always, idle for 30 s, UDP", mode: lb.FlowAlways, slot: stable, has: pause, frame: datagram,
			want: newReal, change: model.ChangeRemember, events: one(lb.FlowBegan)},
		{name: "always, idle for 30 s, ICMP error", mode: lb.FlowAlways, slot: stable, has: pause, frame: udpError, want: newReal},
	})
}

func TestFlowsThatAreRefused(t *testing.T) {
	full := one(lb.FlowRefusedFull)
	refused := func(name string, mode lb.FlowMode, slot lb.Slot, frame []byte, want lb.RealID) flowCase {
		return flowCase{name: name, mode: mode, slot: slot, frame: frame, refused: true, want: want, events: full}
	}
	runFlows(t, []flowCase{
		refused("SYN, moving", lb.FlowTransitions, moving, syn, oldReal),
		refused("Initial, moving", lb.FlowQUIC, moving, initial, oldReal),
		refused("data, moving", lb.FlowTransitions, moving, data, oldReal),
		refused("SYN, settling", lb.FlowTransitions, settling, syn, newReal),
		refused("data, settling", lb.FlowTransitions, settling, data, newReal),
		refused("SYN, always", lb.FlowAlways, stable, syn, newReal),
		refused("SYN, from a draining real", lb.FlowTransitions, lb.MovingSlot(newReal, drainingReal), syn, newReal),
		refused("data, from a draining real", lb.FlowTransitions, lb.MovingSlot(newReal, drainingReal), data, drainingReal),
		refused("SYN, from a retired real", lb.FlowTransitions, lb.MovingSlot(newReal, retiredReal), syn, newReal),
		{name: "SYN, lingering", slot: lingering, frame: syn, refused: true, want: newReal},
		{name: "RST, moving", slot: moving, frame: rst, refused: true, want: oldReal},
		{name: "ICMP error, moving", slot: moving, frame: tcpError, refused: true, want: oldReal},
	})
}

// TestUDPIdle has a pause of another length.
func TestUDPIdle(t *testing.T) {
	for pause, want := range map[time.Duration]lb.RealID{time.Minute - 1: elsewhere, time.Minute: newReal} {
		tables := oneSlot(t, lb.FlowAlways, stable)
		tables.UDPIdle = time.Minute
		var flows model.Flows
		flows.Set(flowOf(lb.UDP), unseen(elsewhere))
		flows.Pause(pause)
		if res := processWith(t, tables, &flows, datagram); res.Real != want {
			t.Errorf("after %s: real %d, want %d", pause, res.Real, want)
		}
	}
}

// TestFlowsAreNamedByPortsOfThePacket: the port counts as 0 for the hash only, and the name says so.
func TestFlowsAreNamedByPortsOfThePacket(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, moving)
	for name, vip := range tables.VIPs {
		delete(tables.VIPs, name)
		name.Port = 0
		tables.VIPs[name] = vip
	}
	want := flowOf(lb.TCP)
	want.ByPort0 = true
	if res := processWith(t, tables, nil, data); res.Flow.Flow != want || res.Flow.Change != model.ChangeRemember {
		t.Errorf("%s: %s, want %s", res.Flow.Flow, res.Flow.Change, want)
	}
}

// TestFlowsOfAllPortsAreOthers: a flow that is known at a VIP of all ports is not at one of its port,
// and is known again once that is gone.
func TestFlowsOfAllPortsAreOthers(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, moving)
	exact := lb.VIP{Addr: addr(vip4), Port: 443, Protocol: lb.TCP}
	all := exact
	all.Port = 0
	delete(tables.VIPs, exact)
	tables.VIPs[all] = model.VIP{Ring: model.Ring{moving}}
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
	send(tcpError, elsewhere)
	send(data, elsewhere)
	send(data, elsewhere)
	delete(tables.VIPs, exact)
	send(data, newReal)
	send(tcpError, newReal)
	if flows.Len() != 2 {
		t.Errorf("%d flows, want one of each VIP", flows.Len())
	}
}

// TestDroppedPacketsAreRemembered: what becomes of the packet after section 5 does not count.
func TestDroppedPacketsAreRemembered(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, moving)
	r := tables.Reals[newReal]
	r.NextHop.MTU = 0
	tables.Reals[newReal] = r
	if res := processWith(t, tables, nil, syn); res.Reason != lb.ReasonTooBig || res.Flow.Change != model.ChangeRemember {
		t.Errorf("%s, %s", res.Reason, res.Flow.Change)
	}
}

func TestFlowTable(t *testing.T) {
	var flows model.Flows
	a, b := flowOf(lb.TCP), flowOf(lb.UDP)
	flows.Set(a, at(1))
	flows.Set(b, at(2))
	flows.Forget(b)
	flows.Forget(b)
	flows.Pause(time.Minute)
	want := idle(1, time.Minute+time.Second)
	for flow, e := range flows.All() {
		if flow != a || e != want {
			t.Errorf("%s: %+v, want %s: %+v", flow, e, a, want)
		}
	}
	if flows.Len() != 1 {
		t.Errorf("%d flows, want 1", flows.Len())
	}
	var none *model.Flows
	for flow := range none.All() {
		t.Errorf("%s in no table", flow)
	}
	if _, ok := none.Get(a); ok || none.Len() != 0 {
		t.Error("a flow in no table")
	}

}

func TestTraceOfFlow(t *testing.T) {
	tables := oneSlot(t, lb.FlowTransitions, moving)
	var texts []string
	tables.Trace = func(step, text string) {
		if step == "ring" || step == "flow" {
			texts = append(texts, text)
		}
	}
	processWith(t, tables, nil, data)
	want := []string{"slot 0, moving to real 2 from 1", "not known, remembered with real 1"}
	if len(texts) != 2 || !strings.HasSuffix(texts[0], want[0]) || texts[1] != want[1] {
		t.Errorf("texts %q, want %q", texts, want)
	}
}
