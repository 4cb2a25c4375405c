// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/control"
	"github.com/remora-lb/remora/lb/event"
	"github.com/remora-lb/remora/test/require"
)

// serveEvents serves a daemon with these events until the test ends, and returns the socket's path.
func serveEvents(t *testing.T, l *event.Log) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "control.sock")
	s, err := control.New(control.Config{Socket: socket, Daemon: newClientDaemon(t), Events: l})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ends with %v", err)
		}
	})
	awaitText(t, func() string {
		c, err := control.Dial(t.Context(), socket)
		if err != nil {
			return ""
		}
		c.Close()
		return "served"
	}, "served")
	return socket
}

// awaitText waits until the text has a part.
func awaitText(t *testing.T, text func() string, part string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(text(), part) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %q in %q", part, text())
		}
		<-tick.C
	}
}

// output is what a command wrote so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func someEvents(t *testing.T) *event.Log {
	l := event.NewLog(nil)
	l.Emit(event.Event{At: time.Unix(0, 0), Kind: event.KindHealth, Level: slog.LevelWarn, Service: "web", VIP: mustVIP(t, "192.0.2.10:80/tcp"),
		Real: netip.MustParseAddr("10.0.0.2"), From: "up", To: "down", Cause: "refused"})
	l.Emit(event.Event{At: time.Unix(0, 0), Kind: event.KindConfiguration, From: "in force", To: "reloaded"})
	return l
}

func TestEventsCommand(t *testing.T) {
	socket := serveEvents(t, someEvents(t))
	when := time.Unix(0, 0).Local().Format("2006-01-02 15:04:05.000")
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"text", nil, "! " + when + " health web 192.0.2.10:80/tcp 10.0.0.2: up -> down (refused)\n  " + when + " configuration: in force -> reloaded\n"},
		{"json", []string{"-o", "json"},
			`{"number":"1","at":"1970-01-01T00:00:00Z","kind":"health","warning":true,"service":"web","vip":"192.0.2.10:80/tcp","real":"10.0.0.2","source":"","peer":"","interface":"","from":"up","to":"down","cause":"refused"}` + "\n" +
				`{"number":"2","at":"1970-01-01T00:00:00Z","kind":"configuration","warning":false,"service":"","vip":"","real":"","source":"","peer":"","interface":"","from":"in force","to":"reloaded","cause":""}` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out output
			cmd := newRootCommand()
			cmd.SetOut(&out)
			cmd.SetArgs(append([]string{"events", "--socket", socket}, tc.args...))
			require.NoError(t, cmd.ExecuteContext(t.Context()))
			if out.String() != tc.want {
				t.Errorf("it prints\n%swant\n%s", out.String(), tc.want)
			}
		})
	}
}

func TestEventsFollow(t *testing.T) {
	l := someEvents(t)
	socket := serveEvents(t, l)
	var out output
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"events", "--follow", "--socket", socket})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	awaitText(t, out.String, "reloaded\n")
	for i := range 3 {
		l.Emit(event.Event{Kind: event.KindRing, From: "stable", To: fmt.Sprint("changing ", i)})
	}
	awaitText(t, out.String, "changing 2\n")
	cancel()
	require.NoError(t, <-done)
	if n := strings.Count(out.String(), "\n"); n != 5 {
		t.Errorf("it prints %d lines:\n%s", n, out.String())
	}
}

func TestEventsLost(t *testing.T) {
	l := event.NewLog(nil)
	for range event.Kept + 7 {
		l.Emit(event.Event{Kind: event.KindRing})
	}
	var out output
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"events", "--socket", serveEvents(t, l)})
	require.NoError(t, cmd.ExecuteContext(t.Context()))
	if first, _, _ := strings.Cut(out.String(), "\n"); first != "... 7 events are kept no more" {
		t.Errorf("it begins with %q", first)
	}
}

// TestEventLine: whatever servers and files say, an event is one line, and steers no terminal.
func TestEventLine(t *testing.T) {
	got := eventLine(&remorav1.Event{Kind: "health", Service: "web", From: "up", To: "down", Cause: "a\nb\x1b[2J \u202e"})
	if want := ` health web: up -> down ("a\nb\x1b[2J \u202e")`; !strings.HasSuffix(got, want) {
		t.Errorf("it is %q, want the end %q", got, want)
	}
	if got := eventLine(&remorav1.Event{Kind: "health", Cause: "größer \"x\""}); !strings.HasSuffix(got, `(größer "x")`) {
		t.Errorf("it is %q", got)
	}
}

// TestNoArguments: a verb without arguments says so.
func TestNoArguments(t *testing.T) {
	for _, args := range [][]string{{"drains", "9.9.9.9"}, {"events", "x"}, {"status", "x"}, {"version", "x"}} {
		cmd := newRootCommand()
		cmd.SetArgs(args)
		require.ErrorSays(t, cmd.ExecuteContext(t.Context()), "remora "+args[0]+" takes no arguments", args[1])
	}
}
