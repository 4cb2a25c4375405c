// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/lb/model"
)

// attachedProgram opens the program that the instance has on an interface. It goes by the pins,
// docs/architecture.md: the link says which program runs, and that must be the one in use.
func attachedProgram(f instanceFlags, iface string) (*ebpf.Program, error) {
	// The BPF file system takes no dots.
	name := func(s string) string { return strings.ReplaceAll(s, ".", ":") }
	root := filepath.Join(f.bpffs, "remora", name(f.instance))
	prog, err := ebpf.LoadPinnedProgram(filepath.Join(root, "progs", "native"), nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned program: %v", err)
	}
	if err := runs(filepath.Join(root, "links", name(iface)), iface, prog); err != nil {
		prog.Close()
		return nil, err
	}
	return prog, nil
}

// runs returns an error unless the pinned link has the program on the interface.
func runs(path, iface string, prog *ebpf.Program) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open pinned link: %v", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return fmt.Errorf("look at pinned link: %v", err)
	}
	is, err := prog.Info()
	if err != nil {
		return fmt.Errorf("look at pinned program: %v", err)
	}
	dev, err := attach.Interface(iface)
	if err != nil {
		return err
	}
	if id, ok := is.ID(); !ok || info.Program != id || info.XDP() == nil || info.XDP().Ifindex != uint32(dev.Index) {
		return fmt.Errorf("%s does not run the program in use", iface)
	}
	return nil
}

// selfTest runs a packet of a VIP through the program, by BPF_PROG_TEST_RUN, and returns an error
// unless it comes out as the model says, addressed to one of the VIP's reals. A VIP without reals
// passes, and so does one whose packet is dropped while a real has no next hop: there are other reasons
// not to announce these.
//
// The packet counts, as one of the real that gets it, and leaves no other trace: RST, ICMP errors,
// and UDP where nothing is remembered, make no entry in the flow table.
func selfTest(prog *ebpf.Program, v engine.VIPStatus, ports map[lb.VIP]bool) error {
	reals, all := forwarding(v)
	if len(reals) == 0 {
		return nil
	}
	packet := testPacket(v.VIPEntry, freePort(v.VIP, ports))
	verdict, out, err := prog.Test(packet)
	switch {
	case err != nil:
		return fmt.Errorf("run program: %v", err)
	case lb.Verdict(verdict) == lb.Drop && !all:
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

// forwarding are the reals that packets of a VIP are sent to, and whether those are all that get some.
func forwarding(v engine.VIPStatus) (reals []lb.Real, all bool) {
	all = true
	for _, r := range v.Reals {
		switch {
		case r.Slots == 0 && r.PrevSlots == 0 && !v.Held:
		case r.NextHop.Resolved():
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
		VIPs:  map[lb.VIP]model.VIP{v.VIP: {Ring: model.Ring{lb.StableSlot(r.ID)}, Flows: v.Flows}},
		Reals: map[lb.RealID]lb.Real{r.ID: r},
	}
	res := t.Process(packet, nil)
	if res.Reason != lb.ReasonForwarded {
		return nil
	}
	return res.Frame
}

// freePort is the VIP's port, or for one of all ports, a port of it that no other VIP has.
func freePort(v lb.VIP, taken map[lb.VIP]bool) uint16 {
	if v.Port != 0 {
		return v.Port
	}
	for port := uint16(1); port != 0; port++ {
		v.Port = port
		if !taken[v] {
			return port
		}
	}
	return 0
}
