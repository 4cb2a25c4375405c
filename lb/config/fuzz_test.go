// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/remora-lb/remora/lb"
)

// FuzzParse looks for a panic, for an error that is no list of lines, and for a Config that breaks
// what its comments promise. It begins with every sample and every invalid file.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "../../configs/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: found %d files, error %v", pattern, len(files), err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("a: &a [*a, {<<: *a}]\ninterface: *a\n"))
	f.Add([]byte("services: &s [{<<: &m {<<: *m, backends: *s}}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data)
		if err != nil {
			checkProblems(t, err)
			return
		}
		checkConfig(t, c)
	})
}

func checkProblems(t *testing.T, err error) {
	t.Helper()
	var problems Problems
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("got %T %v, want Problems", err, err)
	}
	last := 1
	for _, p := range problems {
		if p.Line < last {
			t.Errorf("%v: line %d comes behind line %d", p, p.Line, last)
		}
		last = p.Line
		if p.Message == "" || strings.ContainsFunc(p.String(), func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("%q: not one printable line", p)
		}
	}
}

func checkConfig(t *testing.T, c *Config) {
	t.Helper()
	if c.Interface == "" || c.Mode == "" || c.OnExit == "" || len(c.Services) != len(c.Backends) {
		t.Errorf("incomplete: %+v", c)
	}
	vips := map[lb.VIP]bool{}
	for _, s := range c.Services {
		if len(s.VIPs) == 0 {
			t.Errorf("service %q has no VIP", s.Name)
		}
		for _, v := range s.VIPs {
			if vips[v.VIP] || !isPrime(v.Ring.Size) || v.Ring.Size > lb.MaxRingSize {
				t.Errorf("VIP %v is there twice, or has a ring of %d", v.VIP, v.Ring.Size)
			}
			vips[v.VIP] = true
			checkTunnels(t, v, c.Backends[s.Name])
		}
	}
}

func checkTunnels(t *testing.T, v lb.ServiceVIP, backends []lb.Backend) {
	t.Helper()
	for _, b := range backends {
		tunnel, err := v.Tunnel.Tunnel(v.Encap, b.Addr)
		if err != nil || !tunnel.Source.IsValid() || tunnel.Source.Addr().Is4() != b.Addr.Is4() {
			t.Errorf("tunnel of %v to %v: source %v, error %v", v.VIP, b.Addr, tunnel.Source, err)
		}
		if b.Weight > maxWeight || b.Addr == v.VIP.Addr {
			t.Errorf("backend %v of %v", b, v.VIP)
		}
	}
}
