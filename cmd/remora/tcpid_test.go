// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb/tcpid"
	"github.com/remora-lb/remora/test/require"
)

func TestTCPIDRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		says []string
	}{
		"no cgroup":     {[]string{"--client"}, []string{"cgroup"}},
		"neither":       {[]string{"--cgroup", "/x"}, []string{"server-id", "client", "detach"}},
		"both":          {[]string{"--cgroup", "/x", "--client", "--server-id", "1"}, []string{"server-id", "client"}},
		"id 0":          {[]string{"--cgroup", "/x", "--server-id", "0", "-o", "xml"}, []string{"--server-id 0 stands for none", `--output "xml"`}},
		"interval":      {[]string{"--cgroup", "/x", "--client", "--interval", "-1s"}, []string{"--interval -1s"}},
		"no such group": {[]string{"--cgroup", "/x", "--client"}, []string{`open "/x"`}},
		"not pinned":    {[]string{"--cgroup", os.TempDir(), "--detach"}, []string{"nothing is pinned"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := runRoot(t, "", append([]string{"tcp-id"}, tc.args...)...)
			require.ErrorSays(t, err, tc.says...)
		})
	}
}

// TestTCPIDPin attaches, leaves and detaches; lb/tcpid tests what happens meanwhile.
func TestTCPIDPin(t *testing.T) {
	require.Root(t)
	// Trees of their own, so that the machine's are left alone.
	cgroups, bpffs := t.TempDir(), t.TempDir()
	for folder, kind := range map[string]string{cgroups: "cgroup2", bpffs: "bpf"} {
		require.NoError(t, unix.Mount(kind, folder, kind, 0, ""))
		t.Cleanup(func() { require.NoError(t, unix.Unmount(folder, 0)) })
	}
	// A second mount shows the same cgroups, so the name must be nobody else's.
	cgroup, err := os.MkdirTemp(cgroups, "remora-test-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(cgroup)) })

	_, log, err := runRoot(t, "", "tcp-id", "--cgroup", cgroup, "--server-id", "12", "--pin", "--bpffs", bpffs)
	require.NoError(t, err)
	if !strings.Contains(log, "server_id=12") {
		t.Errorf("log %q", log)
	}
	_, _, err = runRoot(t, "", "tcp-id", "--cgroup", cgroup, "--client", "--bpffs", bpffs)
	require.ErrorSays(t, err, "says ids already")
	out, _, err := runRoot(t, "", "tcp-id", "--cgroup", cgroup, "--detach", "--bpffs", bpffs, "-o", "json")
	require.NoError(t, err)
	var c tcpid.Counters
	require.NoError(t, json.Unmarshal([]byte(out), &c))
	if c != (tcpid.Counters{}) {
		t.Errorf("counters of nothing: %+v", c)
	}
	if left, _ := filepath.Glob(filepath.Join(bpffs, "remora*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
