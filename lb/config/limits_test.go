// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
)

// problem parses a text that has exactly one problem.
func problem(t *testing.T, text string) Problem {
	t.Helper()
	_, err := Parse("test.yaml", []byte(text))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 1 {
		t.Fatalf("got %d problems: %.1000v", len(problems), err)
	}
	return problems[0]
}

// TestAliasesUnfoldToALimit has some 30 kB that stand for two million values.
func TestAliasesUnfoldToALimit(t *testing.T) {
	text := "interface: eth0\nservices:\n" +
		"  - {name: web, <<: [&a {vips: [192.0.2.10:80/tcp]}, {<<: &many [" + strings.Repeat("*a, ", 2000) + "]}]}\n" +
		strings.Repeat("  - {<<: *many}\n", 1000)
	if p := problem(t, text); !strings.Contains(p.Message, "stand for more than 1048576 values") {
		t.Errorf("got %v", p)
	}
}

// TestManyAliasesAreAllowed has as many as somebody may want: 100 services with 1000 backends.
func TestManyAliasesAreAllowed(t *testing.T) {
	var b strings.Builder
	b.WriteString("interface: eth0\nservices:\n  - {name: web, vips: [192.0.2.10:1/tcp], backends: &all [")
	for i := range 1000 {
		fmt.Fprintf(&b, "10.0.%d.%d, ", i/250, i%250+1)
	}
	b.WriteString("]}\n")
	for i := range 99 {
		fmt.Fprintf(&b, "  - {name: web%d, vips: [192.0.2.10:%d/tcp], backends: *all}\n", i, i+2)
	}
	if c := mustParse(t, b.String()); len(c.Services) != 100 || len(c.Backends["web98"]) != 1000 {
		t.Errorf("got %d services, %d backends of the last", len(c.Services), len(c.Backends["web98"]))
	}
}

func TestCyclesEnd(t *testing.T) {
	for name, text := range map[string]string{
		"list in itself":        "interface: eth0\nservices: &s [*s]\n",
		"mapping merges itself": "interface: eth0\nservices: []\nnext_hop: &n {<<: *n}\n",
		"two merge each other":  "interface: eth0\nservices: []\nnext_hop: &n {<<: &m {<<: [*n, *m]}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if p := problem(t, text); p.Line < 2 {
				t.Errorf("got %v", p)
			}
		})
	}
}

// TestDeepNesting is refused by the YAML reader; it must not overflow the stack.
func TestDeepNesting(t *testing.T) {
	if p := problem(t, "interface: "+strings.Repeat("[", 100_000)+"\n"); !strings.Contains(p.Message, "not valid YAML") {
		t.Errorf("got %v", p)
	}
}

func TestLongTextIsCutOff(t *testing.T) {
	p := problem(t, "interface: eth0\nservices: []\n"+strings.Repeat("x", 100_000)+": 1\n")
	if len(p.Message) > 350 || !strings.Contains(p.Message, `x"...: expected interface, mode`) {
		t.Errorf("got %d bytes: %.500v", len(p.Message), p)
	}
}

func TestByteOrderMarkIsSkipped(t *testing.T) {
	if c := mustParse(t, "\ufeffinterface: eth0\nservices: []\n"); c.Interface != "eth0" {
		t.Errorf("got interface %q", c.Interface)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"mac", "mtu", "vips", "backends", "encapsulation", "on_exit"}
	for word, want := range map[string]string{
		"mac2":          "mac",
		"vip":           "vips",
		"Backend":       "backends",
		"encapsulatoin": "encapsulation",
		"encap":         "encapsulation",
		"on-exit":       "on_exit",
		"max":           "mac",
		"m":             "",
		"":              "",
		"services":      "",
		"backends_list": "",
	} {
		if got := nearest(word, words); got != want {
			t.Errorf("nearest to %q: got %q, want %q", word, got, want)
		}
	}
}

func TestIsPrime(t *testing.T) {
	var got []uint32
	for n := range uint32(32) {
		if isPrime(n) {
			got = append(got, n)
		}
	}
	if s := fmt.Sprint(got); s != "[2 3 5 7 11 13 17 19 23 29 31]" {
		t.Errorf("primes below 32: got %s", s)
	}
	for n, want := range map[uint32]bool{
		lb.DefaultRingSize: true, lb.MaxRingSize: true, 65536: false, 65521: true, 1021 * 1021: false, 1<<20 - 1: false,
	} {
		if isPrime(n) != want {
			t.Errorf("isPrime(%d): got %t", n, !want)
		}
	}
	for n := uint32(lb.MaxRingSize) + 1; n < 1<<20; n++ {
		if isPrime(n) {
			t.Errorf("%d is a prime of 20 bits and over lb.MaxRingSize", n)
		}
	}
}
