// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/model"
)

// errNotTested is wrapped by errors of self-tests that could not be made: they say something about the
// balancer's own process, and nothing about the VIP.
var errNotTested = errors.New("the self-test could not be made")

// selfTest runs a packet of a VIP through the program, by BPF_PROG_TEST_RUN, and returns an error
// unless it comes out as the model says, addressed to one of the VIP's reals, or stays here if one of them
// is this machine. A VIP without reals passes, and so does one whose packet is dropped while a real has no
// next hop: there are other reasons not to announce these; and one of which others take all packets.
// Errors of errNotTested say that the program could not be run.
//
// The packet counts, as one of the real that gets it, and leaves no other trace: RST, ICMP errors,
// and UDP where nothing is remembered, make no entry in the flow table.
func selfTest(prog *ebpf.Program, v engine.VIPStatus, all map[lb.VIP]bool) error {
	reals, resolved := forwarding(v)
	to, free := testDestination(v.VIP, all)
	if len(reals) == 0 || !free {
		return nil
	}
	packet := testPacket(v.VIPEntry, to)
	verdict, out, err := prog.Test(packet)
	switch {
	case err != nil:
		return fmt.Errorf("%w: run program: %v", errNotTested, err)
	case lb.Verdict(verdict) == lb.Drop && !resolved:
		return nil
	case lb.Verdict(verdict) == lb.Pass && slices.ContainsFunc(reals, isLocal):
		return nil
	case lb.Verdict(verdict) != lb.TX:
		return fmt.Errorf("the packet was not sent: the program said %v", lb.Verdict(verdict))
	}
	for _, r := range reals {
		if bytes.Equal(out, expected(v.VIPEntry, r, packet)) {
			return nil
		}
	}
	return fmt.Errorf("the packet came out in %d bytes that no real of %s should get", len(out), v.VIP)
}

func isLocal(r lb.Real) bool { return r.Tunnel.Encap == lb.Local }

// forwarding are the reals that packets of a VIP go to, and whether those are all that get some.
func forwarding(v engine.VIPStatus) (reals []lb.Real, all bool) {
	all = true
	for _, r := range v.Reals {
		switch {
		case r.Slots == 0 && r.PrevSlots == 0 && !v.Held && !r.Backend.Routed:
		case isLocal(r.Real), r.NextHop.Resolved():
			reals = append(reals, r.Real)
		default:
			all = false
		}
	}
	return reals, all
}

// expected is what the model makes of the packet if the real has all slots.
func expected(v lb.VIPEntry, r lb.Real, packet []byte) []byte {
	t := model.Tables{
		VIPs:  map[lb.VIP]model.VIP{v.VIP: {Ring: model.Ring{lb.StableSlot(r.ID)}, Flows: v.Flows, Options: v.Options}},
		Reals: map[lb.RealID]lb.Real{r.ID: r},
	}
	res := t.Process(packet, nil)
	if res.Reason != lb.ReasonForwarded {
		return nil
	}
	return res.Frame
}

// testTargets is how many addresses and ports of a VIP are tried.
const testTargets = 1 << 16

// testDestination is an address and port of which the VIP gets the packets, and no other; false if none is
// found.
func testDestination(v lb.VIP, all map[lb.VIP]bool) (netip.AddrPort, bool) {
	to := netip.AddrPortFrom(v.FirstHost(), v.Port)
	if v.Port == 0 {
		to = netip.AddrPortFrom(to.Addr(), 1)
	}
	for range testTargets {
		if !v.Prefix().Contains(to.Addr()) {
			break
		}
		if owner(to, v.Protocol, all) == v {
			return to, true
		}
		if v.Port == 0 && to.Port() != 65535 {
			to = netip.AddrPortFrom(to.Addr(), to.Port()+1)
		} else {
			to = netip.AddrPortFrom(to.Addr().Next(), to.Port())
		}
	}
	return netip.AddrPort{}, false
}

// owner is the VIP that gets the packets to an address and port: docs/packet-path.md, section 3.
func owner(to netip.AddrPort, p lb.Protocol, all map[lb.VIP]bool) lb.VIP {
	for _, port := range []uint16{to.Port(), 0} {
		for hostBits := range to.Addr().BitLen() {
			prefix := netip.PrefixFrom(to.Addr(), to.Addr().BitLen()-hostBits).Masked()
			v := lb.VIP{Addr: prefix.Addr(), Port: port, Protocol: p, HostBits: uint8(hostBits)}
			if all[v] {
				return v
			}
		}
	}
	return lb.VIP{}
}
