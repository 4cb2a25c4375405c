// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// fragmentOf is the packet as a fragment with this offset, in units of 8 bytes.
func fragmentOf(p frames.Packet, offset uint16, more bool) []byte {
	switch p := p.(type) {
	case frames.IPv4:
		p.Fragment = offset
		if more {
			p.Fragment |= frames.MoreFragments
		}
		return frame(p).Bytes()
	case frames.IPv6:
		field := offset << 3
		if more {
			field |= frames.MoreFragments6
		}
		p.Extensions = append(p.Extensions, frames.FragmentHeader(field, 7))
		return frame(p).Bytes()
	}
	return nil
}

// TestFragments has all parts of a packet, to VIPs that do each thing with fragments.
func TestFragments(t *testing.T) {
	for fragments, want := range map[lb.Fragments]lb.Reason{
		lb.FragmentsDrop: lb.ReasonFragment, lb.FragmentsPass: lb.ReasonFragmentPassed, lb.FragmentsByClient: lb.ReasonForwarded,
	} {
		tables := bothFamilies(t)
		for name, vip := range tables.VIPs {
			vip.Options.Fragments = fragments
			tables.VIPs[name] = vip
		}
		for _, v6 := range []bool{false, true} {
			for _, payload := range []frames.Payload{tcp, udp, frames.Raw{Protocol: 6}, frames.Raw{Protocol: 17, Data: []byte{1}}} {
				for _, part := range [][]byte{
					fragmentOf(to(v6, payload), 0, true), fragmentOf(to(v6, payload), 1, true), fragmentOf(to(v6, payload), 1<<13-1, false),
				} {
					if res := process(t, tables, part); res.Reason != want {
						t.Errorf("%s, %x: %s, want %s", fragments, part, res.Reason, want)
					}
				}
			}
			icmp := uint8(1)
			if v6 {
				icmp = 58
			}
			other := fragmentOf(to(v6, frames.Raw{Protocol: icmp, Data: make([]byte, 16)}), 0, true)
			if res := process(t, tables, other); res.Reason != lb.ReasonFragment {
				t.Errorf("%s, ICMP, IPv6 %t: %s", fragments, v6, res.Reason)
			}
		}
	}
}

// TestFragmentsOfPrefixes: a prefix decides about no fragment, but its addresses have a VIP.
func TestFragmentsOfPrefixes(t *testing.T) {
	tables := withOptions(t, "203.0.113.0/24:0/tcp", lb.Options{Fragments: lb.FragmentsPass}, 1)
	if res := process(t, tables, fragmentOf(to(false, tcp), 0, true)); res.Reason != lb.ReasonFragment {
		t.Errorf("%s, want %s", res.Reason, lb.ReasonFragment)
	}
	elsewhere := packet(client4, "203.0.114.1", tcp)
	if res := process(t, tables, fragmentOf(elsewhere, 0, true)); res.Reason != lb.ReasonNotVIP {
		t.Errorf("%s, want %s", res.Reason, lb.ReasonNotVIP)
	}
}

// TestVIPsThatDisagreeAboutFragments drop them, also if two say that they go by client.
func TestVIPsThatDisagreeAboutFragments(t *testing.T) {
	for _, other := range []lb.Fragments{lb.FragmentsDrop, lb.FragmentsPass, lb.FragmentsByClient} {
		for _, own := range []lb.Fragments{lb.FragmentsDrop, lb.FragmentsPass, lb.FragmentsByClient} {
			tables := withOptions(t, vip4+":443/tcp", lb.Options{Fragments: own}, 1)
			tables.VIPs[lb.VIP{Addr: addr(vip4), Port: 80, Protocol: lb.TCP}] = model.VIP{Options: lb.Options{Fragments: other}}
			want := lb.ReasonFragment
			if own == lb.FragmentsPass && other == own {
				want = lb.ReasonFragmentPassed
			}
			if res := process(t, tables, fragmentOf(to(false, tcp), 0, true)); res.Reason != want {
				t.Errorf("%s and %s: %s, want %s", own, other, res.Reason, want)
			}
		}
	}
}

