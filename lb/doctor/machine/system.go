// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"fmt"
	"io/fs"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/doctor"
)

// system is the kernel's answers to plain system calls.
type system struct{}

// Release implements doctor.System.
func (system) Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("read kernel release: %v", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// CPUs implements doctor.System.
func (system) CPUs() int { return runtime.NumCPU() }

// timeError is the state TIME_ERROR of adjtimex(2): the clock is not synchronised.
const timeError = 5

// ClockSynchronised implements doctor.System. With no bits set in Modes, adjtimex only reads.
func (system) ClockSynchronised() (bool, error) {
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return false, fmt.Errorf("read state of the clock: %w", err)
	}
	return state != timeError, nil
}

// FileSystem implements doctor.System.
func (system) FileSystem(path string) (doctor.FileSystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return doctor.FileSystem{}, fmt.Errorf("look at file system of %s: %w", path, err)
	}
	return doctor.FileSystem{
		BPF:       s.Type == unix.BPF_FS_MAGIC,
		ReadOnly:  s.Flags&unix.ST_RDONLY != 0,
		FreeBytes: s.Bavail * uint64(s.Bsize),
	}, nil
}

// Owner implements doctor.System.
func (system) Owner(path string) (doctor.Owner, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return doctor.Owner{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return doctor.Owner{UID: s.Uid, GID: s.Gid, Mode: fs.FileMode(s.Mode) & fs.ModePerm}, nil
}
