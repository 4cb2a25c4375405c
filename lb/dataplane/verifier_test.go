// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/engine"
	"github.com/remora-lb/remora/test/require"
)

// What docs/performance.md promises of a program without features, and of one with all. Verifiers before
// Linux 6.12 take fewer states for equal.
const (
	maxWalked    = 20_000
	maxWalkedAll = 100_000
)

// walkedAtMost is the promise for a program without features on this kernel.
func walkedAtMost(t *testing.T) uint32 {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatalf("read the version of the kernel: %v", err)
	}
	if major < 6 || major == 6 && minor < 12 {
		return maxWalkedAll
	}
	return maxWalked
}

// allFeatures is a configuration that needs everything that the program can do.
func allFeatures() Config {
	return Config{
		Flows:  testFlows,
		QUICLB: lb.QUICLB{ConfigID: 2, ServerIDBytes: 3},
		Decap: lb.Decap{
			GUEPort:      6080,
			Destinations: map[netip.Addr]lb.DecapAction{netip.MustParseAddr("192.0.2.200"): lb.DecapBalance},
			Others:       lb.DecapHost,
		},
	}
}

// TestVerifierWalk keeps the program far from the verifier's limit of a million instructions, which
// kernels reach at different sizes of program.
func TestVerifierWalk(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   Config
		needs engine.Capacity
		max   uint32
	}{
		{"no feature", Config{}, engine.Capacity{}, walkedAtMost(t)},
		{"all features", allFeatures(), engine.Capacity{Options: true, Prefixes: 1}, maxWalkedAll},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Root(t)
			d, err := Open(tt.cfg)
			require.NoError(t, err)
			t.Cleanup(func() { d.Close() })
			require.NoError(t, d.Reserve(tt.needs))
			info, err := d.Program().Info()
			require.NoError(t, err)
			walked, ok := info.VerifiedInstructions()
			if !ok {
				t.Skip("this kernel does not tell how many instructions the verifier walked")
			}
			if walked == 0 || walked >= tt.max {
				t.Errorf("the verifier walked %d instructions, want 1 to %d", walked, tt.max)
			}
			t.Logf("the verifier walked %d instructions", walked)
		})
	}
}
