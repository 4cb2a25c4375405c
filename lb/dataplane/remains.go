// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Remains is what an instance has pinned, by this version or another. While it is open, no daemon can
// have the instance. Close it.
type Remains struct {
	pins pins
	lock *os.File
}

// Pin is a pinned object, or a symbolic link beside those.
type Pin struct {
	// Path is that of the file.
	Path string
	// What it is, for people.
	What string
}

// OpenRemains opens what an instance has pinned. Errors of ErrNoInstance say that there is nothing, of
// ErrLocked that a daemon has it.
func OpenRemains(bpffs, instance string) (*Remains, error) {
	if instance == "" {
		return nil, errors.New("open instance: it has no name")
	}
	p := pinsOf(bpffs, instance)
	if _, err := os.Stat(p.root); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open instance %q below %s: %w", instance, bpffs, ErrNoInstance)
	}
	lock, err := lockFolder(p.root)
	if err != nil {
		return nil, err
	}
	return &Remains{pins: p, lock: lock}, nil
}

// List is everything that is pinned, by path.
func (r *Remains) List() (list []Pin, err error) {
	err = r.pins.each(func(path string, d fs.DirEntry) {
		list = append(list, Pin{Path: path, What: describePin(path, d)})
	})
	return list, err
}

// Remove takes the program off all interfaces, and removes everything that is pinned. There is nothing to
// be listed after that.
func (r *Remains) Remove() error { return r.pins.removeAll() }

// Close lets others have the instance.
func (r *Remains) Close() error { return r.lock.Close() }

func describePin(path string, d fs.DirEntry) string {
	if d.Type() == fs.ModeSymlink {
		to, _ := os.Readlink(path)
		return "points to " + to
	}
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		defer l.Close()
		return describeLink(l)
	}
	if prog, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
		defer prog.Close()
		return fmt.Sprintf("program id %d", programID(prog))
	}
	if m, err := ebpf.LoadPinnedMap(path, nil); err == nil {
		defer m.Close()
		return fmt.Sprintf("%v map of %d elements", m.Type(), m.MaxEntries())
	}
	return "not known"
}

func describeLink(l link.Link) string {
	info, err := l.Info()
	if err != nil {
		return "link"
	}
	xdp := info.XDP()
	if xdp == nil {
		return fmt.Sprintf("link id %d with program id %d", info.ID, info.Program)
	}
	iface, err := net.InterfaceByIndex(int(xdp.Ifindex))
	if err != nil {
		return fmt.Sprintf("XDP link id %d, of an interface that is not there", info.ID)
	}
	return fmt.Sprintf("XDP link id %d: %s runs program id %d", info.ID, iface.Name, info.Program)
}
