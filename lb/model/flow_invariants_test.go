// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
)

// flowState is anything that a packet may meet.
type flowState struct {
	tables *model.Tables
	vip    model.VIP
	flows  *model.Flows
}

func drawState(r *rapid.T, t testing.TB) flowState {
	id := rapid.Custom(func(r *rapid.T) lb.RealID { return lb.RealID(rapid.IntRange(0, int(withoutRecord)).Draw(r, "id")) })
	cur, prev := id.Draw(r, "cur"), id.Draw(r, "prev")
	slot := rapid.SampledFrom([]lb.Slot{
		lb.StableSlot(cur), lb.MovingSlot(cur, prev), lb.SettlingSlot(cur), lb.LingeringSlot(cur),
	}).Draw(r, "slot")
	mode := rapid.SampledFrom([]lb.FlowMode{lb.FlowTransitions, lb.FlowAlways, lb.FlowNever, lb.FlowQUIC}).Draw(r, "mode")
	s := flowState{tables: oneSlot(t, mode, slot), flows: &model.Flows{}}
	s.vip = model.VIP{Ring: model.Ring{slot}, Flows: mode}
	for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
		if at := id.Draw(r, "remembered at"); at != 0 {
			s.flows.Set(flowOf(protocol), model.Entry{
				Real: at, Generation: uint8(10*at) + rapid.Uint8Range(0, 1).Draw(r, "generation"),
				Seen: rapid.Bool().Draw(r, "seen"),
				Idle: rapid.SampledFrom([]time.Duration{0, 10 * time.Second, time.Minute}).Draw(r, "idle"),
			})
		}
	}
	return s
}

// allPackets are those of the tests of flows.
var allPackets = map[string][]byte{
	"SYN": syn, "data": data, "FIN": fin, "RST": rst, "SYN and RST": synRST, "TCP error": tcpError, "UDP error": udpError,
	"datagram": datagram, "empty datagram": noData, "Initial": initial, "0-RTT": zeroRTT, "Handshake": handshake, "short header": short,
}

// TestFlowInvariants holds what a reader of the specification relies on against any state.
func TestFlowInvariants(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := drawState(r, t)
		for name, frame := range allPackets {
			if err := s.check(t, frame); err != nil {
				r.Fatalf("%s: %v", name, err)
			}
		}
	})
}

func (s flowState) check(t testing.TB, frame []byte) error {
	res := processWith(t, s.tables, s.flows, frame)
	slot, change := s.vip.Ring[0], res.Flow.Change
	entry, has := s.flows.Get(flowOf(protocolOf(frame)))
	r, recorded := s.tables.Reals[entry.Real]
	isError, isRST, begins := frame[14+9] == 1, &frame[0] == &rst[0], &frame[0] == &syn[0] || &frame[0] == &synRST[0]
	idle := s.vip.Flows == lb.FlowAlways && entry.Idle >= 30*time.Second && protocolOf(frame) == lb.UDP
	known := has && recorded && r.Use.Receives() && r.Generation == entry.Generation && !idle
	switch {
	case slot.Stable() && s.vip.Flows != lb.FlowAlways:
		if res.Flow.Flow != (model.Flow{}) || res.Real != slot.Cur() {
			return fmt.Errorf("a packet of a stable slot meets the flow table, or goes to real %d", res.Real)
		}
		return nil
	case isError && change != model.ChangeNone, isRST && change != model.ChangeNone && change != model.ChangeUse:
		return fmt.Errorf("an ICMP error or RST changes the flow table: %s", change)
	case known && !begins && (res.Real != entry.Real || !isError && change != model.ChangeUse):
		return fmt.Errorf("a packet of a flow known at real %d goes to real %d: %s", entry.Real, res.Real, change)
	case !known && change == model.ChangeUse:
		return fmt.Errorf("the entry of a flow that is not known is used")
	case s.tables.Reals[res.Real].Use == lb.RealRetired && res.Real != slot.Cur():
		return fmt.Errorf("a packet goes to real %d, which is retired and not the slot's", res.Real)
	case change == model.ChangeRemember && (res.Flow.Entry.Real != res.Real || res.Real == 0):
		return fmt.Errorf("remembered with real %d, sent to real %d", res.Flow.Entry.Real, res.Real)
	case change == model.ChangeRemember && res.Flow.Entry.Seen:
		return fmt.Errorf("a packet is remembered as one that was seen again")
	case slot.State() == lb.SlotLingering && change == model.ChangeRemember:
		return fmt.Errorf("a packet of a lingering slot is remembered")
	}
	return nil
}

// TestFlowsStayAtTheirReal: what begins is followed by its next packets, whether it is remembered or
// not, unless the slot or the real changes. A slot that moves from a draining real has no place for
// what it cannot remember.
func TestFlowsStayAtTheirReal(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := drawState(r, t)
		slot := s.vip.Ring[0]
		if rapid.Bool().Draw(r, "refused") {
			s.flows = &model.Flows{Refuse: func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedFull, true }}
			if s.tables.Reals[slot.Prev()].Use == lb.RealDraining {
				r.Skip("moving from a draining real")
			}
		}
		if cur, ok := s.tables.Reals[slot.Cur()]; !ok || !cur.Use.Receives() {
			r.Skip("nothing may begin there")
		}
		first, rest := syn, [][]byte{data, tcpError, fin, rst, data}
		if s.vip.Flows == lb.FlowQUIC && rapid.Bool().Draw(r, "QUIC") {
			s.flows.Forget(flowOf(lb.UDP))
			first, rest = initial, [][]byte{zeroRTT, udpError, handshake, short}
		}
		began := processWith(t, s.tables, s.flows, first)
		s.flows.Apply(began.Flow)
		for i, frame := range rest {
			res := processWith(t, s.tables, s.flows, frame)
			s.flows.Apply(res.Flow)
			if res.Real != began.Real {
				r.Fatalf("began at real %d, and packet %d behind goes to real %d", began.Real, i, res.Real)
			}
		}
	})
}