// TestByClientIsOneFlow: fragments, whole packets of any port and ICMP errors of a client are of one flow,
// which none of them begins.
func TestByClientIsOneFlow(t *testing.T) {
	for _, vip := range []string{vip4 + ":443/tcp", vip4 + ":0/tcp"} {
		name, _ := lb.ParseVIP(vip)
		tables := oneSlot(t, lb.FlowTransitions, moving)
		clear(tables.VIPs)
		tables.VIPs[name] = model.VIP{Ring: model.Ring{moving}, Options: lb.Options{Fragments: lb.FragmentsByClient}}
		var flows model.Flows
		all := [][]byte{syn, data, rst, tcpError, fragmentOf(to(false, tcp), 0, true), fragmentOf(to(false, tcp), 5, false)}
		if name.Port == 0 {
			for _, port := range []uint16{0, 80} {
				all = append(all, frame(packet(client4, vip4, frames.TCP{SrcPort: port, DstPort: port, Flags: frames.SYN})).Bytes())
			}
		}
		for i, f := range all {
			res := processWith(t, tables, &flows, f)
			flows.Apply(res.Flow)
			if res.Real != oldReal || res.Flow.Flow.SrcPort != 0 || res.Flow.Flow.DstPort != 0 {
				t.Errorf("%s, packet %d: real %d, flow %+v", vip, i, res.Real, res.Flow.Flow)
			}
		}
		if flows.Len() != 1 {
			t.Errorf("%s: %d flows, want one", vip, flows.Len())
		}
	}
}

// TestByClientSlot: the slot is that of both ports 0, and so is the entropy.
func TestByClientSlot(t *testing.T) {
	// The slot of the client with both ports 0, found by a VIP of all ports and a client's port 0.
	plain := func(slot int) bool {
		tables := withOptions(t, vip4+":0/tcp", lb.Options{}, slot)
		return process(t, tables, frame(packet(client4, vip4, frames.TCP{DstPort: 80})).Bytes()).Reason == lb.ReasonForwarded
	}
	slot := int(process(t, numberedSlots(t), frame(packet(client4, vip4, frames.TCP{DstPort: 80})).Bytes()).Real) - 1
	if !plain(slot) {
		t.Fatalf("slot %d is not the client's", slot)
	}
	tables := withOptions(t, vip4+":443/tcp", lb.Options{Fragments: lb.FragmentsByClient}, slot)
	for _, f := range [][]byte{data, tcpError, fragmentOf(to(false, tcp), 5, false)} {
		res := process(t, tables, f)
		if res.Reason != lb.ReasonForwarded {
			t.Fatalf("%s", res.Reason)
		}
		if got := [2]byte(res.Frame[14+14:]); got != [2]byte{100, 7} {
			t.Errorf("outer source 172.16.%d.%d, want the client's own bytes", got[0], got[1])
		}
	}
}

// numberedSlots is a VIP of all ports whose slots name ids one greater than their index; no real has a
// record.
func numberedSlots(t testing.TB) *model.Tables {
	t.Helper()
	ring := make(model.Ring, lb.DefaultRingSize)
	for i := range ring {
		ring[i] = lb.StableSlot(lb.RealID(i + 1))
	}
	return &model.Tables{VIPs: map[lb.VIP]model.VIP{{Addr: addr(vip4), Protocol: lb.TCP}: {Ring: ring}}}
}

// TestGUEChecksumOfFragment: a part of a segment has no checksum that could stand for the payload.
func TestGUEChecksumOfFragment(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		tables := bothFamilies(t)
		for name, vip := range tables.VIPs {
			vip.Options.Fragments = lb.FragmentsByClient
			tables.VIPs[name] = vip
		}
		r := tables.Reals[1]
		r.Tunnel = tunnelTo(t, lb.GUE, true, "10.0.0.1")
		tables.Reals[1] = r
		for _, f := range [][]byte{fragmentOf(to(v6, udp), 0, true), fragmentOf(to(v6, tcp), 3, false)} {
			res := process(t, tables, f)
			if checksum := res.Frame[14+20+6 : 14+20+8]; res.Reason != lb.ReasonForwarded || checksum[0]|checksum[1] != 0 {
				t.Errorf("%s, checksum %x", res.Reason, checksum)
			}
		}
	}
}
