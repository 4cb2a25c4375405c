// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/remora-lb/remora/lb/attach"
)

// ErrNotAttached is returned if an interface does not run the program that an instance has in use.
var ErrNotAttached = errors.New("not attached")

// OpenAttached opens the program that an instance has in use and that the interface runs, whether or
// not its daemon runs. It goes by the pins alone: the link says which program the interface runs, and
// that must be the one in use. Errors of ErrNotAttached say that it is not so; others, that this could
// not be found out. The program is the caller's to close.
func OpenAttached(bpffs, instance, iface string) (*ebpf.Program, error) {
	p := pinsOf(bpffs, instance)
	prog, err := ebpf.LoadPinnedProgram(filepath.Join(p.root, "progs", "native"), nil)
	if err != nil {
		return nil, notOpened("program", err)
	}
	if err := p.runs(iface, prog); err != nil {
		prog.Close()
		return nil, err
	}
	return prog, nil
}

// runs returns an error unless the pinned link has the program on the interface.
func (p pins) runs(iface string, prog *ebpf.Program) error {
	l, err := link.LoadPinnedLink(p.link(iface), nil)
	if err != nil {
		return notOpened("link", err)
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
	xdp := info.XDP()
	if id, ok := is.ID(); !ok || xdp == nil || info.Program != id {
		return fmt.Errorf("%s does not run the program in use: %w", iface, ErrNotAttached)
	}
	// The kernel takes the program off with the device, and leaves the link without one.
	if xdp.Ifindex == 0 {
		return fmt.Errorf("%s is gone: %w", iface, ErrNotAttached)
	}
	dev, err := attach.Interface(iface)
	if err != nil {
		return err
	}
	if xdp.Ifindex != uint32(dev.Index) {
		return fmt.Errorf("another interface than the present %s runs the program: %w", iface, ErrNotAttached)
	}
	return nil
}

// notOpened is what it means that a pin cannot be opened.
func notOpened(what string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open pinned %s: %w: %v", what, ErrNotAttached, err)
	}
	return fmt.Errorf("open pinned %s: %v", what, err)
}
