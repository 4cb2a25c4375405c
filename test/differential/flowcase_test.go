// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// flowCase is what matters of a frame that meets the flow table.
type flowCase struct {
	mode   lb.FlowMode // lb.FlowTransitions also for lb.FlowNever, which here is the same
	state  lb.SlotState
	packet flowPacket
	change model.Change
}

func (c flowCase) String() string {
	return fmt.Sprintf("%s in a slot that is %s, flow mode %s: %s", c.packet, c.state, c.mode, c.change)
}

// flowPacket is what a packet is for its flow.
type flowPacket int

const (
	packetSYN flowPacket = iota
	packetRST
	packetTCP // any other
	packetInitial
	packetUDP // any other
	packetError
	flowPacketLen
)

func (p flowPacket) String() string {
	return [flowPacketLen]string{"SYN", "RST", "TCP", "Initial or 0-RTT", "UDP", "ICMP error"}[p]
}

// allFlowCases is all that there are.
func allFlowCases() []flowCase {
	var all []flowCase
	for _, mode := range []lb.FlowMode{lb.FlowTransitions, lb.FlowAlways, lb.FlowQUIC} {
		for state := lb.SlotStable; state < lb.SlotStateLen; state++ {
			for packet := range flowPacketLen {
				if state == lb.SlotStable && mode != lb.FlowAlways || packet == packetInitial && mode != lb.FlowQUIC {
					continue
				}
				for _, change := range changesOf(state, packet) {
					all = append(all, flowCase{mode, state, packet, change})
				}
			}
		}
	}
	return all
}

// changesOf is what a packet may change of its flow's entry.
func changesOf(state lb.SlotState, packet flowPacket) []model.Change {
	changes := []model.Change{model.ChangeUse}
	switch {
	case packet == packetError:
		return []model.Change{model.ChangeNone}
	case packet == packetSYN:
		changes = nil
	case packet == packetRST:
		return append(changes, model.ChangeNone)
	}
	if state == lb.SlotLingering {
		return append(changes, model.ChangeNone, model.ChangeForget)
	}
	return append(changes, model.ChangeRemember)
}

// flowCaseOf reads a frame that met the flow table by its own arithmetic and not by the model's.
func flowCaseOf(tables *model.Tables, frame []byte, s model.FlowStep) flowCase {
	prefix := netip.PrefixFrom(s.Flow.Dst, s.Flow.Dst.BitLen()-int(s.Flow.HostBits)).Masked()
	name := lb.VIP{Addr: prefix.Addr(), Port: s.Flow.DstPort, Protocol: s.Flow.Protocol, HostBits: s.Flow.HostBits}
	if s.Flow.ByPort0 {
		name.Port = 0
	}
	vip := tables.VIPs[name]
	if vip.Flows == lb.FlowNever {
		vip.Flows = lb.FlowTransitions
	}
	return flowCase{vip.Flows, s.Slot.State(), flowPacketOf(frame, vip.Flows), s.Change}
}

func flowPacketOf(frame []byte, mode lb.FlowMode) flowPacket {
	packet := frame[frames.HeaderLen+4*tags(frame):]
	protocol, at, end := packet[9], int(packet[0]&0x0f)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if packet[0]>>4 == 6 {
		protocol, at = behindIPv6(packet)
		end = 40 + int(binary.BigEndian.Uint16(packet[4:]))
	}
	payload := packet[at:end]
	switch {
	case protocol == 6 && payload[13]&frames.SYN != 0:
		return packetSYN
	case protocol == 6 && payload[13]&frames.RST != 0:
		return packetRST
	case protocol == 6:
		return packetTCP
	case protocol == 17 && mode == lb.FlowQUIC && len(payload) > 8 && payload[8]>>7 == 1 && payload[8]>>5&1 == 0:
		return packetInitial
	case protocol == 17:
		return packetUDP
	}
	return packetError
}

func TestPacketsOfFlowsAreRecognised(t *testing.T) {
	src, dst := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	cases := []struct {
		payload frames.Payload
		mode    lb.FlowMode
		want    flowPacket
	}{
		{frames.TCP{Flags: frames.SYN | frames.RST}, lb.FlowTransitions, packetSYN},
		{frames.TCP{Flags: frames.RST | frames.ACK}, lb.FlowTransitions, packetRST},
		{frames.TCP{Flags: frames.ACK}, lb.FlowTransitions, packetTCP},
		{frames.UDP{Data: []byte{0xd1}}, lb.FlowQUIC, packetInitial},
		{frames.UDP{Data: []byte{0xd1}}, lb.FlowAlways, packetUDP},
		{frames.UDP{Data: []byte{0xe1}}, lb.FlowQUIC, packetUDP},
		{frames.UDP{}, lb.FlowQUIC, packetUDP},
		{frames.ICMP{Type: frames.TooBig6}, lb.FlowQUIC, packetError},
	}
	for _, c := range cases {
		for _, extensions := range [][]frames.Extension{nil, {frames.HopByHop(1)}} {
			f := frames.Frame{Packet: frames.IPv6{Src: src, Dst: dst, Extensions: extensions, Payload: c.payload}, Trailer: []byte("trailer")}
			if got := flowPacketOf(f.Bytes(), c.mode); got != c.want {
				t.Errorf("%+v: %s, want %s", c.payload, got, c.want)
			}
		}
	}
}
