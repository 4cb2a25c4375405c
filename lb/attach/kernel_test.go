// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

func TestCheckKernel(t *testing.T) {
	require.Root(t)
	if err := CheckKernel(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		errno unix.Errno
		want  string
	}{
		{"no system call", unix.ENOSYS, "without CONFIG_BPF_SYSCALL"},
		{"forbidden", unix.EPERM, "although the process has the capabilities"},
		{"something else", unix.EIO, "making a map failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := withBPF(tc.errno, CheckKernel)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// withBPF runs f on a thread of its own for which every bpf system call fails with errno.
func withBPF(errno unix.Errno, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		done <- errors.Join(forbidBPF(errno), f())
	}()
	return <-done
}

// forbidBPF installs a seccomp filter for the calling thread: seccomp(2).
func forbidBPF(errno unix.Errno) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // struct seccomp_data: the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
	runtime.KeepAlive(filter)
	return err
}
