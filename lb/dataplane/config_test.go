// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"testing"
	"time"

	"github.com/remora-lb/remora/test/require"
)

func TestConfigValidate(t *testing.T) {
	for _, good := range []Config{
		{},
		{Flows: 1, FlowInserts: 1, UDPIdle: time.Second},
		{Flows: MaxFlows, FlowInserts: MaxFlowInserts, UDPIdle: MaxUDPIdle},
	} {
		require.NoError(t, good.Validate())
	}
	for _, bad := range []Config{
		{Flows: -1, FlowInserts: -1, UDPIdle: -1},
		{Flows: MaxFlows + 1, FlowInserts: MaxFlowInserts + 1, UDPIdle: MaxUDPIdle + 1},
		{Flows: -1, FlowInserts: -1, UDPIdle: time.Second - 1},
	} {
		want := []string{"Flows is ", "FlowInserts is ", "UDPIdle is "}
		require.ErrorSays(t, bad.Validate(), want...)
		_, err := Open(bad)
		require.ErrorSays(t, err, want...)
	}
}

// What the configuration says of the flow table is what the program reads.
func TestConfigOfFlowTable(t *testing.T) {
	require.Root(t)
	for _, tt := range []struct {
		name    string
		config  Config
		buckets int
		inserts uint32
		idle    time.Duration
	}{
		{"defaults", Config{}, 1 << 18, 125_000, 30 * time.Second},
		{"least", Config{Flows: 1, FlowInserts: 1, UDPIdle: time.Second}, 1, 1, time.Second},
		{"rounded up", Config{Flows: 4097, FlowInserts: 7, UDPIdle: time.Hour}, 2048, 7, time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Open(tt.config)
			require.NoError(t, err)
			t.Cleanup(func() { d.Close() })
			require.NoError(t, d.Reserve(capacityOf(0, 0, 1000, 0)))
			settings, clock := flowSettings(t, d), flowClockOf(t, d)
			if settings.BucketMask != uint32(tt.buckets-1) || len(d.gen.flows.elems) != tt.buckets || settings.InsertLimit != tt.inserts {
				t.Errorf("settings %+v for %d buckets; want %d buckets, limit %d", settings, len(d.gen.flows.elems), tt.buckets, tt.inserts)
			}
			idle := time.Duration(settings.UdpIdleTicks) * clock.tick
			if (idle - tt.idle).Abs() > clock.tick/2 {
				t.Errorf("UDP flows are new after %v, want %v to half a tick of %v", idle, tt.idle, clock.tick)
			}
		})
	}
}
