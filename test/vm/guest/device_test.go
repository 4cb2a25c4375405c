// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// loadOnto loads an object's programs onto a network card that runs XDP, and makes its maps there.
// The card is looked for in the network namespace of the calling thread. The caller closes what is
// returned.
func loadOnto(spec *ebpf.CollectionSpec, ifindex int) (*ebpf.Collection, error) {
	maps := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	spec = spec.Copy()
	for name, m := range spec.Maps {
		if strings.HasPrefix(name, ".data") || name == ".bss" {
			m.Flags |= unix.BPF_F_MMAPABLE // as the library makes them
		}
		var err error
		if maps[name], err = newCardMap(m, ifindex); err != nil {
			return nil, fmt.Errorf("make map %s on the card: %w", name, err)
		}
	}
	for _, p := range spec.Programs {
		p.Ifindex = uint32(ifindex)
	}
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{
			// What the driver says is in the verifier's log, which grows to this at once.
			LogLevel:     ebpf.LogLevelInstruction,
			LogSizeStart: 4 << 20,
		},
		MapReplacements: maps,
	})
}

// mapAttributes are the first of union bpf_attr for BPF_MAP_CREATE (linux/bpf.h).
type mapAttributes struct {
	mapType, keySize, valueSize, maxEntries, flags uint32
	innerMap, numaNode                             uint32
	name                                           [unix.BPF_OBJ_NAME_LEN]byte
	ifindex                                        uint32
}

// newCardMap makes a map on a card. The library knows no such maps, and would send the types of key
// and value along, which no card takes.
func newCardMap(spec *ebpf.MapSpec, ifindex int) (*ebpf.Map, error) {
	a := mapAttributes{
		mapType: uint32(spec.Type), keySize: spec.KeySize, valueSize: spec.ValueSize,
		maxEntries: spec.MaxEntries, flags: spec.Flags, ifindex: uint32(ifindex),
	}
	copy(a.name[:len(a.name)-1], spec.Name)
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a))
	if errno != 0 {
		return nil, errno
	}
	return ebpf.NewMapFromFD(int(fd))
}

// attachOnto attaches a program of the card to the card.
func attachOnto(prog *ebpf.Program, ifindex int) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPOffloadMode})
}

// verdict is what a card's driver says of an object.
type verdict struct {
	accepted bool
	// why is, of an accepted object, how much of the card it takes, and otherwise the driver's reason.
	why string
}

func (v verdict) String() string {
	if v.accepted {
		return "accepted: " + v.why
	}
	return "refused: " + v.why
}

// judge loads and attaches an object of one program, and takes it off again.
func judge(t *testing.T, spec *ebpf.CollectionSpec, ifindex int) verdict {
	t.Helper()
	log := newKernelLog(t)
	defer log.close()
	loaded, err := loadOnto(spec, ifindex)
	if err != nil {
		return verdict{why: reason(t, err, log)}
	}
	defer loaded.Close()
	for _, p := range loaded.Programs {
		l, err := attachOnto(p, ifindex)
		if err != nil {
			return verdict{why: reason(t, err, log)}
		}
		defer l.Close()
	}
	return verdict{accepted: true, why: cardUse(t)}
}

// driverMark begins what the card's driver says in the log of the verifier.
const driverMark = "[nfp] "

// reason is the driver's. What it does not say to the verifier, it says to the kernel's log; and some
// things are refused by the kernel, for any card.
func reason(t *testing.T, err error, log *kernelLog) string {
	t.Helper()
	var refusal *ebpf.VerifierError
	if errors.As(err, &refusal) {
		for _, line := range refusal.Log {
			if _, text, ok := strings.Cut(line, driverMark); ok && !strings.Contains(text, "warning") {
				return driverMark + text
			}
		}
	}
	if messages := log.read(t); len(messages) > 0 {
		return messages[len(messages)-1]
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
