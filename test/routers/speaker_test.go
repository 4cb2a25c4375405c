// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

//go:debug multipathtcp=0

package routers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/remora-lb/remora/bgp"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// speakerArg makes this test binary a BGP speaker, which a test can kill or freeze.
const speakerArg = "speaker"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == speakerArg {
		if err := runSpeaker(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The tests mostly wait, so more of them run at once than there are processors.
	flag.Parse()
	if err := flag.Set("test.parallel", "5"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// speakerConfig is the part of bgp.Config that can be written to a file.
type speakerConfig struct {
	ASN             uint32
	RouterID        netip.Addr
	ListenPort      int
	Peers           []bgp.Peer
	GracefulRestart bgp.GracefulRestart
	Restarting      bool
}

// runSpeaker is a process with a speaker that takes commands by HTTP over a unix socket. It ends
// by the command stop (for good) or leave (as for an upgrade).
func runSpeaker(configPath, socket string) error {
	b, err := os.ReadFile(configPath)
	if err != nil {
		return err
	}
	var cfg speakerConfig
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	s, err := bgp.New(bgp.Config{
		ASN: cfg.ASN, RouterID: cfg.RouterID, ListenPort: cfg.ListenPort, Peers: cfg.Peers,
		GracefulRestart: cfg.GracefulRestart, Restarting: cfg.Restarting,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: speakerCommands(s, leave)}
	go server.Serve(listener)
	err = s.Run(ctx)
	// The command that ended it gets its answer.
	return errors.Join(err, server.Shutdown(context.Background()))
}

func speakerCommands(s *bgp.Speaker, leave func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /routes", func(w http.ResponseWriter, r *http.Request) {
		var routes []bgp.Route
		err := json.NewDecoder(r.Body).Decode(&routes)
		if err == nil {
			err = s.Announce(r.Context(), routes)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(s.Sessions())
	})
	mux.HandleFunc("POST /stop", func(w http.ResponseWriter, r *http.Request) {
		if err := s.Stop(r.Context(), 200*time.Millisecond); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /leave", func(http.ResponseWriter, *http.Request) { leave() })
	return mux
}

// speaker is a speaker in another process.
type speaker struct {
	*rig.Process
	client *http.Client
}

// startSpeaker starts a speaker in a node. A later one takes the place of an earlier one that has
// ended.
func startSpeaker(t *testing.T, lab *rig.Lab, node *rig.Node, cfg speakerConfig) *speaker {
	t.Helper()
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	config := filepath.Join(lab.Dir, node.Name+".json")
	socket := filepath.Join(lab.Dir, node.Name+".sock")
	require.NoError(t, os.WriteFile(config, b, 0o600))
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	p, err := node.Start(self, speakerArg, config, socket)
	require.NoError(t, err)
	s := &speaker{p, &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
	t.Cleanup(func() {
		// A frozen process would not end in another way.
		require.NoError(t, p.Kill())
		if t.Failed() {
			t.Logf("speaker in %s wrote:\n%s", node.Name, tail(p.Output()))
		}
	})
	eventually(t, "the speaker's socket", func(context.Context) error {
		if err := p.Running(); err != nil {
			return err
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return s
}

// tail is the end of a long text.
func tail(s string) string { return s[max(0, len(s)-6000):] }

func (s *speaker) command(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	b, err := json.Marshal(body)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(testContext(t), method, "http://speaker"+path, bytes.NewReader(b))
	require.NoError(t, err)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s, error %v", method, path, resp.Status, text, err)
	}
	if answer != nil {
		require.NoError(t, json.Unmarshal(text, answer))
	}
}

// announce hands over the whole set of routes.
func (s *speaker) announce(t *testing.T, routes ...bgp.Route) {
	t.Helper()
	s.command(t, "PUT", "/routes", routes, nil)
}

func (s *speaker) sessions(t *testing.T) (sessions []bgp.Session) {
	t.Helper()
	s.command(t, "GET", "/sessions", nil, &sessions)
	return sessions
}

// waitSessions waits until all sessions of the speaker fulfil the condition.
func (s *speaker) waitSessions(t *testing.T, what string, ok func(bgp.Session) bool) {
	t.Helper()
	eventually(t, what, func(context.Context) error {
		if err := s.Running(); err != nil {
			return err
		}
		sessions := s.sessions(t)
		if i := slices.IndexFunc(sessions, func(x bgp.Session) bool { return !ok(x) }); i >= 0 {
			return fmt.Errorf("session %+v", sessions[i])
		}
		return nil
	})
}

func (s *speaker) waitEstablished(t *testing.T) {
	t.Helper()
	s.waitSessions(t, "sessions to be established", func(x bgp.Session) bool { return x.State == bgp.Established })
}
