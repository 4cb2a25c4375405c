// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/rig"
)

// publicDir is a directory that a user without privileges can enter, and write to.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "remora-plain-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// mountBPF mounts a BPF file system that everybody may write to, as tmpfiles.d does for a folder.
func mountBPF(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestPlainUser runs the balancer as a user without privileges but three capabilities; and without
// one of them.
func TestPlainUser(t *testing.T) {
	b := newBed(t, rig.Config{Servers: 1})
	b.startServers(t, ipv4)
	b.write(t, b.Servers, ipv4, "")

	dir := publicDir(t)
	binary, config, bpffs := filepath.Join(dir, "remora"), filepath.Join(dir, "remora.yaml"), filepath.Join(dir, "bpf")
	mountBPF(t, bpffs)
	copyFile(t, b.remora.Binary, binary, 0o755)
	copyFile(t, b.config, config, 0o644)

	apply := func(capabilities ...string) (string, error) {
		list := "+" + strings.Join(capabilities, ",+")
		return b.balancer.Run(within(t), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
			"--inh-caps="+list, "--ambient-caps="+list,
			binary, "run", "-c", config, "--once", "--bpffs", bpffs, "--instance", "plain",
			"--state-dir", filepath.Join(dir, "state"))
	}
	_, err := apply("bpf", "net_admin")
	if err == nil || !strings.Contains(err.Error(), "missing CAP_PERFMON (") || !strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("without CAP_PERFMON: %v", err)
	}
	if _, err := os.Stat(filepath.Join(bpffs, "remora")); !os.IsNotExist(err) {
		t.Errorf("a start that was refused left its pin folder (%v)", err)
	}
	if _, err := apply("bpf", "net_admin", "perfmon"); err != nil {
		t.Fatal(err)
	}
	b.assertShared(t, vip4(), b.Servers...)
	b.assertShared(t, vip6(), b.Servers...)
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, mode); err != nil {
		t.Fatal(err)
	}
}
