// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb/api/remora/v1/remorav1connect"
	"github.com/remora-lb/remora/test/require"
)

const nobody = 65534

func TestConfigProblems(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"nothing", Config{}, []string{"Socket: ", "Daemon: there is none"}},
		{"long path", Config{Socket: strings.Repeat("x", 108), Daemon: &fakeDaemon{}}, []string{"has 108 bytes, not 1 to 107"}},
		{"mode", Config{Socket: "x", Daemon: &fakeDaemon{}, Mode: fs.ModeSetuid | 0o660}, []string{"Mode: "}},
		{"group", Config{Socket: "x", Daemon: &fakeDaemon{}, Group: "no-such-group"}, []string{`Group: there is no group "no-such-group"`}},
		{"interval", Config{Socket: "x", Daemon: &fakeDaemon{}, WatchInterval: -1}, []string{"WatchInterval: -1ns is negative"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.cfg)
			require.ErrorSays(t, err, tc.want...)
		})
	}
}

func TestSocketFile(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		mode fs.FileMode
		gid  uint32
	}{
		{"default", Config{}, 0o660, uint32(os.Getgid())},
		{"for all", Config{Mode: 0o666}, 0o666, uint32(os.Getgid())},
		{"of a group", Config{Group: "65534"}, 0o660, 65534},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Root(t)
			s := serve(t, &fakeDaemon{}, func(c *Config, _ *bounds) {
				c.Mode, c.Group = tc.cfg.Mode, tc.cfg.Group
				c.Socket = filepath.Join(filepath.Dir(c.Socket), "new", "x.sock")
			})
			info, err := os.Lstat(s.socket)
			require.NoError(t, err)
			if gid := info.Sys().(*syscall.Stat_t).Gid; info.Mode() != fs.ModeSocket|tc.mode || gid != tc.gid {
				t.Errorf("the socket has mode %v and group %d", info.Mode(), gid)
			}
			folder, err := os.Stat(filepath.Dir(s.socket))
			require.NoError(t, err)
			if folder.Mode().Perm() != 0o755 {
				t.Errorf("the folder has mode %v", folder.Mode())
			}
		})
	}
}

// TestWhatIsThere: a socket that is left is replaced; what is served, or is no socket, stays.
func TestWhatIsThere(t *testing.T) {
	run := func(t *testing.T, socket string) error {
		s, err := New(Config{Socket: socket, Daemon: &fakeDaemon{}})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return s.Run(ctx)
	}
	t.Run("left socket", func(t *testing.T) {
		socket := filepath.Join(socketDir(t), "left.sock")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		require.NoError(t, err)
		l.SetUnlinkOnClose(false)
		l.Close()
		require.NoError(t, run(t, socket))
	})
	t.Run("served socket", func(t *testing.T) {
		first := serve(t, &fakeDaemon{})
		require.ErrorSays(t, run(t, first.socket), "another process serves "+first.socket)
		_, err := first.client(t).Status(t.Context())
		require.NoError(t, err)
	})
	t.Run("file", func(t *testing.T) {
		file := filepath.Join(socketDir(t), "file")
		require.NoError(t, os.WriteFile(file, []byte("text"), 0o600))
		require.ErrorSays(t, run(t, file), file+" is there and is no socket")
		if text, err := os.ReadFile(file); err != nil || string(text) != "text" {
			t.Errorf("the file is now %q, %v", text, err)
		}
	})
	t.Run("folder that is a file", func(t *testing.T) {
		file := filepath.Join(socketDir(t), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		require.ErrorSays(t, run(t, filepath.Join(file, "x.sock")), "serve control API: mkdir "+file)
	})
}

// TestPeers connects as several users to a socket that lets all connect.
func TestPeers(t *testing.T) {
	require.Root(t)
	const group = 12345
	s := serve(t, &fakeDaemon{}, func(c *Config, _ *bounds) { c.Mode = 0o666 })
	g := serve(t, &fakeDaemon{}, func(c *Config, _ *bounds) { c.Mode, c.Group = 0o666, "65534" })
	many := make([]uint32, 300) // more than fit the first buffer
	for i := range many {
		many[i] = group + uint32(i)
	}
	for _, tc := range []struct {
		name     string
		socket   string
		uid, gid int
		groups   []uint32
		refused  []string // empty: allowed
	}{
		{"root", s.socket, 0, 0, nil, nil},
		{"another", s.socket, nobody, nobody, nil, []string{"user 65534 (nobody) may not use the control API; use sudo"}},
		{"without a name", s.socket, 54321, nobody, nil, []string{"user 54321 may not"}},
		{"not of the group", g.socket, 54321, group, many, []string{"user 54321 may not", "become a member of the group 65534"}},
		{"of the group", g.socket, 54321, nobody, nil, nil},
		{"also of the group", g.socket, 54321, group, []uint32{group, 65534}, nil},
		{"of many groups", g.socket, 54321, group, append(many, 65534), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var conn net.Conn
			var err error
			asUser(t, tc.uid, tc.gid, tc.groups, func() { conn, err = net.Dial("unix", tc.socket) })
			require.NoError(t, err)
			_, err = unary(t.Context(), clientOn(t, conn).GetStatus, nil)
			if len(tc.refused) == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorSays(t, err, tc.refused...)
			if e := err.(*Error); e.Code != CodeDenied {
				t.Errorf("code %d", e.Code)
			}
		})
	}
}

