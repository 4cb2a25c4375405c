// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/corpus"
	"github.com/remora-lb/remora/test/require"
)

// runOffloadCheck runs the verb with these arguments, separated by blanks.
func runOffloadCheck(t *testing.T, args string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(append([]string{"offload", "check"}, strings.Fields(args)...))
	err := cmd.Execute()
	return out.String(), err
}

// corpusFile is an object that no card takes.
func corpusFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "corpus.o")
	require.NoError(t, os.WriteFile(file, corpus.Object(), 0o600))
	return file
}

func TestOffloadCheck(t *testing.T) {
	object := corpusFile(t)
	text := filepath.Join(filepath.Dir(object), "text")
	require.NoError(t, os.WriteFile(text, []byte("no object"), 0o600))
	cases := []struct {
		name, args string
		status     int
		prints     []string
		says       string
	}{
		{"our own program", "", 0, []string{"accepted by profile nfp", "remora_card", "rings", "room for 373 VIPs"}, ""},
		{"our own program, sized", "--vips 5 --reals 100 --ring-size 4093", 0, []string{"2560", "101"}, ""},
		{"another profile", "--profile array-hash", 0, []string{"accepted by profile array-hash"}, ""},
		{"too many", "--vips 374", exitRefused, []string{"refused by profile nfp", "[M4]"}, "would refuse it"},
		{"an object", object, exitRefused, []string{"corpus.bpf.c:", "[M1]", "[I5]", "[W2]"}, "would refuse it"},
		{"no object", text, 1, nil, "read object"},
		{"no file", object + "x", 1, nil, "no such file"},
		{"sizes of an object", "--vips 3 " + object, 1, nil, "an object says itself"},
		{"no profile", "--profile fpga", 1, nil, `"fpga"`},
		{"no form", "-o yaml", 1, nil, `"yaml"`},
		{"no ring", "--ring-size 0", 1, nil, "--ring-size 0"},
		{"negative", "--vips -1", 1, nil, "--vips -1"},
		{"no ids for so many", "--reals 99999999", 1, nil, "--reals 99999999"},
		{"two objects", object + " " + object, 1, nil, "at most 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			out, err := runOffloadCheck(t, c.args)
			if got := exitStatus(err); got != c.status {
				t.Errorf("exit status %d (%v), want %d", got, err, c.status)
			}
			if c.says != "" {
				require.ErrorSays(t, err, c.says)
			}
			for _, p := range c.prints {
				if !strings.Contains(out, p) {
					t.Errorf("it does not print %q:\n%s", p, out)
				}
			}
		})
	}
}

func TestOffloadCheckJSON(t *testing.T) {
	out, err := runOffloadCheck(t, "-o json "+corpusFile(t))
	var s *statusError
	if !errors.As(err, &s) || s.status != exitRefused {
		t.Errorf("error %v, want one with status %d", err, exitRefused)
	}
	var report struct {
		Accepted bool
		Programs []struct{ Name string }
		Findings []struct {
			Rule, File string
			Line       int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	if report.Accepted || len(report.Programs) < 80 || len(report.Findings) < 60 {
		t.Errorf("accepted %t, %d programs, %d findings", report.Accepted, len(report.Programs), len(report.Findings))
	}
}
