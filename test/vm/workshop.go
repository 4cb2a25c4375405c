// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// workshop is where images are made. There is one for each user of a machine, and one process at a
// time uses it.
type workshop struct {
	// cache is what remains for the next time: kernels, and consoles of machines that failed.
	cache string
	// dir is for this time.
	dir string
	// lock is held while the workshop is used.
	lock io.Closer
}

// newWorkshop fails if another process uses the workshop. The caller closes it.
func newWorkshop() (*workshop, error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	w := &workshop{cache: cache, dir: filepath.Join(cache, "run")}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make cache: %v", err)
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cache: %v", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache: %v: another run uses %s", err, cache), lock.Close())
	}
	w.lock = lock
	// What a killed run has left goes first.
	if err := errors.Join(os.RemoveAll(w.dir), os.MkdirAll(w.dir, 0o755)); err != nil {
		return nil, errors.Join(fmt.Errorf("make work folder: %v", err), lock.Close())
	}
	return w, nil
}

func (w *workshop) close() error { return errors.Join(os.RemoveAll(w.dir), w.lock.Close()) }

// cacheDir is the user's cache, or the machine's for root.
func cacheDir() (string, error) {
	if os.Getenv("XDG_CACHE_HOME") == "" && os.Geteuid() == 0 {
		return "/var/cache/remora/vm", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache: %v", err)
	}
	return filepath.Join(dir, "remora", "vm"), nil
}

// prepare makes sure that the kernel is in the cache and returns its folder.
func (w *workshop) prepare(ctx context.Context, series string) (string, error) {
	out, err := output(ctx, nil, "test/vm/prepare", series, w.cache)
	if err == nil {
		return strings.TrimSpace(out), nil
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == exitSkip {
		return "", fmt.Errorf("%w: the kernel %s is not to be had, see above", errSkip, series)
	}
	return "", fmt.Errorf("prepare kernel %s: %v", series, err)
}

// output runs a program of the host and returns what it writes; what it writes on standard error is
// shown. When the context ends, the program ends with all that it has started.
func output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), env...)
	// A group of its own: Ctrl-C at the terminal is for us, and we end it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	return string(out), err
}
