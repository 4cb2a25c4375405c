// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/doctor"
)

// programs is the kernel's BPF objects.
type programs struct{}

// Usable implements doctor.BPF. The probe of the library loads a program and throws it away.
func (programs) Usable() error {
	err := features.HaveProgramType(ebpf.XDP)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("use BPF: %w", fs.ErrPermission)
	case errors.Is(err, unix.ENOSYS):
		return errors.New("use BPF: the kernel was built without CONFIG_BPF_SYSCALL, or a sandbox hides it")
	}
	return fmt.Errorf("use BPF: %v", err)
}

// Pinned implements doctor.BPF.
func (programs) Pinned(path string) (uint32, error) {
	p, err := ebpf.LoadPinnedProgram(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", path, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, fmt.Errorf("read %s: the kernel tells no id", path)
	}
	return uint32(id), nil
}

// programName is the name of a program; empty if it cannot be read, which takes CAP_SYS_ADMIN.
func programName(id uint32) string {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// Decapsulator implements doctor.BPF.
func (programs) Decapsulator(id uint32) (d doctor.Decapsulator, err error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return d, fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return d, fmt.Errorf("read program %d: %w", id, err)
	}
	ids, _ := info.MapIDs()
	tables := 0
	for _, m := range ids {
		name, addrs, err := addressTable(m)
		if err != nil {
			return d, err
		}
		switch name {
		case "tunnel_addrs":
			d.Addresses = addrs
			tables++
		case "vip_addrs":
			d.VIPs = addrs
			tables++
		}
	}
	if tables != 2 {
		return d, fmt.Errorf("read program %d: it has no tables tunnel_addrs and vip_addrs", id)
	}
	return d, nil
}

// addressTable reads a map whose keys are addresses; of other maps, only the name.
func addressTable(id ebpf.MapID) (name string, addrs []netip.Addr, err error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return "", nil, fmt.Errorf("open map %d: %w", id, err)
	}
	defer m.Close()
	info, err := m.Info()
	if err != nil {
		return "", nil, fmt.Errorf("read map %d: %w", id, err)
	}
	if info.Type != ebpf.Hash || info.KeySize != 16 || info.ValueSize != 1 {
		return info.Name, nil, nil
	}
	var key [16]byte
	var value uint8
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		addrs = append(addrs, netip.AddrFrom16(key).Unmap())
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return info.Name, addrs, entries.Err()
}
