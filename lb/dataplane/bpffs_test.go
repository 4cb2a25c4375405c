// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/attach"
	"github.com/remora-lb/remora/test/require"
)

func TestBPFFSIsMounted(t *testing.T) {
	l := newLab(t)
	require.NoError(t, unix.Unmount(l.bpffs, 0))
	d := l.attached("lb0", attach.Auto) // mounts it; the lab unmounts it
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(l.bpffs, &fs))
	if fs.Type != unix.BPF_FS_MAGIC {
		t.Errorf("file system of type %x", fs.Type)
	}
	require.NoError(t, d.Close())
	l.wantForwarding("lb0")
}

func TestBPFFSMissing(t *testing.T) {
	l := newLab(t)
	config := l.config("lb0", attach.Auto)
	config.BPFFS = filepath.Join(t.TempDir(), "nothing")
	_, err := Open(config)
	require.ErrorSays(t, err, config.BPFFS, "no such file or directory")

	// A folder with something in it is not covered by a mount.
	config.BPFFS = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(config.BPFFS, "file"), nil, 0o600))
	_, err = Open(config)
	require.ErrorSays(t, err, "no BPF file system at "+config.BPFFS, "not empty")
	if _, err := os.Stat(filepath.Join(config.BPFFS, "file")); err != nil {
		t.Errorf("the file is covered: %v", err)
	}

	// Nor is a file.
	config.BPFFS = filepath.Join(config.BPFFS, "file")
	_, err = Open(config)
	require.ErrorSays(t, err, "no BPF file system at "+config.BPFFS)
}

func TestBPFFSNotPermitted(t *testing.T) {
	l := newLab(t)
	require.NoError(t, unix.Unmount(l.bpffs, 0))
	defer func() { require.NoError(t, unix.Mount("bpf", l.bpffs, "bpf", 0, "")) }() // for the lab to unmount
	withoutCapability(t, unix.CAP_SYS_ADMIN, func() {
		require.ErrorSays(t, checkBPFFS(l.bpffs), "no BPF file system at "+l.bpffs, "operation not permitted", "mount -t bpf bpf "+l.bpffs)
	})
}

// withoutCapability runs f while this thread lacks a capability.
func withoutCapability(t *testing.T, capability int, f func()) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	require.NoError(t, unix.Capget(&header, &data[0]))
	reduced := data
	reduced[capability/32].Effective &^= 1 << (capability % 32)
	require.NoError(t, unix.Capset(&header, &reduced[0]))
	defer func() { require.NoError(t, unix.Capset(&header, &data[0])) }()
	f()
}
