// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/test/require"
)

// tinyDisk is a folder on a file system of 256 KiB, which only this test sees: the thread that runs
// it gets mounts of its own, and ends with the test.
func tinyDisk(t *testing.T) string {
	t.Helper()
	require.Root(t)
	dir := t.TempDir()
	runtime.LockOSThread() // and never unlocked
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNS))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700"))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := tinyDisk(t)
	s := open(t, dir)
	old := value{1, strings.Repeat("o", 1000)}
	save(t, s, old)
	big := value{2, strings.Repeat("n", 1<<20)}
	err := s.Save("state", 1, big)
	require.ErrorSays(t, err, "save state", "no space left on device", "the old content stays")
	wantFiles(t, dir, "state.json")
	wantLoad(t, dir, old)

	fill(t, filepath.Join(dir, "filler"))
	err = s.Save("state", 1, value{3, strings.Repeat("n", 10000)})
	require.ErrorSays(t, err, "save state", "no space left on device", "the old content stays")
	wantFiles(t, dir, "filler", "state.json")
	wantLoad(t, dir, old)

	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	save(t, s, value{4, "again"})
	wantLoad(t, dir, value{4, "again"})
}

// fill writes until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 1024)
	for range 1024 {
		if _, err := f.Write(block); err != nil {
			require.ErrorSays(t, err, "no space left on device")
			return
		}
	}
	t.Fatal("the disk does not get full")
}

func TestReadOnlyFolder(t *testing.T) {
	dir := tinyDisk(t)
	save(t, open(t, dir), value{1, "one"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad.json"), []byte("garbage"), 0o600))
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))

	s := open(t, dir)
	require.ErrorSays(t, s.Save("state", 1, value{2, "two"}), "save state", "read-only file system", "the old content stays")
	wantLoad(t, dir, value{1, "one"})
	_, err := s.Load("bad", 1, &value{})
	require.ErrorSays(t, err, "unreadable", "could not be set aside: read-only file system")
	wantFiles(t, dir, "bad.json", "state.json")
}
