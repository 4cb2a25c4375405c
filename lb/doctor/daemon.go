// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

func (b *Balancer) checkConfiguration(context.Context) []Finding {
	const id = "configuration"
	if b.Setup.Problem != "" {
		return []Finding{fail(id, b.Places.File, "%s", b.Setup.Problem).
			cure("mend the file until `remora check -c %s` prints its plan", b.Places.File)}
	}
	return []Finding{fine(id, b.Places.File, "it is valid: %d VIPs on %s", len(b.Setup.VIPs), b.Setup.Interface)}
}

// checkDaemon tells a daemon that runs from one that is dead with a live data plane, and from none.
func (b *Balancer) checkDaemon(context.Context) []Finding {
	const id = "daemon"
	start := fmt.Sprintf("systemctl start remora, or remora run -c %s --instance %s", b.Places.File, b.Places.Instance)
	switch p := b.Plane; {
	case p.Writer != 0:
		return []Finding{fine(id, b.Places.Instance, "process %d runs", p.Writer)}
	case b.Daemon.Answers:
		return []Finding{fine(id, b.Places.Instance, "it answers at %s", b.Places.Socket)}
	case p.There:
		return []Finding{warn(id, b.Places.Instance, "no daemon runs, and the data plane forwards as last configured: "+
			"servers that fail or move are not followed, health is not checked, and BGP does not speak").
			cure("%s; the log of the last one: journalctl -u remora", start)}
	case errors.Is(p.Err, fs.ErrPermission):
		return []Finding{cannotTell(id, b.Places.Instance, p.Err, "root")}
	case p.Err != nil:
		return []Finding{fail(id, b.Places.Instance, "what is pinned cannot be read: %v", p.Err).cure("%s, which makes it anew", start)}
	}
	return []Finding{fail(id, b.Places.Instance, "no daemon runs, and nothing is pinned below %s: no packet is forwarded", b.Places.Pins).
		cure("%s; for another name or place: doctor --instance, --bpffs", start)}
}

func (b *Balancer) checkSocket(context.Context) []Finding {
	const id = "control-socket"
	socket := b.Places.Socket
	if b.Plane.Writer == 0 && !b.Daemon.Answers {
		return nil // daemon says so
	}
	if !b.Daemon.Answers {
		if errors.Is(b.Daemon.Err, fs.ErrPermission) {
			return []Finding{cannotTell(id, socket, b.Daemon.Err, "root").cure("%s", b.Daemon.Cure)}
		}
		return []Finding{warn(id, socket, "the daemon runs and does not answer, so health, BGP and held changes are not known: %v", b.Daemon.Err).
			cure("%s", b.Daemon.Cure)}
	}
	owner, err := b.System.Owner(socket)
	switch {
	case err != nil:
		return []Finding{cannotTell(id, socket, err, "leave to look at it")}
	case owner.Mode&0o002 != 0:
		return []Finding{warn(id, socket, "everybody may steer the daemon: its mode is %#o", owner.Mode.Perm()).
			cure("chmod 0660 %s, and remora run --group GROUP", socket)}
	}
	return []Finding{fine(id, socket, "the daemon answers; the socket's mode is %#o, its group %d", owner.Mode.Perm(), owner.GID)}
}

func (b *Balancer) checkApply(context.Context) []Finding {
	const id = "apply"
	switch {
	case !b.Daemon.Answers:
		return nil // control-socket says so
	case b.Daemon.LastError != "":
		return []Finding{fail(id, "", "the data plane is not as it should be: %s", b.Daemon.LastError).
			cure("journalctl -u remora; the daemon tries again by itself")}
	}
	return []Finding{fine(id, "", "the data plane is as the daemon wants it")}
}

func (b *Balancer) checkConflicts(context.Context) (found []Finding) {
	for _, c := range b.Daemon.Conflicts {
		found = append(found, warn("conflict", "", "%s", c).cure("end the contradiction in %s, or where the source says it", b.Places.File))
	}
	return found
}

// scarce is so little room that the daemon's state might not fit: it is some MiB at most.
// With less than full, it is not written.
const (
	scarce = 64 << 20
	full   = 1 << 20
)

func (b *Balancer) checkState(context.Context) []Finding {
	const id = "state-dir"
	dir := path.Join(b.Places.StateDir, b.Places.Instance)
	fsys, err := b.System.FileSystem(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if b.Plane.Writer == 0 {
			return []Finding{note(id, dir, "it is not there yet: the first start makes it")}
		}
		return []Finding{warn(id, dir, "it is not there: a restart forgets drains and what Consul said last").
			cure("remora run --state-dir DIR, and doctor with the same")}
	}
	if err != nil {
		return []Finding{cannotTell(id, dir, err, "leave to look at it")}
	}
	switch {
	case fsys.ReadOnly:
		return []Finding{fail(id, dir, "the file system is read-only: drains and the last known servers are not kept").
			cure("mount -o remount,rw, or StateDirectory=remora in the systemd unit")}
	case fsys.FreeBytes < full:
		return []Finding{fail(id, dir, "%d KiB are free: the state is not written, and a restart forgets what changed since", fsys.FreeBytes>>10).
			cure("make room: du -xh / | sort -h | tail")}
	case fsys.FreeBytes < scarce:
		return []Finding{warn(id, dir, "%d MiB are free: the state is soon not written any more", fsys.FreeBytes>>20).
			cure("make room: du -xh / | sort -h | tail")}
	}
	return b.stateOwner(id, dir)
}

