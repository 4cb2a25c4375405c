// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
)

func TestHealthToAPI(t *testing.T) {
	since := time.Unix(1700000000, 0)
	got := vipToAPI(VIP{
		Health: &HealthGroup{Checked: 5, Healthy: 2, FailOpen: true, Servable: true, Detail: "all are kept"},
		Reals: []Real{
			{Health: &Health{
				Local: HealthDown, Outside: HealthUp, Since: since, Reason: "timeout", Detail: "nothing", Percent: 30, Suppressed: true,
				Fault: "vip_missing", FaultDetail: "no VIP",
			}},
			{},
		},
	})
	want := &remorav1.HealthGroup{Checked: 5, Healthy: 2, FailOpen: true, Servable: true, Detail: "all are kept"}
	if diff := cmp.Diff(want, got.Health, protocmp.Transform()); diff != "" {
		t.Errorf("group (-want +got):\n%s", diff)
	}
	wantReal := &remorav1.Health{
		Local: remorav1.HealthState_HEALTH_STATE_DOWN, Outside: remorav1.HealthState_HEALTH_STATE_UP, Since: timestamppb.New(since),
		Reason: "timeout", Detail: "nothing", Percent: 30, Suppressed: true, Fault: "vip_missing", FaultDetail: "no VIP",
	}
	if diff := cmp.Diff(wantReal, got.Reals[0].Health, protocmp.Transform()); diff != "" {
		t.Errorf("real (-want +got):\n%s", diff)
	}
	if got.Reals[1].Health != nil || vipToAPI(VIP{}).Health != nil {
		t.Error("what is not checked has health")
	}
}
