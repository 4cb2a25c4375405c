// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package attach puts an XDP program on an interface, in the best mode that the driver takes, and
// says in plain words why a better one was not taken or none was. It also tells which privileges
// the process lacks.
package attach

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrOccupied is returned if another XDP program holds the interface.
var ErrOccupied = errors.New("interface is occupied")

// Attachment is a program on an interface. The caller owns Link.
type Attachment struct {
	Link link.Link
	// Mode is Native or Generic: what was achieved.
	Mode Mode
	// Reason says, for people, why this mode and not a better one.
	Reason string
}

// Interface finds a network interface of the calling thread's namespace. The error lists those
// that there are.
func Interface(name string) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %v", err)
	}
	names := make([]string, len(all))
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
		names[i] = all[i].Name
	}
	slices.Sort(names)
	return nil, fmt.Errorf("no network interface %q in this network namespace; there are: %s", name, strings.Join(names, ", "))
}

// XDP attaches prog to the interface. Nothing is attached if it fails. Errors of ErrOccupied name
// the program that is there.
func XDP(prog *ebpf.Program, ifname string, mode Mode) (*Attachment, error) {
	iface, err := Interface(ifname)
	if err != nil {
		return nil, err
	}
	switch mode {
	case Native:
		return attachAs(prog, iface, Native, "as configured")
	case Generic:
		return attachAs(prog, iface, Generic, "as configured")
	}
	a, nativeErr := attachAs(prog, iface, Native, "the driver runs the program")
	if nativeErr == nil || isFinal(nativeErr) {
		return a, nativeErr
	}
	a, err = attachAs(prog, iface, Generic, "not native: "+nativeErr.Error())
	if err != nil {
		return nil, errors.Join(nativeErr, err)
	}
	return a, nil
}

func attachAs(prog *ebpf.Program, iface *net.Interface, mode Mode, reason string) (*Attachment, error) {
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index, Flags: flags})
	if err != nil {
		return nil, &refusal{iface: iface, mode: mode, cause: err}
	}
	return &Attachment{Link: l, Mode: mode, Reason: reason}, nil
}

// pageMTU is about the greatest MTU with which a frame, its headroom and the kernel's bookkeeping
// fit one page of 4096 bytes: 4096 - 256 - 320 - 22. Drivers differ by some tens of bytes.
const pageMTU = 3498

// refusal is the kernel's refusal to attach in one mode. The kernel gives a number only; what it
// means here, and what to do, is worked out from the interface.
type refusal struct {
	iface *net.Interface
	mode  Mode
	cause error
}

func (r *refusal) Error() string {
	cause := r.cause
	// The library puts its own steps in front of what the kernel said.
	if errno := unix.Errno(0); errors.As(r.cause, &errno) {
		cause = errno
	}
	s := fmt.Sprintf("attach to interface %q in %s mode: %v", r.iface.Name, r.mode, cause)
	if hint := r.hint(); hint != "" {
		s += ": " + hint
	}
	return s
}

func (r *refusal) occupied() bool {
	return errors.Is(r.cause, unix.EBUSY) || errors.Is(r.cause, unix.EEXIST)
}

// Is makes the refusal one of ErrOccupied where it is.
func (r *refusal) Is(target error) bool { return target == ErrOccupied && r.occupied() }

// isFinal tells that another mode would be refused as well.
func isFinal(err error) bool {
	var r *refusal
	if !errors.As(err, &r) {
		return true
	}
	for _, errno := range []unix.Errno{unix.EBUSY, unix.EEXIST, unix.ENODEV, unix.EPERM, unix.EACCES} {
		if errors.Is(r.cause, errno) {
			return true
		}
	}
	return false
}

func (r *refusal) hint() string {
	switch {
	case r.occupied():
		return fmt.Sprintf("the interface already has %s; take it off first (a link: bpftool link detach; otherwise: ip link set dev %s xdp off), "+
			"or use another interface", attachedProgram(r.iface.Index), r.iface.Name)
	case errors.Is(r.cause, unix.ENODEV):
		return "the interface has gone"
	case errors.Is(r.cause, unix.EPERM), errors.Is(r.cause, unix.EACCES):
		return "the kernel demands CAP_NET_ADMIN in the network namespace of the interface"
	case r.mode == Native:
		return r.nativeHint()
	}
	return ""
}

// nativeHint explains what drivers mean by their refusals. The kernel demands that a frame fits one
// memory page in native mode; only some drivers have a number of its own for that refusal.
func (r *refusal) nativeHint() string {
	var likely []string
	switch {
	case errors.Is(r.cause, unix.ERANGE):
	case errors.Is(r.cause, unix.EOPNOTSUPP):
		likely = append(likely, "the driver has no native XDP, or not with its present settings")
	default:
		likely = append(likely, "the driver refused, often for LRO (ethtool -K DEVICE lro off) or too few queues (ethtool -L); dmesg may tell")
	}
	if r.iface.MTU > pageMTU || len(likely) == 0 {
		likely = append(likely, fmt.Sprintf("the MTU is %d, and native mode takes at most about %d (on veth that of the other end counts): lower it", r.iface.MTU, pageMTU))
	}
	return strings.Join(likely, ", or ") + ", or use generic mode"
}

// attachedProgram says which XDP program an interface has, for people.
func attachedProgram(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
		return "another XDP program"
	}
	id := l.Attrs().Xdp.ProgId
	prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil { // needs CAP_SYS_ADMIN
		return fmt.Sprintf("XDP program id %d (its name: bpftool prog show id %d)", id, id)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return fmt.Sprintf("XDP program id %d", id)
	}
	return fmt.Sprintf("XDP program %q (id %d)", info.Name, id)
}

// CurrentMode is the mode in which the interface runs its program.
func CurrentMode(ifname string) (Mode, error) {
	l, err := netlink.LinkByName(ifname)
	if err != nil {
		return 0, fmt.Errorf("look at interface %s: %v", ifname, err)
	}
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		return Generic, nil
	}
	return Native, nil
}
