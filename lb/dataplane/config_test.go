// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestConfigValidate(t *testing.T) {
	for _, good := range []Config{
		{},
		{Flows: 1, FlowInserts: 1, UDPIdle: time.Second},
		{Flows: MaxFlows, FlowInserts: MaxFlowInserts, UDPIdle: MaxUDPIdle},
		{AnswerLimit: AnswersUnlimited, QUICLB: lb.QUICLB{ConfigID: 6, ServerIDBytes: 4}},
		allFeatures(),
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

func TestConfigOfFeaturesIsChecked(t *testing.T) {
	to := func(addr string, action lb.DecapAction) Config {
		a, _ := netip.ParseAddr(addr)
		return Config{Decap: lb.Decap{Destinations: map[netip.Addr]lb.DecapAction{a: action}}}
	}
	for want, bad := range map[string]Config{
		"AnswerLimit is -1":                   {AnswerLimit: -1},
		"Decap.Others is action 4":            {Decap: lb.Decap{Others: 4}},
		"which is no address":                 to("::ffff:192.0.2.1", lb.DecapHost),
		"\"invalid IP\"":                      to("", lb.DecapHost),
		"[192.0.2.1] is action 9":             to("192.0.2.1", 9),
		"QUICLB.ConfigID is 7":                {QUICLB: lb.QUICLB{ConfigID: 7, ServerIDBytes: 1}},
		"QUICLB.ServerIDBytes is 0, not 1 to": {QUICLB: lb.QUICLB{ConfigID: 1}},
		"QUICLB.ServerIDBytes is 5":           {QUICLB: lb.QUICLB{ServerIDBytes: 5}},
	} {
		require.ErrorSays(t, bad.Validate(), want)
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
