// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package require ends tests that cannot go on. Where something is missing that a test cannot do
// without, it is skipped; where everything was promised (REMORA_REQUIRE_ROOT=1, as `make test` sets
// it for root), it fails.
package require

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Root is for tests that load programs or make network namespaces.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		lacking(tb, "root")
	}
}

// Tools is for tests that run these programs.
func Tools(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			lacking(tb, name)
		}
	}
}

func lacking(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("REMORA_REQUIRE_ROOT") == "1" {
		tb.Fatalf("this test needs %s, and REMORA_REQUIRE_ROOT=1 promises it", what)
	}
	tb.Skipf("this test needs %s", what)
}

// NoError ends the test if there is an error.
func NoError(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// ErrorSays fails unless there is an error with all of the parts.
func ErrorSays(tb testing.TB, err error, parts ...string) {
	tb.Helper()
	if err == nil {
		tb.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			tb.Errorf("error %q does not say %q", err, p)
		}
	}
}
