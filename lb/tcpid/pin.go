// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package tcpid

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Names of pinned objects in the cgroup's folder.
const (
	pinnedLink     = "link"
	pinnedCounters = "counters"
)

// pinFolder is where a cgroup's objects are pinned, by the cgroup's number.
func pinFolder(bpffs, cgroup string) (string, error) {
	var s unix.Stat_t
	if err := unix.Stat(cgroup, &s); err != nil {
		return "", fmt.Errorf("open cgroup %q: %v", cgroup, err)
	}
	return filepath.Join(bpffs, "remora-tcp-id", strconv.FormatUint(s.Ino, 10)), nil
}

// Pin keeps the attachment when the process ends, until Unpin. Bpffs is the mount point of the BPF file
// system.
func (t *TCPID) Pin(bpffs string) error {
	if t.link == nil {
		return errors.New("pin attachment: not attached")
	}
	folder, err := pinFolder(bpffs, t.cfg.Cgroup)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("pin attachment: %v", err)
	}
	err = t.objects.Counters.Pin(filepath.Join(folder, pinnedCounters))
	if err == nil {
		err = t.link.Pin(filepath.Join(folder, pinnedLink))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pin attachment: %v", err), removePins(folder))
	}
	return nil
}

// Unpin takes a pinned attachment off its cgroup, and gives its last counters.
func Unpin(bpffs, cgroup string) (Counters, error) {
	folder, err := pinFolder(bpffs, cgroup)
	if err != nil {
		return Counters{}, err
	}
	if _, err := os.Stat(filepath.Join(folder, pinnedLink)); err != nil {
		return Counters{}, fmt.Errorf("detach from cgroup %q: nothing is pinned for it: %v", cgroup, err)
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(folder, pinnedCounters), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return Counters{}, errors.Join(fmt.Errorf("read pinned counters: %v", err), removePins(folder))
	}
	defer m.Close()
	if err := removePins(folder); err != nil {
		return Counters{}, err
	}
	return readCounters(m)
}

// removePins removes the link first, so that nothing works without its counters, and what is empty then.
func removePins(folder string) error {
	for _, name := range []string{pinnedLink, pinnedCounters} {
		if err := os.Remove(filepath.Join(folder, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove pinned %s: %v", name, err)
		}
	}
	if err := os.Remove(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove folder of pinned objects: %v", err)
	}
	// Other cgroups may have theirs beside it: then it stays.
	_ = os.Remove(filepath.Dir(folder))
	return nil
}
