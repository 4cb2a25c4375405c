// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/remora-lb/remora/lb"
	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

// fullStatus has something in every field.
func fullStatus() Status {
	entry := lb.VIPEntry{VIP: vip4, Service: "web", RingID: 3, Ring: lb.Ring{Size: 65537, Hash: lb.MaglevV1}, Flows: lb.FlowQUIC,
		Options: lb.Options{Hash: lb.HashInput{NoSourcePort: true}, SourceRoutes: true}}
	draining := Real{
		Real: lb.Real{
			ID: 7, VIP: vip4, Backend: lb.Backend{Addr: shared, Weight: 100}, Use: lb.RealDraining,
			Tunnel:  lb.Tunnel{Encap: lb.GUE},
			NextHop: lb.NextHop{MAC: [6]byte{2, 0, 0, 0, 0, 1}, MTU: 1500, Stale: true},
		},
		Absence: Absence{Cause: CauseDrain, Since: began, Until: began.Add(time.Hour)},
		Slots:   1, PreviousSlots: 2, Flows: 3, Active: 4, Packets: 1 << 40, Bytes: 1 << 50,
	}
	lost := Real{Real: lb.Real{ID: 8, VIP: vip4, Backend: lb.Backend{Addr: only4, ServerID: 1<<32 - 1, Routed: true}, Tunnel: lb.Tunnel{Encap: lb.Local},
		NextHop: lb.NextHop{MTU: 1500, Problem: "no answer"}}}
	return Status{
		Version: "v1.2.3", Instance: "lab",
		Interfaces: []Interface{{Name: "eth0", Mode: ModeNative, ModeReason: "as asked"}},
		Settled:    true, Changes: 5, LastApply: began, LastError: "busy",
		Problems: []Problem{
			{Service: "web", VIP: vip4, Backend: only4, Text: "left out"},
			{Service: "db", Text: "has no VIP"},
		},
		Services: []Service{{Name: "web", VIPs: []VIP{
			{VIPEntry: entry, Slots: [...]int{65000, 500, 30, 7}, Reals: []Real{draining, lost}},
			{VIPEntry: lb.VIPEntry{VIP: vip6, Ring: lb.Ring{Size: 13}}, Held: true},
		}}},
	}
}

