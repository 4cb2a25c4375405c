// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Privileges is what the process may do. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as the
// kernel has it (Documentation/admin-guide/perf-security.rst, kernel/capability.c bpf_capable).
type Privileges struct {
	BPF, NetAdmin, PerfMon bool
}

// CurrentPrivileges reads the effective capabilities of the calling thread.
func CurrentPrivileges() (Privileges, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return Privileges{}, fmt.Errorf("read capabilities: %v", err)
	}
	has := func(c int) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	admin := has(unix.CAP_SYS_ADMIN)
	return Privileges{
		BPF:      admin || has(unix.CAP_BPF),
		NetAdmin: has(unix.CAP_NET_ADMIN),
		PerfMon:  admin || has(unix.CAP_PERFMON),
	}, nil
}

// Check refuses a process that cannot load and attach programs, naming what it lacks.
func (p Privileges) Check() error {
	var missing []string
	if !p.BPF {
		missing = append(missing, "CAP_BPF (to load programs and make maps)")
	}
	if !p.NetAdmin {
		missing = append(missing, "CAP_NET_ADMIN (to load XDP programs and attach them)")
	}
	if !p.PerfMon {
		// The verifier then forbids arithmetic on packet pointers, and would make any program that
		// does without several times slower by its mitigations.
		missing = append(missing, "CAP_PERFMON (to load programs without the kernel's mitigations against untrusted ones)")
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("missing %s, running as uid %d: run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON "+
		"(systemd: AmbientCapabilities=)", strings.Join(missing, " and "), os.Geteuid())
}
