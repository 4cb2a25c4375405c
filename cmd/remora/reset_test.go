// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/store"
	"github.com/remora-lb/remora/test/require"
)

// resetWorld has the state of two instances, a stale socket, and no pins.
type resetWorld struct{ bpffs, state, socket string }

func newResetWorld(t *testing.T) resetWorld {
	t.Helper()
	w := resetWorld{bpffs: t.TempDir(), state: t.TempDir()}
	w.socket = filepath.Join(t.TempDir(), "sock")
	for _, instance := range []string{"one", "other"} {
		s, err := store.Open(filepath.Join(w.state, instance))
		require.NoError(t, err)
		require.NoError(t, s.Save("drains", 1, []int{1}))
		require.NoError(t, s.Close())
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	return w
}

func (w resetWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.state}, parts...)...)
}

// reset runs the verb for the instance one.
func (w resetWorld) reset(more ...string) (string, error) {
	var out strings.Builder
	root := newRootCommand()
	root.SetOut(&out)
	root.SetArgs(append([]string{"reset", "--instance", "one", "--bpffs", w.bpffs, "--state-dir", w.state, "--socket", w.socket}, more...))
	err := root.Execute()
	return out.String(), err
}

func wantThere(t *testing.T, there bool, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Lstat(p); (err == nil) != there {
			t.Errorf("%s is there: %t, want %t", p, err == nil, there)
		}
	}
}

func TestResetState(t *testing.T) {
	w := newResetWorld(t)
	damaged, half, other := w.path("one", "rings.bad-20260102T030405.000000006Z"), w.path("one", "rings.new"), w.path("other", "drains.json")
	require.NoError(t, os.WriteFile(damaged, nil, 0o600))
	require.NoError(t, os.WriteFile(half, nil, 0o600))

	out, err := w.reset("--state")
	require.ErrorSays(t, err, "--yes")
	for _, path := range []string{w.path("one", "drains.json"), damaged, half, w.socket} {
		if !strings.Contains(out, path) {
			t.Errorf("%s is not in the list\n%s", path, out)
		}
		wantThere(t, true, path)
	}

	out, err = w.reset("--yes")
	require.NoError(t, err)
	wantThere(t, false, w.socket)
	wantThere(t, true, w.path("one", "drains.json"), damaged, half)
	if strings.Contains(out, w.state) {
		t.Errorf("state is listed without --state:\n%s", out)
	}

	_, err = w.reset("--yes", "--state")
	require.NoError(t, err)
	wantThere(t, false, w.path("one"))
	wantThere(t, true, other)

	out, err = w.reset("--yes", "--state")
	require.NoError(t, err)
	if !strings.Contains(out, "nothing is there") {
		t.Errorf("once more: %q", out)
	}
}

// What is not the daemon's stays, wherever the state folder is said to be.
func TestResetLeavesOtherFiles(t *testing.T) {
	w := newResetWorld(t)
	for _, name := range []string{"notes.txt", "Drains.json", "a.bad-news"} {
		require.NoError(t, os.WriteFile(w.path("one", name), nil, 0o600))
	}
	require.NoError(t, os.Remove(w.socket))
	require.NoError(t, os.WriteFile(w.socket, nil, 0o600))
	_, err := w.reset("--yes", "--state")
	require.NoError(t, err)
	wantThere(t, false, w.path("one", "drains.json"))
	wantThere(t, true, w.path("one", "notes.txt"), w.path("one", "Drains.json"), w.path("one", "a.bad-news"), w.socket)
}

func TestResetRefused(t *testing.T) {
	w := newResetWorld(t)
	pins := filepath.Join(w.bpffs, "remora", "one")
	require.NoError(t, os.MkdirAll(pins, 0o700))
	daemon, err := os.Open(pins)
	require.NoError(t, err)
	defer daemon.Close()
	require.NoError(t, unix.Flock(int(daemon.Fd()), unix.LOCK_EX))
	_, err = w.reset("--yes", "--state")
	require.ErrorSays(t, err, "in use")
	wantThere(t, true, w.path("one", "drains.json"), pins, w.socket)
	_, err = w.reset("--instance", "../one", "--yes", "--state")
	require.ErrorSays(t, err, `"../one"`)
}