// stateOwner demands that the daemon's user may write to the state folder.
func (b *Balancer) stateOwner(id, dir string) []Finding {
	owner, err := b.System.Owner(dir)
	if err != nil {
		return []Finding{cannotTell(id, dir, err, "leave to look at it")}
	}
	if b.Plane.Writer == 0 {
		return []Finding{fine(id, dir, "there is room; it belongs to user %d", owner.UID)}
	}
	status, err := b.text("/proc/" + strconv.Itoa(b.Plane.Writer) + "/status")
	if err != nil {
		return []Finding{cannotTell(id, dir, err, "the daemon's process namespace")}
	}
	uid, _, _ := strings.Cut(fields(status, ":")["Uid"], "\t")
	if uid != "0" && uid != strconv.Itoa(int(owner.UID)) && owner.Mode&0o022 == 0 {
		return []Finding{fail(id, dir, "it belongs to user %d, and the daemon runs as user %s: it cannot write its state", owner.UID, uid).
			cure("chown -R %s %s", uid, dir)}
	}
	return []Finding{fine(id, dir, "the daemon may write to it, and there is room")}
}

// unitPaths are where systemd looks for a unit, the first that is there counts.
func unitPaths() []string {
	return []string{"/etc/systemd/system/remora.service", "/run/systemd/system/remora.service", "/usr/lib/systemd/system/remora.service",
		"/lib/systemd/system/remora.service"}
}

func (b *Balancer) checkUnit(context.Context) []Finding {
	const id = "systemd-unit"
	for _, at := range unitPaths() {
		text, err := b.text(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return []Finding{cannotTell(id, at, err, "leave to read it")}
		}
		if found := b.unitFaults(id, at, fields(text, "=")); len(found) > 0 {
			return found
		}
		return []Finding{fine(id, at, "it leaves remora what it needs (drop-ins were not read)")}
	}
	return []Finding{fine(id, "", "there is none")}
}

// unitFaults are what a unit takes away that the daemon needs.
func (b *Balancer) unitFaults(id, at string, unit map[string]string) (found []Finding) {
	reload := "; then systemctl daemon-reload && systemctl restart remora"
	for _, key := range []string{"PrivateNetwork", "ProtectKernelTunables", "DynamicUser"} {
		if isTrue(unit[key]) {
			found = append(found, fail(id, at, "%s=%s takes away what remora needs: %s", key, unit[key], unitReason(key)).
				cure("remove the line %s=%s%s", key, unit[key], reload))
		}
	}
	user := unit["User"]
	for _, c := range needed() {
		ambient := strings.Contains(unit["AmbientCapabilities"], c.name)
		bound, bounded := unit["CapabilityBoundingSet"]
		if user != "" && user != "root" && !ambient || bounded && !strings.Contains(bound, c.name) {
			found = append(found, fail(id, at, "a daemon of user %q gets no %s", user, c.name).
				cure("AmbientCapabilities= and CapabilityBoundingSet= with CAP_BPF CAP_NET_ADMIN CAP_PERFMON%s", reload))
		}
	}
	if v, _, err := b.kernel(); err == nil && v.before(memcg) && unit["LimitMEMLOCK"] != "infinity" {
		found = append(found, fail(id, at, "LimitMEMLOCK is %q, and this kernel counts BPF maps as locked memory", unit["LimitMEMLOCK"]).
			cure("LimitMEMLOCK=infinity%s", reload))
	}
	if filter, ok := unit["SystemCallFilter"]; ok && !strings.HasPrefix(filter, "~") && !hasWord(filter, "bpf") {
		found = append(found, fail(id, at, "SystemCallFilter=%s lacks the bpf system call", filter).
			cure("SystemCallFilter=@system-service bpf%s", reload))
	}
	return found
}

func unitReason(key string) string {
	switch key {
	case "PrivateNetwork":
		return "the interface"
	case "ProtectKernelTunables":
		return "writing to the BPF file system, below /sys"
	}
	return "the user that the folder of pins belongs to"
}

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "true", "on", "1":
		return true
	}
	return false
}

func hasWord(text, word string) bool {
	for _, w := range strings.Fields(text) {
		if w == word {
			return true
		}
	}
	return false
}
