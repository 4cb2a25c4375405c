// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// passXDP attaches a program to an interface that lets every packet pass. A virtual cable takes
// the frames that a program at its other end sends (XDP_TX) only if it has a program itself.
func (n *Node) passXDP(name string) error {
	iface, err := n.link(name)
	if err != nil {
		return err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:    "rig_pass",
		Type:    ebpf.XDP,
		License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 2), // XDP_PASS (linux/bpf.h)
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load XDP program: %v (does the kernel have BPF?)", err)
	}
	defer prog.Close()
	var attached link.Link
	err = n.Do(func() (err error) {
		attached, err = link.AttachXDP(link.XDPOptions{
			Program:   prog,
			Interface: iface.Attrs().Index,
			Flags:     link.XDPDriverMode,
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("attach XDP program to %s in %s: %v (does the kernel have veth with native XDP?)", name, n.Namespace, err)
	}
	n.lab.OnClose(attached.Close)
	return nil
}

// hasXDP returns nil if an XDP program is attached to an interface.
func (n *Node) hasXDP(name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if xdp := l.Attrs().Xdp; xdp == nil || !xdp.Attached {
		return fmt.Errorf("%s in %s has no XDP program", name, n.Namespace)
	}
	return nil
}
