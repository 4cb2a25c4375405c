// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package require says what a test cannot do without. Where it is missing the test is skipped; where
// everything was promised (REMORA_REQUIRE_ROOT=1, as `make test` sets it for root), it fails.
package require

import (
	"os"
	"os/exec"
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
