// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is returned if another process writes to the instance.
var ErrLocked = errors.New("instance is in use")

// lockFolder takes the instance's only write lock, on its folder of pins. It is held until the file
// is closed, and ends with the process whatever becomes of it.
func lockFolder(dir string) (*os.File, error) {
	for {
		f, err := openLocked(dir)
		if err != nil {
			return nil, err
		}
		// The process that had the lock until now may have removed the folder as its last act.
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("look at pin folder: %v", err)
		}
		if now, err := os.Stat(dir); err == nil && os.SameFile(locked, now) {
			return f, nil
		}
		f.Close()
	}
}

func openLocked(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make pin folder: %v", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pin folder: %v", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	defer f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w by %s: stop it, or choose another instance name", dir, ErrLocked, lockHolder(f))
	}
	return nil, fmt.Errorf("lock %s: %v", dir, err)
}

// lockHolder names the process that holds the lock on f, for people.
func lockHolder(f *os.File) string {
	if pid := lockPID(f); pid != 0 {
		return fmt.Sprintf("process %d", pid)
	}
	return "another process"
}

// lockPID is the process that holds the lock on f, from /proc/locks; 0 if there is none, or it is
// in another pid namespace.
func lockPID(f *os.File) int {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for scan := bufio.NewScanner(locks); scan.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 1234 00:1f:56 0 EOF
		field := strings.Fields(scan.Text())
		if len(field) > 5 && field[1] == "FLOCK" && field[5] == inode {
			pid, _ := strconv.Atoi(field[4])
			return pid
		}
	}
	return 0
}

// Writer names the process that writes to an instance: its pid, 0 if there is none.
func Writer(bpffs, instance string) int {
	f, err := os.Open(pinsOf(bpffs, instance).root)
	if err != nil {
		return 0
	}
	defer f.Close()
	return lockPID(f)
}

// Remove detaches an instance and removes all that is pinned for it. Errors are those of OpenRemains.
func Remove(bpffs, instance string) error {
	r, err := OpenRemains(bpffs, instance)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.Remove()
}