// clientOn is a client that has one connection.
func clientOn(t *testing.T, conn net.Conn) remorav1connect.ControlClient {
	t.Helper()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		conn.Close()
	})
	return remorav1connect.NewControlClient(&http.Client{Transport: tr}, "http://localhost")
}

// TestDial: each reason for which there is no connection has its cure.
func TestDial(t *testing.T) {
	dir := socketDir(t)
	left := filepath.Join(dir, "left.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, tc := range []struct {
		name, socket string
		want         []string
	}{
		{"no socket", filepath.Join(dir, "none.sock"), []string{"no daemon serves " + dir + "/none.sock: there is no such socket", "start `remora run`"}},
		{"left socket", left, []string{"no daemon serves " + left + ": the one that did has ended"}},
		{"long path", strings.Repeat("x", 200), []string{"connect to the daemon at xxx", "invalid argument"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Dial(t.Context(), tc.socket)
			require.ErrorSays(t, err, tc.want...)
		})
	}
	t.Run("no permission", func(t *testing.T) {
		s := serve(t, &fakeDaemon{})
		var err error
		asUser(t, nobody, nobody, nil, func() { _, err = Dial(t.Context(), s.socket) })
		require.ErrorSays(t, err, "you may not connect to the daemon at "+s.socket, "use sudo")
	})
}

// TestUnprivileged: a process of another user gets a refusal of the kernel's, or one of ours that it
// can read.
func TestUnprivileged(t *testing.T) {
	require.Root(t)
	require.Tools(t, "curl")
	for _, tc := range []struct {
		mode fs.FileMode
		want string
	}{
		{0o660, "curl: (7)"},
		{0o666, `{"code":"permission_denied","message":"user 65534 (nobody) may not use the control API","details":[`},
	} {
		t.Run(fmt.Sprintf("mode %o", tc.mode), func(t *testing.T) {
			s := serve(t, &fakeDaemon{}, func(c *Config, _ *bounds) { c.Mode = tc.mode })
			cmd := exec.CommandContext(t.Context(), "curl", curlArgs(s.socket, "GetStatus", "{}")...)
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			out, _ := cmd.CombinedOutput() // the exit status differs
			if !strings.Contains(string(out), tc.want) {
				t.Errorf("curl says %q, want %q", out, tc.want)
			}
		})
	}
}

func curlArgs(socket, method, body string) []string {
	return []string{"--silent", "--show-error", "--max-time", "20", "--unix-socket", socket,
		"--json", body, "http://localhost/remora.v1.Control/" + method}
}
