// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/doctor"
	"github.com/remora-lb/remora/test/require"
)

func TestDoctorMistakes(t *testing.T) {
	for _, tc := range []struct {
		args, says string
	}{
		{"-o xml", `--output "xml" is not text or json`},
		{"--instance ../x", `instance name "../x"`},
		{"--vip 192.0.2.10:80/tcp", "are for --server"},
		{"--client 10.0.0.1", "are for --server"},
		{"--server", "--vip is missing"},
		{"--server --vip 192.0.2.10", "no protocol"},
		{"--server --vip 192.0.2.0/24:80/tcp", "is a prefix"},
		{"--server --vip 192.0.2.10:80/tcp --encapsulation gre", `"gre" is not ipip or gue`},
		{"--server --vip 192.0.2.10:80/tcp --client nobody", `"nobody" is not an IPv4 or IPv6 address`},
		{"--server --vip 192.0.2.10:80/tcp --gue-port 0", "--gue-port 0"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			cmd := newRootCommand()
			cmd.SetArgs(append([]string{"doctor"}, strings.Fields(tc.args)...))
			err := cmd.Execute()
			require.ErrorSays(t, err, tc.says)
			if got := exitStatus(err); got != doctorFailed {
				t.Errorf("exit status %d, want %d", got, doctorFailed)
			}
		})
	}
}

func sampleReport() doctor.Report {
	return doctor.Report{Findings: []doctor.Finding{
		{ID: "btf", Group: "machine", Verdict: doctor.OK, Facts: "it is there"},
		{ID: "bpf", Group: "machine", Verdict: doctor.CannotTell, Facts: "permission denied", Needs: "root", Unprivileged: true},
		{ID: "clock", Group: "machine", Verdict: doctor.Warn, Facts: "not synchronised", Cure: "run chrony"},
		{ID: "next-hop", Group: "reals", Object: "10.20.0.11", Verdict: doctor.Fail, Facts: "no route\nat all", Cure: "ip route add"},
	}}
}

func TestDoctorText(t *testing.T) {
	const terse = `FAIL         [reals] next-hop: 10.20.0.11
               no route
               at all
        cure:  ip route add

WARN         [machine] clock
               not synchronised
        cure:  run chrony

CANNOT TELL  [machine] bpf
               permission denied
       needs:  root

`
	const ok = `OK           [machine] btf
               it is there

`
	const counts = `1 fail, 1 warn, 1 cannot tell, 0 note, 1 ok
not checked for want of privileges, run as root: bpf
`
	for _, tc := range []struct {
		name    string
		verbose bool
		want    string
	}{{"terse", false, terse + counts}, {"verbose", true, terse + ok + counts}} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, printDoctor(&out, sampleReport(), tc.verbose))
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDoctorJSON(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printDoctorJSON(&out, sampleReport()))
	var got struct {
		Status   int
		Counts   map[string]int
		Findings []struct{ ID, Verdict string }
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	if got.Status != 2 || got.Counts["fail"] != 1 || got.Counts["cannot_tell"] != 1 || len(got.Findings) != 4 {
		t.Errorf("got %+v", got)
	}
	if first := got.Findings[0]; first.ID != "next-hop" || first.Verdict != "fail" {
		t.Errorf("the first finding is %+v, not the worst", first)
	}
}

func TestDoctorStatus(t *testing.T) {
	for _, tc := range []struct {
		name   string
		worst  doctor.Verdict
		status int
	}{{"fail", doctor.Fail, 2}, {"warn", doctor.Warn, 1}, {"cannot tell", doctor.CannotTell, 0}, {"note", doctor.Note, 0}, {"ok", doctor.OK, 0}} {
		t.Run(tc.name, func(t *testing.T) {
			err := doctorStatus(doctor.Report{Findings: []doctor.Finding{{Verdict: doctor.OK}, {Verdict: tc.worst}}})
			if got := exitStatus(err); got != tc.status {
				t.Errorf("exit status %d, want %d", got, tc.status)
			}
		})
	}
}

func TestDoctorSetup(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte(`interface: eth0
mode: generic
bgp:
  asn: 64512
  router_id: 10.0.0.1
  peers: [{address: 10.10.1.1, asn: 64513, password_file: /etc/remora/key}]
services:
  - {name: probed, vips: [192.0.2.10:80/tcp], backends: [10.0.0.11, 10.0.0.12], health: {}}
  - {name: direct, vips: [192.0.2.11:80/tcp], backends: [10.0.0.11], health: {path: direct}}
  - {name: found, vips: [192.0.2.12:80/tcp], source: {consul: {service: web}}}
`))
	require.NoError(t, err)
	s := doctorSetup(c)
	if s.Interface != "eth0" || s.Mode != "generic" || len(s.VIPs) != 3 || len(s.Reals) != 3 || !s.BGP {
		t.Errorf("setup %+v", s)
	}
	if len(s.Probes) != 1 || s.Probes[0].String() != "192.0.2.10:80/tcp" {
		t.Errorf("probes %v", s.Probes)
	}
	want := []doctor.Peer{{Address: netip.MustParseAddr("10.10.1.1"), Port: 179, MD5: true, KeyFile: "/etc/remora/key"}}
	if diff := cmp.Diff(want, s.Peers, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	reads := wantedReads(c)
	if len(reads) != 1 || reads[0].Service != "web" {
		t.Errorf("reads %+v", reads)
	}
}

func TestDoctorHealth(t *testing.T) {
	h := doctorHealth(&remorav1.VIP{
		Vip:    "192.0.2.10:80/tcp",
		Health: &remorav1.HealthGroup{Checked: 3, Healthy: 1, FailOpen: true},
		Reals: []*remorav1.Real{
			{Backend: "10.0.0.11", Health: &remorav1.Health{Local: remorav1.HealthState_HEALTH_STATE_DOWN, Reason: "timeout", Detail: "late", Fault: "vip_missing", FaultDetail: "no VIP"}},
			{Backend: "10.0.0.12", Health: &remorav1.Health{Local: remorav1.HealthState_HEALTH_STATE_UP, Fault: "path_mtu", FaultDetail: "too long"}},
			{Backend: "10.0.0.13", Health: &remorav1.Health{Local: remorav1.HealthState_HEALTH_STATE_UP}},
			{Backend: "10.0.0.14"},
		},
	})
	if h.VIP.String() != "192.0.2.10:80/tcp" || h.Checked != 3 || h.Healthy != 1 || !h.FailOpen || len(h.Down) != 2 {
		t.Fatalf("health %+v", h)
	}
	if s := h.Down[0]; !s.Down || s.Fault != "vip_missing" || s.Detail != "no VIP" {
		t.Errorf("the first is %+v", s)
	}
	if s := h.Down[1]; s.Down || s.Fault != "path_mtu" {
		t.Errorf("the second is %+v", s)
	}
}

func TestDoctorConsulNotReachable(t *testing.T) {
	c, err := config.Parse("test.yaml", []byte(`interface: eth0
consul: {addresses: ["unix:///nowhere/consul.sock"], overlay: remora/overlay/}
services:
  - {name: web, vips: [192.0.2.10:80/tcp], source: {consul: {service: web}}}
`))
	require.NoError(t, err)
	reads := readConsulOnce(t.Context(), c)
	if len(reads) != 2 {
		t.Fatalf("reads %+v", reads)
	}
	for _, r := range reads {
		if r.Err == nil || r.Status != 0 {
			t.Errorf("read %+v, want an error", r)
		}
	}
}
