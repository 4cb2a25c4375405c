// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// CheckKernel refuses a kernel that does not let this process use BPF at all, and says why.
func CheckKernel() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	switch {
	case err == nil:
		return m.Close()
	case errors.Is(err, unix.ENOSYS):
		return errors.New("no BPF: this kernel was built without CONFIG_BPF_SYSCALL, or a sandbox hides it (seccomp, container): " +
			"run on a kernel with BPF, or allow the bpf system call")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("no BPF: the kernel refuses to make a map, although the process has the capabilities (%v): "+
			"a sandbox (seccomp, container), an LSM or kernel lockdown forbids it", err)
	}
	return fmt.Errorf("no BPF: making a map failed: %v", err)
}
