// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

// fakeProber says what it is told to.
type fakeProber struct{ alive, ready []Condition }

func (p *fakeProber) Alive(time.Time) []Condition { return p.alive }
func (p *fakeProber) Ready(time.Time) []Condition { return p.ready }

// start runs a server until the test ends. The returned function ends it before.
func start(t *testing.T, cfg ServerConfig) (*Server, func()) {
	t.Helper()
	if cfg.Collector == nil {
		cfg.Collector = collector(t, &fakeSource{full()}, nil)
	}
	if cfg.Prober == nil {
		cfg.Prober = &fakeProber{}
	}
	cfg.Retry = time.Millisecond
	s, err := NewServer(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ends with %v", err)
		}
		if s.Status().Serving {
			t.Error("it says that it serves after its end")
		}
	}
	t.Cleanup(stop)
	return s, stop
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

// socketServer serves on a socket, with a client for it.
func socketServer(t *testing.T, cfg ServerConfig) (*http.Client, string, func()) {
	t.Helper()
	cfg.Listen = filepath.Join(t.TempDir(), "metrics.sock")
	s, stop := start(t, cfg)
	await(t, "the server", func() bool { return s.Status().Serving })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", cfg.Listen)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, cfg.Listen, stop
}

// get returns status, content type and body.
func get(t *testing.T, c *http.Client, path string, header ...string) (int, string, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost"+path, nil)
	require.NoError(t, err)
	for _, h := range header {
		req.Header.Set("Accept", h)
	}
	res, err := c.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, res.Header.Get("Content-Type"), string(body)
}

func TestServerMetrics(t *testing.T) {
	c, socket, stop := socketServer(t, ServerConfig{})
	info, err := os.Stat(socket)
	require.NoError(t, err)
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	status, _, body := get(t, c, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, line := range []string{`remora_real_packets_total{real="10.0.0.11",service="web",vip="192.0.2.1:80/tcp"} 10`, "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(body, line) {
			t.Errorf("it lacks %s", line)
		}
	}
	if status, _, _ := get(t, c, "/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("profiles that were not asked for: status %d", status)
	}
	if status, _, body := get(t, c, "/"); status != http.StatusNotFound || !strings.Contains(body, "/readyz") {
		t.Errorf("at another path: status %d, %s", status, body)
	}
	res, err := c.Post("http://localhost/metrics", "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	res.Body.Close()
	if res.StatusCode == http.StatusOK {
		t.Error("it takes POST")
	}
	stop()
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
}

func TestServerProfiles(t *testing.T) {
	c, _, _ := socketServer(t, ServerConfig{PProf: true})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if status, _, _ := get(t, c, path); status != http.StatusOK {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

func TestServerHealth(t *testing.T) {
	good, bad := Condition{Name: "engine", OK: true}, Condition{Name: "sources", Detail: "nothing is known yet of api"}
	c, _, _ := socketServer(t, ServerConfig{Prober: &fakeProber{alive: []Condition{good}, ready: []Condition{good, bad}}})
	for _, tc := range []struct {
		name, path, accept string
		status             int
		kind, body         string
	}{
		{"alive", "/healthz", "", 200, "text/plain; charset=utf-8", "engine: ok\n"},
		{"not ready", "/readyz", "", 503, "text/plain; charset=utf-8", "engine: ok\nsources: NOT OK, nothing is known yet of api\n"},
		{"asked for", "/healthz?format=json", "", 200, "application/json", `{"ok":true,"conditions":[{"name":"engine","ok":true}]}` + "\n"},
		{"accepted", "/readyz", "text/html, application/json", 503, "application/json",
			`{"ok":false,"conditions":[{"name":"engine","ok":true},{"name":"sources","ok":false,"detail":"nothing is known yet of api"}]}` + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, kind, body := get(t, c, tc.path, tc.accept)
			if status != tc.status || kind != tc.kind || body != tc.body {
				t.Errorf("it answers %d %s %q, want %d %s %q", status, kind, body, tc.status, tc.kind, tc.body)
			}
			if strings.HasPrefix(kind, "application/json") && !json.Valid([]byte(body)) {
				t.Error("this is no JSON")
			}
		})
	}
}

// TestServerRetries: a port that is another's is said so, and taken when it is free.
func TestServerRetries(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	s, _ := start(t, ServerConfig{Listen: other.Addr().String()})
	await(t, "the failure", func() bool { return strings.Contains(s.Status().Error, "address already in use") })
	if s.Status().Serving {
		t.Error("it says that it serves")
	}
	other.Close()
	await(t, "the server", func() bool { return s.Status().Serving && s.Status().Error == "" })
	res, err := http.Get(fmt.Sprintf("http://%s/healthz", s.Status().Listen))
	require.NoError(t, err)
	res.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestServerSockets(t *testing.T) {
	t.Run("abandoned", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "metrics.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		l.Close()
		s, _ := start(t, ServerConfig{Listen: path})
		await(t, "the server", func() bool { return s.Status().Serving })
	})
	t.Run("another's", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "metrics.sock")
		l, err := net.Listen("unix", path)
		require.NoError(t, err)
		defer l.Close()
		s, _ := start(t, ServerConfig{Listen: path})
		await(t, "the refusal", func() bool { return strings.Contains(s.Status().Error, "served by another process") })
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "precious")
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
		s, stop := start(t, ServerConfig{Listen: path})
		await(t, "the refusal", func() bool { return strings.Contains(s.Status().Error, "is no socket") })
		stop()
		if text, err := os.ReadFile(path); err != nil || string(text) != "x" {
			t.Errorf("the file has %q, error %v", text, err)
		}
	})
}

func TestServerRefuses(t *testing.T) {
	_, err := NewServer(ServerConfig{Retry: -1})
	require.ErrorSays(t, err, "Listen: there is none", "Collector: there is none", "Prober: there is none", "Retry: -1ns is negative")
}
