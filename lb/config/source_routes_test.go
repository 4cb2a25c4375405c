// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
)

func TestReadSourceRoutes(t *testing.T) {
	first, second := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	prefix := netip.MustParsePrefix
	for name, tc := range map[string]struct {
		file, bad string // bad: a part of the error
		want      []lb.SourceRoute
	}{
		"comments and empty lines": {
			file: "# clients\n\n203.0.113.0/24 # Vienna\n  2001:db8:5::/48\n",
			want: []lb.SourceRoute{
				{Prefix: prefix("198.51.100.0/24"), Backend: first},
				{Prefix: prefix("203.0.113.0/24"), Backend: second},
				{Prefix: prefix("2001:db8:5::/48"), Backend: second},
			},
		},
		"no prefix":          {file: "# x\nhello\n", bad: `routes.txt:2: "hello" is not a prefix`},
		"host bits":          {file: "203.0.113.1/24\n", bad: "routes.txt:1: \"203.0.113.1/24\" has bits behind the prefix: write 203.0.113.0/24"},
		"mapped":             {file: "::ffff:0:0/96\n", bad: "IPv4-mapped"},
		"of another backend": {file: "198.51.100.0/24\n", bad: "routes.txt:1: 198.51.100.0/24 leads to 10.0.0.1 already"},
		"line too long":      {file: strings.Repeat("x", 1<<17), bad: "token too long"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "routes.txt")
			if err := os.WriteFile(path, []byte(tc.file), 0o600); err != nil {
				t.Fatal(err)
			}
			c := &Config{SourceRoutes: []SourceRoutes{
				{Prefixes: []netip.Prefix{prefix("198.51.100.0/24")}, Backend: first},
				{File: path, Backend: second},
			}}
			got, err := c.ReadSourceRoutes()
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Errorf("error %v, want one with %q", err, tc.bad)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got, compareAddrs()); err != nil || diff != "" {
				t.Errorf("error %v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestMissingSourceRoutesFile(t *testing.T) {
	c := &Config{SourceRoutes: []SourceRoutes{{File: filepath.Join(t.TempDir(), "none")}}}
	if _, err := c.ReadSourceRoutes(); err == nil || !strings.Contains(err.Error(), "read source routes") {
		t.Errorf("error %v", err)
	}
}
