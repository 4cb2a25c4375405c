// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

// TestConsul lets the demonstration with Consul show everything.
func TestConsul(t *testing.T) {
	programs := built(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	// Before the demonstration's time is limited.
	if _, err := consul.Build(ctx); err != nil {
		if os.Getenv("REMORA_REQUIRE_ROOT") != "1" {
			t.Skipf("this test needs Consul: %v", err)
		}
		require.NoError(t, err)
	}
	s := programs.start(t, "--consul")
	if code := s.end(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.assertNothingLeft(t)
	text := s.text.String()
	if !strings.Contains(text, "Everything works.") || strings.Contains(text, "FAIL") || strings.Count(text, "\n  PASS  ") != 12 {
		t.Errorf("the summary is not of 12 things that work")
	}
}
