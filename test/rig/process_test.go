// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

func TestRun(t *testing.T) {
	l := newLab(t, Config{Servers: 1})
	for _, tc := range []struct {
		name, script string
		want, err    string
	}{
		{"output", "echo out; echo err >&2", "out\n", ""},
		{"failure", "echo out; echo why >&2; exit 3", "out\n", "exit status 3: "},
		{"in the namespace", "ls /sys/class/net >/dev/null; grep -c eth0 /proc/net/dev", "1\n", ""},
		{"sees the host's mounts", "test -d /sys/fs/bpf && echo yes", "yes\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := l.Servers[0].Run(testContext(t), "sh", "-c", tc.script)
			if got != tc.want {
				t.Errorf("output %q, want %q", got, tc.want)
			}
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		if _, err := l.Client.Run(testContext(t), "remora-no-such-program"); err == nil {
			t.Error("no error")
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		// The child of the shell must go with it, or Run waits for its output.
		if _, err := l.Client.Run(ctx, "sh", "-c", "sleep 600; true"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if pids, err := namespacePids(l.Client.Namespace); err != nil || len(pids) != 0 {
			t.Errorf("processes %v are left, error %v", pids, err)
		}
	})
}

func TestStop(t *testing.T) {
	l := newLab(t, Config{Servers: 1})
	for _, tc := range []struct {
		name, script, err string
	}{
		{"obeys", `echo ready; exec sleep 600`, ""},
		{"shell with a child", `echo ready; sleep 600; true`, ""},
		{"does not obey", `trap "" TERM; echo ready; while :; do sleep 0.1; done`, "still there"},
		{"already gone", `echo ready`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := l.Client.Start("sh", "-c", tc.script)
			if err != nil {
				t.Fatal(err)
			}
			err = WaitFor(testContext(t), "output", func() error {
				if p.Output() != "ready\n" {
					return errors.New("none yet")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Stop(200 * time.Millisecond)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("Stop returned %v, want %q", err, tc.err)
			}
			if err := p.Running(); !errors.Is(err, ErrExited) {
				t.Errorf("Running returned %v", err)
			}
			if alive(p.Pid()) {
				t.Errorf("process %d is still there", p.Pid())
			}
			if err := p.Kill(); err != nil {
				t.Errorf("Kill after Stop: %v", err)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	l := newLab(t, Config{Servers: 1})
	p, err := l.Client.Start("sh", "-c", `trap "echo got it" HUP; echo ready; while :; do sleep 0.05; done`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ready\n", "ready\ngot it\n"} {
		err := WaitFor(testContext(t), "output", func() error {
			if p.Output() != want {
				return errors.New("not yet")
			}
			return p.Running()
		})
		if err != nil {
			t.Fatal(err)
		}
		if want == "ready\n" {
			if err := p.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLeftoversOfKilledProcess(t *testing.T) {
	if os.Getenv("RIG_TEST_ABANDON") == "1" {
		abandonLab()
	}
	require.Root(t)
	h := startAbandoner(t)
	lab, child := h.lab, h.child

	if removed, err := RemoveLeftovers(); err != nil || contains(removed, lab) {
		t.Fatalf("removed %v of a living process, error %v", removed, err)
	}
	h.kill(t)
	// Its child goes with it, by the kernel's hand.
	if err := WaitFor(testContext(t), "the child to end", func() error {
		if alive(child) {
			return errors.New("still there")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	// Tests of other packages may remove it at the same time, so it counts only that it is gone.
	if _, err := RemoveLeftovers(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{netnsDir, os.TempDir()} {
		if left, err := filepath.Glob(filepath.Join(dir, lab+"*")); err != nil || len(left) != 0 {
			t.Errorf("left: %v, error %v", left, err)
		}
	}
	if removed, err := RemoveLeftovers(); err != nil || contains(removed, lab) {
		t.Errorf("the second time removed %v, error %v", removed, err)
	}
}

// contains tells whether one of the names is of the lab, or is the name itself.
func contains(names []string, lab string) bool {
	for _, n := range names {
		if n == lab || strings.HasPrefix(n, lab+"-") {
			return true
		}
	}
	return false
}
