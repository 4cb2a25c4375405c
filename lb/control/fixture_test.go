// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

// The daemon of the tests has these.
var (
	vip4   = lb.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: lb.TCP}
	vip6   = lb.VIP{Addr: netip.MustParseAddr("2001:db8:ff::10"), Port: 443, Protocol: lb.UDP}
	shared = netip.MustParseAddr("10.20.0.11") // of both VIPs
	only4  = netip.MustParseAddr("10.20.0.12")
	only6  = netip.MustParseAddr("2001:db8:20::13")
	began  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// fakeDaemon drains at once and remembers a document. Each method of it can be replaced.
type fakeDaemon struct {
	status func(context.Context) (Status, error)
	drains func(context.Context, Selection) ([]Drain, error)
	export func(context.Context, io.Writer) error
	load   func(context.Context, io.Reader) (Imported, error)

	mu       sync.Mutex // guards what follows
	drained  []Drain
	timeout  time.Duration // of the last drain
	document []byte
	node     *BGP // nil: none
}

func (f *fakeDaemon) Status(ctx context.Context) (Status, error) {
	if f.status != nil {
		return f.status(ctx)
	}
	real := func(v lb.VIP, b netip.Addr) Real { return Real{Real: lb.Real{VIP: v, Backend: lb.Backend{Addr: b}}} }
	return Status{Services: []Service{
		{Name: "a", VIPs: []VIP{{VIPEntry: lb.VIPEntry{VIP: vip4}, Reals: []Real{real(vip4, shared), real(vip4, only4)}}}},
		{Name: "b", VIPs: []VIP{{VIPEntry: lb.VIPEntry{VIP: vip6}, Reals: []Real{real(vip6, shared), real(vip6, only6)}}}},
	}}, nil
}

// named are the targets that a selection names.
func (f *fakeDaemon) named(s Selection) ([]lb.Target, error) {
	all := []lb.Target{{VIP: vip4, Backend: shared}, {VIP: vip4, Backend: only4}, {VIP: vip6, Backend: shared}, {VIP: vip6, Backend: only6}}
	named := slices.DeleteFunc(all, func(t lb.Target) bool { return !s.Names(t) })
	if len(named) == 0 {
		return nil, &Error{Code: CodeNotFound, Problem: "no such backend"}
	}
	return named, nil
}

func (f *fakeDaemon) Drain(_ context.Context, s Selection, timeout time.Duration) (drains []Drain, err error) {
	targets, err := f.named(s)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timeout = timeout
	for _, t := range targets {
		f.forget(t)
		d := Drain{Target: t, Since: began, Deadline: began.Add(timeout), Slots: 100, Flows: 7, Active: 3}
		drains = append(drains, d)
		f.drained = append(f.drained, d)
	}
	return drains, nil
}

func (f *fakeDaemon) Undrain(_ context.Context, s Selection) (ended []lb.Target, err error) {
	targets, err := f.named(s)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range targets {
		if f.forget(t) {
			ended = append(ended, t)
		}
	}
	return ended, nil
}

// forget ends a drain, and tells whether there was one.
func (f *fakeDaemon) forget(t lb.Target) bool {
	n := len(f.drained)
	f.drained = slices.DeleteFunc(f.drained, func(d Drain) bool { return d.Target == t })
	return len(f.drained) < n
}

func (f *fakeDaemon) Drains(ctx context.Context, s Selection) ([]Drain, error) {
	if f.drains != nil {
		return f.drains(ctx, s)
	}
	if _, err := f.named(s); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.drained), func(d Drain) bool { return !s.Names(d.Target) }), nil
}

func (f *fakeDaemon) DrainNode(_ context.Context, on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.node == nil {
		return &Error{Code: CodeRefused, Problem: "nothing is announced", Cure: "configure bgp"}
	}
	f.node.Drained = on
	return nil
}

func (f *fakeDaemon) ExportState(ctx context.Context, w io.Writer) error {
	if f.export != nil {
		return f.export(ctx, w)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := w.Write(f.document)
	return err
}

func (f *fakeDaemon) ImportState(ctx context.Context, r io.Reader) (Imported, error) {
	if f.load != nil {
		return f.load(ctx, r)
	}
	document, err := io.ReadAll(r)
	if err != nil {
		return Imported{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.document = document
	return Imported{Rings: 2, RingsSkipped: 1, Flows: len(document), FlowsSkipped: 3}, nil
}

// logBuffer is a log that several may write to.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// served is a server that runs.
type served struct {
	socket string
	log    *logBuffer
	stop   func() // waits until it has stopped
}

// setup changes a server before it runs.
type setup func(*Config, *bounds)

// serve runs a server until the test ends, and then fails the test if it leaves anything behind.
func serve(t *testing.T, d Daemon, setups ...setup) *served {
	t.Helper()
	noLeaks(t)
	s := &served{log: new(logBuffer)}
	cfg := Config{Socket: filepath.Join(socketDir(t), "control.sock"), Daemon: d, WatchInterval: time.Millisecond, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	b := defaultBounds()
	for _, change := range setups {
		change(&cfg, &b)
	}
	s.socket = cfg.Socket
	server, err := New(cfg)
	require.NoError(t, err)
	server.bounds = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ends with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not stop")
		}
		if _, err := os.Lstat(s.socket); err == nil {
			t.Error("the socket is still there")
		}
	})
	t.Cleanup(s.stop)
	await(t, "the server", func() bool { return strings.Contains(s.log.String(), "control API served") })
	return s
}

// socketDir is a folder that every user can reach.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "remora-control-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// client dials a server.
func (s *served) client(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context(), s.socket)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// await waits for a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
		<-tick.C
	}
}

// noLeaks fails the test if goroutines are left when it has cleaned up.
func noLeaks(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, there were %d:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
				return
			}
			<-tick.C
		}
	})
}

// asUser calls do on a thread of another user, which ends with it. The credentials are the thread's
// alone: do must not leave its goroutine.
func asUser(t *testing.T, uid, gid int, groups []uint32, do func()) {
	t.Helper()
	require.Root(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: Go ends the thread
		done <- becomeUser(uid, gid, groups, do)
	}()
	require.NoError(t, <-done)
}

func becomeUser(uid, gid int, groups []uint32, do func()) error {
	var list *uint32
	if len(groups) > 0 {
		list = &groups[0]
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(list)), 0); errno != 0 {
		return fmt.Errorf("setgroups: %v", errno)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("setresgid: %v", errno)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("setresuid: %v", errno)
	}
	do()
	return nil
}
