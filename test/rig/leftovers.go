// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// RemoveLeftovers removes what labs left behind whose process was killed before it could close
// them: their namespaces, the processes in those, and their directories. Labs of living processes
// are left alone. It returns the names of what it removed.
func RemoveLeftovers() (removed []string, err error) {
	var errs []error
	for _, name := range leftovers(netnsDir) {
		errs = append(errs, killNamespace(name), removeNamespace(name))
		removed = append(removed, name)
	}
	for _, name := range leftovers(os.TempDir()) {
		errs = append(errs, os.RemoveAll(filepath.Join(os.TempDir(), name)))
		removed = append(removed, name)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("remove leftovers: %v", err)
	}
	return removed, nil
}

// leftovers lists the entries of a directory that have the name of a lab whose process is gone.
func leftovers(dir string) (names []string) {
	// The directory is not there: neither is anything in it.
	entries, _ := os.ReadDir(dir)
	name := regexp.MustCompile(`^remora-([0-9]+)-[0-9]+(-[a-z0-9]+)?$`)
	for _, e := range entries {
		m := name.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		pid, err := strconv.Atoi(m[1])
		if err == nil && !alive(pid) {
			names = append(names, e.Name())
		}
	}
	return names
}

// alive tells whether there is a process with this id.
func alive(pid int) bool {
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// killNamespace kills the processes that are in a network namespace.
func killNamespace(name string) error {
	pids, err := namespacePids(name)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d in %s: %v", pid, name, err))
		}
	}
	return errors.Join(errs...)
}

// namespacePids returns the ids of the processes in a named network namespace, without this one.
func namespacePids(name string) (pids []int, err error) {
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(netnsDir, name), &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("find network namespace %s: %v", name, err)
	}
	link := fmt.Sprintf("net:[%d]", st.Ino)
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		// A process that ended since is in no namespace.
		if target, err := os.Readlink(path); err == nil && target == link {
			pid, err := strconv.Atoi(strings.Split(path, "/")[2])
			if err != nil {
				return nil, err
			}
			// This process is where its first thread is, which may be the thread of a node.
			if pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}