func TestStatusToAPI(t *testing.T) {
	want := &remorav1.GetStatusResponse{
		Version: "v1.2.3", Instance: "lab",
		Interfaces: []*remorav1.Interface{{Name: "eth0", Mode: remorav1.Mode_MODE_NATIVE, ModeReason: "as asked"}},
		Settled:    true, Changes: 5, LastApply: timestamppb.New(began), LastError: "busy",
		Problems: []*remorav1.Problem{
			{Service: "web", Vip: "192.0.2.10:80/tcp", Backend: "10.20.0.12", Text: "left out"},
			{Service: "db", Text: "has no VIP"},
		},
		Services: []*remorav1.Service{{Name: "web", Vips: []*remorav1.VIP{
			{
				Vip: "192.0.2.10:80/tcp", RingSize: 65537, RingHash: remorav1.RingHash_RING_HASH_MAGLEV_V1,
				FlowMode: remorav1.FlowMode_FLOW_MODE_QUIC, Options: []string{"hash=no-source-port", "source_routes"},
				Slots: &remorav1.SlotCounts{Stable: 65000, Moving: 500, Settling: 30, Lingering: 7},
				Reals: []*remorav1.Real{
					{
						Id: 7, Backend: "10.20.0.11", Weight: 100, Encapsulation: remorav1.Encapsulation_ENCAPSULATION_GUE,
						Use: remorav1.RealUse_REAL_USE_DRAINING,
						Absence: &remorav1.Absence{
							Cause: remorav1.Cause_CAUSE_DRAIN,
							Since: timestamppb.New(began), Until: timestamppb.New(began.Add(time.Hour)),
						},
						Slots: 1, PreviousSlots: 2, Flows: 3, ActiveFlows: 4, Packets: 1 << 40, Bytes: 1 << 50,
						NextHop: &remorav1.NextHop{Mac: "02:00:00:00:00:01", MtuBytes: 1500, Stale: true},
					},
					{
						Id: 8, Backend: "10.20.0.12", Encapsulation: remorav1.Encapsulation_ENCAPSULATION_LOCAL, ServerId: 1<<32 - 1, Routed: true,
						Use: remorav1.RealUse_REAL_USE_ACTIVE, NextHop: &remorav1.NextHop{Problem: "no answer"},
					},
				},
			},
			{
				Vip: "[2001:db8:ff::10]:443/udp", RingSize: 13, RingHash: remorav1.RingHash_RING_HASH_MAGLEV_V2,
				FlowMode: remorav1.FlowMode_FLOW_MODE_TRANSITIONS,
			},
		}}},
	}
	status := fullStatus()
	status.Flows = FlowTable{Capacity: 1024, Flows: 9}
	want.FlowTable = &remorav1.FlowTable{Capacity: 1024, Flows: 9}
	for event := range lb.FlowEventLen {
		status.Flows.Events[event] = 100 + uint64(event)
		want.FlowTable.Events = append(want.FlowTable.Events, &remorav1.FlowEvent{Event: event.String(), Count: 100 + uint64(event)})
	}
	if diff := cmp.Diff(want, statusToAPI(status), protocmp.Transform()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestDrainsToAPI(t *testing.T) {
	got := drainsToAPI([]Drain{{
		Target: lb.Target{VIP: vip6, Backend: only6}, State: DrainExpired,
		Since: began, Deadline: began.Add(time.Minute), Slots: 1, Flows: 2, Active: 3,
	}})
	want := []*remorav1.DrainProgress{{
		Vip: "[2001:db8:ff::10]:443/udp", Backend: "2001:db8:20::13", State: remorav1.DrainState_DRAIN_STATE_EXPIRED,
		Since: timestamppb.New(began), Deadline: timestamppb.New(began.Add(time.Minute)),
		SlotsLeft: 1, FlowsLeft: 2, ActiveFlows: 3,
	}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("drains (-want +got):\n%s", diff)
	}
}

// TestEnumerations: the API has the same names in the same order.
func TestEnumerations(t *testing.T) {
	same := func(kind string, got fmt.Stringer, want string) {
		t.Helper()
		words := strings.NewReplacer(" ", "_", "-", "_").Replace(want)
		if name := strings.ToLower(strings.TrimPrefix(got.String(), kind)); name != words {
			t.Errorf("%v stands for %q", got, want)
		}
	}
	for u := lb.RealActive; u <= lb.RealRetired; u++ {
		same("REAL_USE_", useToAPI(u), u.String())
	}
	for m := lb.FlowTransitions; m <= lb.FlowQUIC; m++ {
		same("FLOW_MODE_", flowModeToAPI(m), m.String())
	}
	for h := lb.MaglevV2; h <= lb.MaglevV1; h++ {
		same("RING_HASH_", ringHashToAPI(h), h.String())
	}
	for e := lb.IPIP; e <= lb.GUE; e++ {
		same("ENCAPSULATION_", encapToAPI(e), e.String())
	}
	for i, name := range []string{"generic", "native", "offload"} {
		same("MODE_", modeToAPI(Mode(i)), name)
	}
	for i, name := range []string{"unspecified", "down", "drain", "weight", "removed"} {
		same("CAUSE_", causeToAPI(Cause(i)), name)
	}
	for i, name := range []string{"running", "done", "expired", "ended"} {
		same("DRAIN_STATE_", drainStateToAPI(DrainState(i)), name)
	}
}

// TestJSON: zero values are there, and spaces are not.
func TestJSON(t *testing.T) {
	got, err := JSON(&remorav1.DrainProgress{Vip: "v", FlowsLeft: 1})
	require.NoError(t, err)
	want := `{"vip":"v","backend":"","state":"DRAIN_STATE_UNSPECIFIED","slotsLeft":0,"flowsLeft":1,"activeFlows":0}`
	if string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestUnknown(t *testing.T) {
	st, err := (&fakeDaemon{}).Status(t.Context())
	require.NoError(t, err)
	for _, tc := range []struct {
		name     string
		st       Status
		vip      string
		backend  string
		want     string
		wantCure string
	}{
		{"VIP", st, "192.0.2.10:81/tcp", "10.20.0.11", "there is no VIP 192.0.2.10:81/tcp", "the nearest: 192.0.2.10:80/tcp, [2001:db8:ff::10]:443/udp"},
		{"VIP of the other family", st, "[2001:db8:ff::1]:443/udp", "10.20.0.11", "there is no VIP [2001:db8:ff::1]:443/udp", "the nearest: [2001:db8:ff::10]:443/udp, 192.0.2.10:80/tcp"},
		{"backend", st, "192.0.2.10:80/tcp", "10.20.0.1", "VIP 192.0.2.10:80/tcp has no backend 10.20.0.1", "the nearest: 10.20.0.11, 10.20.0.12"},
		{"backend of another VIP", st, "192.0.2.10:80/tcp", "2001:db8:20::13", "VIP 192.0.2.10:80/tcp has no backend 2001:db8:20::13", "[2001:db8:ff::10]:443/udp has it; the nearest: 10.20.0.11, 10.20.0.12"},
		{"backend of no VIP", st, "", "10.20.0.13", "no VIP has the backend 10.20.0.13", "the nearest: 10.20.0.11, 10.20.0.12, 2001:db8:20::13"},
		{"no VIPs", Status{}, "192.0.2.10:80/tcp", "10.20.0.1", "there is no VIP 192.0.2.10:80/tcp", "there is none"},
		{"no backends", Status{}, "", "10.20.0.1", "no VIP has the backend 10.20.0.1", "there is none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Selection{Backend: netip.MustParseAddr(tc.backend)}
			if tc.vip != "" {
				require.NoError(t, s.VIP.UnmarshalText([]byte(tc.vip)))
			}
			got := unknown(tc.st, s)
			if got.Code != CodeNotFound || got.Object == "" || got.Problem != tc.want || got.Cure != tc.wantCure {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"abc", "abc", 0}, {"", "abc", 3}, {"abc", "", 3},
		{"kitten", "sitting", 3}, {"10.0.0.1", "10.0.0.11", 1}, {"10.0.0.12", "10.0.0.21", 2},
	} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("from %q to %q: %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}
