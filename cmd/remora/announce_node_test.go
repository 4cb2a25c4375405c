// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

func TestNodeArgs(t *testing.T) {
	for _, tc := range []struct {
		args string
		says string // empty: no error
	}{
		{"10.0.0.1", ""}, {"192.0.2.1:80/tcp 10.0.0.1", ""}, {"--node", ""},
		{"", "remora drain REAL"}, {"--node 10.0.0.1", "remora drain --node"}, {"--node --timeout 1m", "bgp.announce.drain"},
	} {
		cmd := newDrainCommand()
		require.NoError(t, cmd.ParseFlags(strings.Fields(tc.args)))
		err := cmd.Args(cmd, cmd.Flags().Args())
		if tc.says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorSays(t, err, tc.says)
		}
	}
}

func TestPrintBGP(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	before := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	var out strings.Builder
	require.NoError(t, printBGP(&out, &remorav1.BGP{
		Drained: true, DrainedSince: before(time.Minute),
		Sessions: []*remorav1.BGPSession{{Peer: "10.0.0.1", Asn: 65000, State: "active", Since: before(90 * time.Second), Bfd: "off", LastError: "refused"}},
		Vips:     []*remorav1.Announcement{{Vip: "192.0.2.1:80/tcp", State: remorav1.AnnounceState_ANNOUNCE_STATE_DRAINING, Announced: true, Since: before(2 * time.Second), Reason: "because"}},
	}, now))
	for _, line := range []string{"the balancer is drained since", "10.0.0.1  65000  active", "1m30s", "refused", "192.0.2.1:80/tcp  draining  yes", "2s   because"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is not in:\n%s", line, out.String())
		}
	}
}
