// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// eventually waits until reached returns nil.
func eventually(t *testing.T, reached func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := reached()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatal(err)
		case <-ticker.C:
		}
	}
}

// noLeaks fails the test if at its end it has more goroutines, files or children than now. It must
// be called before anything is started.
func noLeaks(t *testing.T) {
	t.Helper()
	// The first file that can be polled makes the runtime open some of its own.
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Close()
	w.Close()
	goroutines, files := runtime.NumGoroutine(), countFiles(t)
	t.Cleanup(func() {
		eventually(t, func() error {
			if n := runtime.NumGoroutine(); n > goroutines {
				buf := make([]byte, 1<<16)
				return errors.New("goroutines are left:\n" + string(buf[:runtime.Stack(buf, true)]))
			}
			if n := countFiles(t); n > files {
				return fmt.Errorf("%d files, %d at the beginning: %s", n, files, output(t, "ls", "-l", fmt.Sprintf("/proc/%d/fd", os.Getpid())))
			}
			return nil
		})
		if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
			t.Errorf("a child is left (%v)", err)
		}
	})
}

func countFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// isolatedTest is the variable that tells a process which test it was started for.
const isolatedTest = "REMORA_ISOLATED_TEST"

// isolated runs the calling test again, in a process with a network namespace of its own that is
// gone with it. It returns true in that process, where the test does its work.
func isolated(t *testing.T, tools ...string) bool {
	t.Helper()
	if os.Getenv(isolatedTest) == t.Name() {
		command(t, "ip", "link", "set", "lo", "up")
		return true
	}
	require.Root(t)
	require.Tools(t, append(tools, "ip")...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), isolatedTest+"="+t.Name())
	cmd.SysProcAttr = notOutliving(t)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace of its own: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("in a namespace of its own:\n%s", out)
	}
	return false
}

// notOutliving has the kernel end a child together with this process, however that ends. The signal
// is sent when the thread goes that has started the child, so the test keeps its thread.
func notOutliving(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	output(t, name, args...)
}

// daemon runs a program until the end of the test.
func daemon(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	out := &bounded{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = notOutliving(t)
	cmd.SysProcAttr.Setpgid = true
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", name, out.b)
		}
	})
}

// listening waits until a TCP port accepts connections.
func listening(t *testing.T, addr string) {
	t.Helper()
	eventually(t, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// serveTCP has f serve connections, each in a goroutine, until the end of the test, when they are
// closed.
func serveTCP(t *testing.T, addr string, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			go func() {
				defer stop()
				defer c.Close()
				f(c)
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		cancel()
		<-done
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

// hold keeps a connection and says nothing, until the other end goes.
func hold(c net.Conn) {
	buf := make([]byte, 1024)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// check runs one probe.
func check(t *testing.T, k Kind, target Target, timeout time.Duration) Result {
	t.Helper()
	p, err := k.Probe()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return p.Check(ctx, target)
}

// at is a target without anything special.
func at(addr string) Target { return Target{Addr: netip.MustParseAddrPort(addr)} }

// want fails the test unless the result has the reason and says the text.
func want(t *testing.T, r Result, reason Reason, text string) {
	t.Helper()
	if r.Reason != reason || !strings.Contains(r.Detail, text) {
		t.Errorf("result %q, want reason %s and a detail with %q", r, reason, text)
	}
	if r.Duration <= 0 {
		t.Errorf("duration %v", r.Duration)
	}
}

// running starts a scheduler with checks; it ends with the test.
func running[ID comparable](t *testing.T, cfg Config[ID], checks map[ID]Check) *Scheduler[ID] {
	t.Helper()
	s, err := New(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Set(checks))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// output runs a program to its end and returns what it wrote.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // cleanups use it too
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fieldsAfter are the words of s after a word.
func fieldsAfter(s, word string) []string {
	_, after, _ := strings.Cut(s, word)
	return strings.Fields(after)
}
