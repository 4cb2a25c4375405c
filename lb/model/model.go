// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package model is the packet path as a pure Go function: a frame, the tables and the flow table in;
// verdict, reason, frame and what to remember out. It is docs/packet-path.md read literally, clear
// rather than fast, and the oracle that the compiled program is compared with. There is a file for
// each step.
//
// One reason is never given: no_room depends on how much space the driver left in front of the
// frame, which no frame tells. A frame that the model forwards may end as no_room on a device.
package model

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Ring is the slots of one VIP's ring.
type Ring []lb.Slot

// VIP is a VIP's ring, when its flows are remembered, and its options. A ring without slots counts as
// one whose slots are all empty.
type VIP struct {
	Ring    Ring
	Flows   lb.FlowMode
	Options lb.Options
	// Servers are the reals that server ids lead to. Number 0 is never asked for.
	Servers map[uint32]lb.RealID
	// Routes are the reals that the backends of source routes are at this VIP.
	Routes map[netip.Addr]lb.RealID
}

// Tables is what the packet program reads, but for the flow table. Process changes nothing in it, so
// several goroutines may call Process at once, as long as nobody changes the tables or flows
// meanwhile and Trace allows it.
type Tables struct {
	VIPs map[lb.VIP]VIP
	// Reals holds the records by id. Tunnels have a destination and a source of one family, as
	// lb.TunnelSources.Tunnel makes them.
	Reals map[lb.RealID]lb.Real
	// UDPIdle is the pause after which a UDP flow is not known any more, with flow mode always. 0
	// stands for 30 seconds.
	UDPIdle time.Duration
	// SourceRoutes are the backends that prefixes of clients name, on VIPs with that option. Prefixes
	// are masked.
	SourceRoutes map[netip.Prefix]netip.Addr
	// QUICLB is the form of connection ids on VIPs with lb.ConnectionIDsQUICLB. The zero value: none is
	// read.
	QUICLB lb.QUICLB
	// Decap says which tunnelled packets are decapsulated.
	Decap lb.Decap
	// AnswersSpent tells that the budget of answers is used up: no echo request is answered, and no
	// sender of a packet that is too big is told.
	AnswersSpent bool
	// Trace, if not nil, is told what each step found, in order. The last step is "end".
	Trace func(step, text string)
}

// Result is what became of one frame.
type Result struct {
	// Verdict is always Reason's.
	Verdict lb.Verdict
	Reason  lb.Reason
	// Real is what the slot, the flow, a server id or a source route names; 0 if that is none or the
	// packet ended before the ring. Only packets that are forwarded or local are counted for it.
	Real lb.RealID
	// Bytes is the length counted for the real: that of the inner IP packet. 0 unless forwarded or
	// local.
	Bytes int
	// Decapsulated is the family, 4 or 6, of the packet that lost its outer headers; 0 if none did. What
	// else the result says is of the inner packet then.
	Decapsulated int
	// Frame is a copy of the frame, as it was or as it is sent.
	Frame []byte
	// Flow says what the packet meets and changes in the flow table, also if it is dropped
	// afterwards.
	Flow FlowStep
}

// undecided is what a step returns when the packet goes on to the next step.
const undecided = lb.ReasonLen

// Process runs a frame, from the first byte of its Ethernet header, through the packet path. It
// never fails: any frame of any length has a result. It changes no flow: that is for flows.Apply,
// with the result's Flow. Nil flows stand for an empty table.
func (t *Tables) Process(frame []byte, flows *Flows) Result {
	p := &packet{frame: bytes.Clone(frame), flows: flows}
	reason := t.steps(p)
	decapsulated := 0
	if action := t.decapAction(p, reason); action != lb.DecapNone {
		p, decapsulated, reason = t.decapsulate(p, action)
	}
	t.note("end", "%s: %s", reason, reason.Verdict())
	res := Result{
		Verdict: reason.Verdict(), Reason: reason, Real: p.realID, Decapsulated: decapsulated, Frame: p.frame, Flow: p.flowStep,
	}
	if reason == lb.ReasonForwarded || reason == lb.ReasonLocal {
		res.Bytes = len(p.ip)
	}
	return res
}

// steps is the packet path but for decapsulation: each step ends it with a reason or leaves it
// undecided.
func (t *Tables) steps(p *packet) lb.Reason {
	for _, step := range []func(*packet) lb.Reason{
		t.parse,
		t.handleICMP,
		t.findVIP,
		t.chooseInputs,
		t.findServer,
		t.findSlot,
		t.routeSource,
		t.chooseReal,
		t.checkReal,
	} {
		if reason := step(p); reason != undecided {
			return reason
		}
	}
	return t.encapsulate(p)
}

func (t *Tables) note(step, format string, args ...any) {
	if t.Trace != nil {
		t.Trace(step, fmt.Sprintf(format, args...))
	}
}
