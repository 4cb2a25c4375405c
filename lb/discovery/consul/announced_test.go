// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/test/require"
)

func TestVIPText(t *testing.T) {
	for _, text := range []string{"192.0.2.1:80/tcp", "[2001:db8::1]:0/udp", "192.0.2.0/24:443/tcp", "[2001:db8::/64]:53/udp"} {
		vip, err := lb.ParseVIP(text)
		require.NoError(t, err)
		got, err := parseVIPText(vipText(vip))
		require.NoError(t, err)
		if got != vip {
			t.Errorf("%s became %s", vip, got)
		}
	}
	for _, text := range []string{"", "192.0.2.1-80", "192.0.2.1-80-tcp-x", "x-80-tcp", "192.0.2.1-80-sctp"} {
		if vip, err := parseVIPText(text); err == nil {
			t.Errorf("%q is read as %s", text, vip)
		}
	}
}

// TestAnnounced: what counts of what balancers say, and what does not.
func TestAnnounced(t *testing.T) {
	balancer := func(token string, checks ...Check) Instance {
		return Instance{
			Service: Service{ID: "remora", Meta: map[string]string{MetaInstance: token}},
			Checks:  append([]Check{{CheckID: "serfHealth", Status: statusPassing}, {CheckID: "remora", ServiceID: "remora", Status: statusWarning}}, checks...),
		}
	}
	announces := func(vip, status string) Check {
		return Check{CheckID: "remora-announces-" + vip, ServiceID: "remora", Status: status}
	}
	dead := balancer("d", announces("192.0.2.4-80-tcp", statusPassing))
	dead.Checks[1].Status = statusCritical
	lost := balancer("e", announces("192.0.2.5-80-tcp", statusPassing))
	lost.Checks[0].Status = statusCritical
	all := []Instance{
		balancer("self", announces("192.0.2.1-80-tcp", statusPassing)),
		balancer("b", announces("192.0.2.2-80-tcp", statusPassing), announces("192.0.2.3-80-tcp", statusCritical),
			Check{CheckID: "remora-vip-192.0.2.9-80-tcp", ServiceID: "remora", Status: statusCritical}, announces("nonsense", statusPassing)),
		dead, lost,
	}
	vip, err := lb.ParseVIP("192.0.2.2:80/tcp")
	require.NoError(t, err)
	if diff := cmp.Diff(Fleet{Self: true, Others: map[lb.VIP]bool{vip: true}}, Announced(all, "self")); diff != "" {
		t.Error(diff)
	}
	if f := Announced(all[1:2], "self"); f.Self {
		t.Error("it finds itself where it is not")
	}
}
