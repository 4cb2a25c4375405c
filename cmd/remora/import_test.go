// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/test/require"
)

// runRoot gives what a verb prints on standard output and standard error.
func runRoot(t *testing.T, stdin string, args ...string) (out, errs string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := newRootCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

const smallDump = `{"vips": [{"address": "192.0.2.1", "port": 80, "protocol": "tcp", "reals": [{"address": "10.0.0.1", "weight": 1}]}]}`

func TestImportKatran(t *testing.T) {
	folder := t.TempDir()
	dump, file := filepath.Join(folder, "dump.json"), filepath.Join(folder, "remora.yaml")
	require.NoError(t, os.WriteFile(dump, []byte(smallDump), 0o600))

	out, errs, err := runRoot(t, "", "import", "katran", "-o", file, "--flows", "katran", dump)
	require.NoError(t, err)
	if out != "" || errs != "remora: settings: the interface is not in the dump: eth0 is a guess\n" {
		t.Errorf("standard output %q, standard error %q", out, errs)
	}
	c, err := config.Load(file)
	require.NoError(t, err)
	if c.Interface != "eth0" || len(c.Services) != 1 || c.Services[0].VIPs[0].Flows.String() != "always" {
		t.Errorf("got %+v", c)
	}

	out, errs, err = runRoot(t, smallDump, "import", "katran", "--strict", "--interface", "eth7", "-")
	require.NoError(t, err)
	if !strings.Contains(out, "interface: eth7\n") || errs != "" {
		t.Errorf("standard output %q, standard error %q", out, errs)
	}
}

func TestImportKatranRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "remora.yaml")
	for name, tc := range map[string]struct {
		stdin string
		args  []string
		says  string
	}{
		"strict":       {smallDump, []string{"--strict", "-"}, "1 thing not carried over: nothing is written"},
		"no dump":      {"{", []string{"-"}, "cut off"},
		"no file":      {"", []string{file + ".json"}, "read dump: open "},
		"flows":        {smallDump, []string{"--flows", "all", "-"}, `--flows "all"`},
		"no interface": {smallDump, []string{"--interface", "a/b", "-"}, "not an interface name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := runRoot(t, tc.stdin, append([]string{"import", "katran", "-o", file}, tc.args...)...)
			require.ErrorSays(t, err, tc.says)
			if _, err := os.Stat(file); !os.IsNotExist(err) {
				t.Errorf("a file is written: %v", err)
			}
		})
	}
}

func TestCheckCompat(t *testing.T) {
	file := filepath.Join(t.TempDir(), "remora.yaml")
	write := func(more string) {
		t.Helper()
		require.NoError(t, os.WriteFile(file, []byte(`
interface: eth0
services:
  - {name: web, vips: [192.0.2.10:80/tcp, 192.0.2.11:80/tcp, 192.0.2.12:80/tcp], `+more+`backends: [10.0.0.1]}
`), 0o600))
	}
	write("")
	out, _, err := runRoot(t, "", "check", "-c", file, "--compat", "katran")
	require.NoError(t, err)
	if strings.Count(out, "transitions") != 1 || !strings.Contains(out, "behaviour: 192.0.2.10:80/tcp and 2 more: flows are remembered") {
		t.Errorf("got %s", out)
	}
	write("ring: {size: 4093}, ")
	out, _, err = runRoot(t, "", "check", "-c", file, "--compat", "katran")
	require.ErrorSays(t, err, "must not run beside Katran: 1 difference")
	if exitStatus(err) != 2 || !strings.HasPrefix(out, "choice: 192.0.2.10:80/tcp and 2 more: ring of 4093 slots") {
		t.Errorf("status %d, got %s", exitStatus(err), out)
	}
	_, _, err = runRoot(t, "", "check", "-c", file, "--compat", "haproxy")
	require.ErrorSays(t, err, `--compat "haproxy": expected katran`)
	_, _, err = runRoot(t, "", "check", "-c", file, "--compat", "katran", "--consul")
	require.ErrorSays(t, err, "compat", "consul")
}
