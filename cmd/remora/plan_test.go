// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

func TestPlanRefusesWhatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "remora.yaml")
	require.NoError(t, os.WriteFile(file, []byte("interface: lan0\nservices:\n  - {name: web, vips: [\"192.0.2.10:80/tcp\"], backends: [10.20.0.11]}\n"), 0o600))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no VIP":      {[]string{"--drain", "10.20.0.11"}, "not VIP/BACKEND"},
		"bad VIP":     {[]string{"--drain", "192.0.2.10:80/10.20.0.11"}, "parse VIP"},
		"bad backend": {[]string{"--drain", "192.0.2.10:80/tcp/x"}, "not an IPv4 or IPv6 address"},
		"no weight":   {[]string{"--weight", "192.0.2.10:80/tcp/10.20.0.11"}, "VIP/BACKEND=WEIGHT"},
		"nobody":      {[]string{"--weight", "192.0.2.10:80/tcp/10.20.0.99=3"}, "no backend 192.0.2.10:80/tcp 10.20.0.99"},
		"output":      {[]string{"-o", "yaml"}, "not text or json"},
		"instance":    {[]string{"--instance", "no-such-instance"}, "no such instance"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newRootCommand()
			var out bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			cmd.SetArgs(append([]string{"plan", "-c", file}, c.args...))
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) || exitStatus(err) != 1 {
				t.Errorf("error %v, want %q", err, c.says)
			}
		})
	}
}
