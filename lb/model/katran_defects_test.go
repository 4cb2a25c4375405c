// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// The tests of this file are named after what goes wrong in Katran's data path, and does not here. More
// of them are TestGUEChecksum, TestGUEChecksumOfICMPError, TestEchoKeepsWrongChecksumWrong, TestEchoOrNot,
// TestTooBigIsTold and TestKatranConnectionIDs.

// TestFlowHashedByDestinationPortIsFoundAgain: it is remembered by its own name, and not by what is hashed.
func TestFlowHashedByDestinationPortIsFoundAgain(t *testing.T) {
	tables := oneSlot(t, lb.FlowAlways, stable)
	for name, vip := range tables.VIPs {
		vip.Options.Hash.DestinationPortOnly = true
		tables.VIPs[name] = vip
	}
	var flows model.Flows
	flows.Apply(processWith(t, tables, &flows, syn).Flow)
	res := processWith(t, tables, &flows, data)
	if res.Flow.Change != model.ChangeUse || flows.Len() != 1 || !slices.Equal(res.Flow.Events, one(lb.FlowHit)) {
		t.Errorf("%s %v, %d flows", res.Flow.Change, res.Flow.Events, flows.Len())
	}
}

// TestFlowsOfDownRealsMoveWithoutCountingAsNew: a flow with an entry moves also when no new flow is taken.
func TestFlowsOfDownRealsMoveWithoutCountingAsNew(t *testing.T) {
	tables := oneSlot(t, lb.FlowAlways, stable)
	flows := model.Flows{Refuse: func(model.Flow) (lb.FlowEvent, bool) { return lb.FlowRefusedRate, true }}
	flows.Set(flowOf(lb.UDP), at(retiredReal))
	res := processWith(t, tables, &flows, datagram)
	if res.Real != newReal || res.Flow.Change != model.ChangeRemember {
		t.Errorf("real %d, %s %v", res.Real, res.Flow.Change, res.Flow.Events)
	}
}

// TestDecapsulatedAreCountedByTheirFamily, and not all as IPv6.
func TestDecapsulatedAreCountedByTheirFamily(t *testing.T) {
	tables := decapsulating(t)
	for _, tunnel := range []lb.Encap{lb.IPIP, lb.GUE} {
		for _, dst := range []string{host4, host6} {
			for family, v6 := range map[int]bool{4: false, 6: true} {
				if res := process(t, tables, frame(by(tunnel, dst, to(v6, tcp))).Bytes()); res.Decapsulated != family {
					t.Errorf("%s to %s: counted as IPv%d, want IPv%d", tunnel, dst, res.Decapsulated, family)
				}
			}
		}
	}
}

// TestServerIDsOfRealsThatAreGoneGoByTheRing, and do not drop.
func TestServerIDsOfRealsThatAreGoneGoByTheRing(t *testing.T) {
	tables := withServer(t, lb.Options{UDPIDs: true}, 7)
	for _, gone := range []lb.RealID{0, withoutRecord, retiredReal, lb.MaxRealID} {
		for _, vip := range tables.VIPs {
			vip.Servers[7] = gone
		}
		if res := process(t, tables, datagramOf(string(frames.UDPID(7)))); res.Reason != lb.ReasonForwarded || res.Real != newReal {
			t.Errorf("real %d: %s, real %d", gone, res.Reason, res.Real)
		}
	}
}

// TestTrafficOfOthersPasses: fragments, and packets with options, of addresses that have no VIP.
func TestTrafficOfOthersPasses(t *testing.T) {
	tables := bothFamilies(t)
	igmp := packet(client4, "224.0.0.22", frames.Raw{Protocol: 2, Data: make([]byte, 16)}).(frames.IPv4)
	igmp.Options = []byte{0x94, 4, 0, 0} // router alert
	ssh := packet(client4, "192.0.2.9", frames.TCP{DstPort: 22}).(frames.IPv4)
	ssh.Options = []byte{1, 1, 1, 1}
	mld := packet(client6, "ff02::16", frames.ICMP{Type: 143}).(frames.IPv6)
	mld.Extensions = []frames.Extension{frames.HopByHop(0)}
	for name, f := range map[string][]byte{
		"IGMP": frame(igmp).Bytes(), "options": frame(ssh).Bytes(), "MLD": frame(mld).Bytes(),
		"fragment":         fragmentOf(packet(client4, "192.0.2.9", udp), 0, true),
		"fragment of IPv6": fragmentOf(packet(client6, "2001:db8::99", udp), 7, false),
	} {
		if res := process(t, tables, f); res.Verdict != lb.Pass {
			t.Errorf("%s: %s", name, res.Reason)
		}
	}
}

// TestErrorsAboutSYNACKLeaveTheFlow: what is quoted begins nothing, and 8 bytes of it are enough.
func TestErrorsAboutSYNACKLeaveTheFlow(t *testing.T) {
	for _, slot := range []lb.Slot{stable, moving, settling, lingering} {
		tables := oneSlot(t, lb.FlowAlways, slot)
		var flows model.Flows
		flows.Set(flowOf(lb.TCP), at(elsewhere))
		synACK := sentBy(false, frames.TCP{SrcPort: 50000, DstPort: 443, Flags: frames.SYN | frames.ACK})
		for _, n := range []int{frames.QuotedLen, 20} {
			res := processWith(t, tables, &flows, about(false, frames.Quote(synACK, n)))
			if res.Real != elsewhere || res.Flow.Change != model.ChangeNone {
				t.Errorf("%d bytes quoted: real %d, %s", n, res.Real, res.Flow.Change)
			}
		}
	}
}

// TestLengthThatIsToldLeavesRoomForTheTunnel: what is as long as the answer says is forwarded.
func TestLengthThatIsToldLeavesRoomForTheTunnel(t *testing.T) {
	for _, encap := range []lb.Encap{lb.IPIP, lb.GUE} {
		for _, real := range []string{"10.0.0.1", "fc00::1"} {
			tables := narrow(t)
			r := tables.Reals[1]
			r.Tunnel = tunnelTo(t, encap, false, real)
			tables.Reals[1] = r
			answer := process(t, tables, frame(to(false, long(false, 1200))).Bytes()).Frame
			fits := int(answer[14+20+6])<<8 | int(answer[14+20+7])
			if res := process(t, tables, frame(to(false, long(false, fits))).Bytes()); res.Reason != lb.ReasonForwarded {
				t.Errorf("%s to %s: told %d bytes, and then %s", encap, real, fits, res.Reason)
			}
		}
	}
}
