// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// DefaultBPFFS is where the BPF file system usually is.
const DefaultBPFFS = "/sys/fs/bpf"

// pins is the folder of one instance in the BPF file system:
//
//	links/INTERFACE      the attachment; dots, which the file system forbids, are colons
//	maps, progs          symbolic links to those of the generation in use
//	generations/N/maps/  pinned maps, by name
//	generations/N/progs/ the pinned programs: "native", and "flow_clock"
//
// A generation is pinned as a whole before the attachment is given its program, and the symbolic
// links follow after that; so whatever step is the last, the attachment's program has its maps.
type pins struct {
	root   string
	faults faults
}

func pinsOf(bpffs, instance string) pins {
	return pins{root: filepath.Join(bpffs, "remora", fileName(instance))}
}

// fileName is the name of an instance or interface as the BPF file system takes it: without dots
// (kernel/bpf/inode.c, bpf_lookup). Neither has colons of its own.
func fileName(s string) string { return strings.ReplaceAll(s, ".", ":") }

func (p pins) link(iface string) string { return filepath.Join(p.links(), fileName(iface)) }

func (p pins) links() string { return filepath.Join(p.root, "links") }

func (p pins) generation(n int) string {
	return filepath.Join(p.root, "generations", strconv.Itoa(n))
}

// generations lists the numbers of the pinned generations.
func (p pins) generations() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(p.root, "generations"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pinned generations: %v", err)
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// use points maps and progs to a generation.
func (p pins) use(n int) error {
	for _, sub := range []string{"maps", "progs"} {
		if err := p.point(sub, filepath.Join("generations", strconv.Itoa(n), sub)); err != nil {
			return fmt.Errorf("point to generation %d: %v", n, err)
		}
	}
	return nil
}

// point makes or replaces a symbolic link, in one step.
func (p pins) point(name, to string) error {
	tmp := filepath.Join(p.root, "new_"+name)
	_ = os.Remove(tmp) // of a start that was cut off
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	err := p.faults.at(stepPoint)
	if err == nil {
		err = os.Rename(tmp, filepath.Join(p.root, name))
	}
	if err != nil {
		_ = os.Remove(tmp) // the first error says more
	}
	return err
}

func (p pins) removeGeneration(n int) error {
	err := p.faults.at(stepRemove)
	if err == nil {
		err = os.RemoveAll(p.generation(n))
	}
	if err != nil {
		return fmt.Errorf("remove pins of generation %d: %v", n, err)
	}
	return nil
}

// each calls do for everything below the instance's folder that is no folder, in order.
func (p pins) each(do func(path string, d fs.DirEntry)) error {
	err := filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			do(path, d)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list pins: %v", err)
	}
	return nil
}

// removeAll takes links off their interfaces, wherever another version may have pinned them, and removes
// the folder.
func (p pins) removeAll() error {
	err := p.each(func(path string, d fs.DirEntry) {
		if d.Type().IsRegular() {
			detachPinned(path)
		}
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(p.root); err != nil {
		return fmt.Errorf("remove pins: %v", err)
	}
	p.removeEmpty()
	return nil
}

// removeLink takes a pinned link off its interface, and removes the pin.
func removeLink(path string) error {
	detachPinned(path)
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove pinned link: %v", err)
	}
	return nil
}

// detachPinned takes what is pinned off its interface, if it is a link. Once the pin is removed the kernel
// would do so as well, but at a time of its own.
func detachPinned(path string) {
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		_ = l.Detach() // the pin goes all the same
		l.Close()
	}
}

// removeEmpty removes the folders of an instance that came to nothing. Those with pins stay, as
// folders that are not empty cannot be removed.
func (p pins) removeEmpty() {
	for _, dir := range []string{p.links(), filepath.Dir(p.generation(0)), p.root} {
		_ = os.Remove(dir)
	}
	// The common folder goes with the last instance, unless somebody else made it for us: a
	// service manager does that for a daemon that could not make it again.
	common := filepath.Dir(p.root)
	var st unix.Stat_t
	if unix.Stat(common, &st) == nil && int(st.Uid) == os.Geteuid() {
		_ = os.Remove(common) // not empty: other instances
	}
}

// checkBPFFS makes sure that dir is a BPF file system, and mounts one there if that is permitted
// and nothing else is in the way.
func checkBPFFS(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at %s: %v", dir, err)
	}
	if fs.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("no BPF file system at %s: %v", dir, err)
	}
	if len(entries) != 0 {
		return fmt.Errorf("no BPF file system at %s, and the folder is not empty: a mount would hide what is in it", dir)
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("no BPF file system at %s, and mounting one failed: %v: run `mount -t bpf bpf %s` as root", dir, err, dir)
	}
	return nil
}
