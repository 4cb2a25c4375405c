// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// version is a kernel's version, without what follows the second number.
type version struct{ major, minor int }

// The versions from which on something works.
var (
	supported = version{6, 1}  // that the project is tested on
	least     = version{5, 15} // by what the packet program uses
	tcx       = version{6, 6}  // health checks through the tunnel
	memcg     = version{5, 11} // BPF memory does not count as locked memory
)

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

func (v version) before(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// kernel is the version of the running kernel.
func (m *Machine) kernel() (v version, release string, err error) {
	if release, err = m.System.Release(); err != nil {
		return v, "", err
	}
	if _, err := fmt.Sscanf(release, "%d.%d", &v.major, &v.minor); err != nil {
		return v, release, fmt.Errorf("read kernel release: %q has no version in front", release)
	}
	return v, release, nil
}

func (b *Balancer) checkKernel(context.Context) []Finding {
	const id = "kernel-version"
	v, release, err := b.kernel()
	switch {
	case err != nil:
		return []Finding{cannotTell(id, "", err, "the kernel's release")}
	case v.before(least):
		return []Finding{fail(id, "", "Linux %s is older than %s: the packet program does not load", release, least).
			cure("install Linux %s or later", supported)}
	case v.before(supported):
		return []Finding{warn(id, "", "Linux %s is older than %s, the oldest that is supported", release, supported).
			cure("install Linux %s or later", supported)}
	}
	return []Finding{fine(id, "", "Linux %s; %s or later is supported", release, supported)}
}

// checkProbes looks at what health checks through the tunnel need.
func (b *Balancer) checkProbes(context.Context) []Finding {
	const id = "kernel-tcx"
	v, release, err := b.kernel()
	if len(b.Setup.Probes) == 0 || err != nil {
		return nil
	}
	if v.before(tcx) {
		return []Finding{fail(id, "", "health checks go through the tunnel, which needs Linux %s; this is %s", tcx, release).
			cure("install Linux %s or later, or set `path: direct` in the services' `health` sections", tcx)}
	}
	return []Finding{fine(id, "", "health checks through the tunnel need Linux %s; this is %s", tcx, release)}
}

func (b *Balancer) checkBPF(context.Context) []Finding {
	const id = "bpf"
	if err := b.BPF.Usable(); errors.Is(err, fs.ErrPermission) {
		return []Finding{cannotTell(id, "", err, "root")}
	} else if err != nil {
		return []Finding{fail(id, "", "%v", err).cure("run remora where the bpf system call is allowed and CONFIG_BPF_SYSCALL is in the kernel")}
	}
	return []Finding{fine(id, "", "the kernel lets this process use BPF and knows XDP programs")}
}

func (b *Balancer) checkBTF(context.Context) []Finding {
	const id, path = "btf", "sys/kernel/btf/vmlinux"
	if _, err := fs.Stat(b.Files, path); errors.Is(err, fs.ErrNotExist) {
		return []Finding{fail(id, "", "the kernel has no BTF (/%s is missing): the packet program does not load", path).
			cure("use a kernel that was built with CONFIG_DEBUG_INFO_BTF=y, as all large distributions do")}
	} else if err != nil {
		return []Finding{cannotTell(id, "", err, "leave to read /"+path)}
	}
	return []Finding{fine(id, "", "the kernel describes its types in /%s", path)}
}

func (b *Balancer) checkJIT(context.Context) []Finding {
	const id, path = "bpf-jit", "/proc/sys/net/core/bpf_jit_enable"
	n, err := b.number(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{cannotTell(id, "", fmt.Errorf("%s is not there", path), "the machine's first network namespace, which alone has the file")}
	case err != nil:
		return []Finding{cannotTell(id, "", err, "leave to read "+path)}
	case n == 0:
		return []Finding{warn(id, "", "the BPF compiler is off: programs are interpreted, and many times slower").
			cure("sysctl -w net.core.bpf_jit_enable=1")}
	case n == 2:
		return []Finding{warn(id, "", "the BPF compiler writes all that it compiles into the kernel's log").
			cure("sysctl -w net.core.bpf_jit_enable=1")}
	}
	return []Finding{fine(id, "", "the BPF compiler is on")}
}

func (b *Balancer) checkBPFFS(context.Context) []Finding {
	const id = "bpffs"
	dir := b.Places.BPFFS
	mount := fmt.Sprintf("mount -t bpf bpf %s", dir)
	fsys, err := b.System.FileSystem(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{fail(id, dir, "there is no such folder: nothing can be pinned").cure("mkdir -p %s && %s", dir, mount)}
	case err != nil:
		return []Finding{cannotTell(id, dir, err, "leave to look at it")}
	case !fsys.BPF:
		return []Finding{warn(id, dir, "no BPF file system is mounted: `remora run` must mount it, which only root can").cure("%s", mount)}
	case fsys.ReadOnly:
		return []Finding{fail(id, dir, "the BPF file system is read-only: nothing can be pinned").cure("mount -o remount,rw %s", dir)}
	}
	return []Finding{fine(id, dir, "a BPF file system is mounted")}
}

// checkMemlock matters where the kernel counts maps as locked memory.
func (b *Balancer) checkMemlock(context.Context) []Finding {
	const id = "memlock"
	v, release, err := b.kernel()
	if err != nil {
		return nil // kernel-version says so
	}
	if !v.before(memcg) {
		return []Finding{fine(id, "", "Linux %s does not count BPF maps as locked memory", release)}
	}
	path := "/proc/self/limits"
	if b.Plane.Writer != 0 {
		path = fmt.Sprintf("/proc/%d/limits", b.Plane.Writer)
	}
	limits, err := b.text(path)
	if err != nil {
		return []Finding{cannotTell(id, "", err, "leave to read "+path)}
	}
	for line := range strings.Lines(limits) {
		limit, ok := strings.CutPrefix(line, "Max locked memory")
		if words := strings.Fields(limit); ok && len(words) > 0 && words[0] != "unlimited" {
			return []Finding{warn(id, "", "Linux %s counts BPF maps as locked memory, of which %s bytes are allowed (%s)", release, words[0], path).
				cure("LimitMEMLOCK=infinity in the section [Service] of the systemd unit")}
		}
	}
	return []Finding{fine(id, "", "locked memory is not limited")}
}

func (b *Balancer) checkClock(context.Context) []Finding {
	const id = "clock"
	good, err := b.System.ClockSynchronised()
	switch {
	case err != nil:
		return []Finding{cannotTell(id, "", err, "adjtimex(2), which a sandbox may forbid")}
	case !good:
		return []Finding{warn(id, "", "the kernel's clock is not synchronised: balancers disagree on until when a drain, a freeze or a "+
			"record of another balancer counts").
			cure("timedatectl set-ntp true, or run chrony")}
	}
	return []Finding{fine(id, "", "the kernel's clock is synchronised")}
}
