// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// capability is a bit of capabilities(7).
type capability struct {
	name string
	bit  uint
}

// needed are the capabilities of a daemon. CAP_SYS_ADMIN stands for the first and the last.
func needed() []capability {
	return []capability{{"CAP_BPF", 39}, {"CAP_NET_ADMIN", 12}, {"CAP_PERFMON", 38}}
}

const sysAdmin = 21

// lacking lists which needed capabilities a process with these effective ones does not have.
func lacking(effective uint64) (names []string) {
	for _, c := range needed() {
		bits := uint64(1) << c.bit
		if c.name != "CAP_NET_ADMIN" {
			bits |= 1 << sysAdmin
		}
		if effective&bits == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// effective reads the capabilities of a process.
func (m *Machine) effective(process string) (uint64, error) {
	path := "/proc/" + process + "/status"
	text, err := m.text(path)
	if err != nil {
		return 0, err
	}
	value := fields(text, ":")["CapEff"]
	bits, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: CapEff %q is no number", path, value)
	}
	return bits, nil
}

// checkPrivileges looks at the daemon, or at this process if there is none.
func (b *Balancer) checkPrivileges(context.Context) []Finding {
	const id = "capabilities"
	process, whose := "self", "this process"
	if b.Plane.Writer != 0 {
		process = strconv.Itoa(b.Plane.Writer)
		whose = "the daemon, process " + process
	}
	bits, err := b.effective(process)
	switch {
	case errors.Is(err, fs.ErrNotExist) && process != "self":
		return []Finding{cannotTell(id, whose, err, "the daemon's process namespace")}
	case err != nil:
		return []Finding{cannotTell(id, whose, err, "leave to read /proc")}
	}
	missing := lacking(bits)
	switch {
	case len(missing) == 0:
		return []Finding{fine(id, whose, "it has CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")}
	case process == "self": // not the daemon's fault
		f := finding(CannotTell, id, "", "no daemon runs, and doctor itself was started without %s", strings.Join(missing, ", "))
		f.Needs, f.Unprivileged = "root, or a running daemon", true
		return []Finding{f}
	}
	return []Finding{fail(id, whose, "it lacks %s: a start or a growing configuration fails", strings.Join(missing, ", ")).
		cure("AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON in the section [Service] of the systemd unit, then systemctl restart remora")}
}
