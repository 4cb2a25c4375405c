// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	remorav1 "github.com/remora-lb/remora/lb/api/remora/v1"
	"github.com/remora-lb/remora/test/require"
)

func TestStatusCall(t *testing.T) {
	s := serve(t, &fakeDaemon{status: func(context.Context) (Status, error) { return fullStatus(), nil }})
	got, err := s.client(t).Status(t.Context())
	require.NoError(t, err)
	if got.Instance != "lab" || len(got.Services) != 1 || got.Services[0].Vips[0].Reals[0].Flows != 3 {
		t.Errorf("status is %v", got)
	}
}

func TestDrainCalls(t *testing.T) {
	d := &fakeDaemon{}
	s := serve(t, d)
	c := s.client(t)
	drain := func(req *remorav1.DrainRequest, want ...string) {
		t.Helper()
		res, err := c.Drain(t.Context(), req)
		require.NoError(t, err)
		var vips []string
		for _, p := range res.Drains {
			vips = append(vips, p.Vip)
		}
		if strings.Join(vips, " ") != strings.Join(want, " ") {
			t.Errorf("drained for %v, want %v", vips, want)
		}
	}
	drain(&remorav1.DrainRequest{Vip: vip4.String(), Backend: "10.20.0.11", Timeout: durationpb.New(90 * time.Second)}, vip4.String())
	if d.timeout != 90*time.Second {
		t.Errorf("timeout is %v", d.timeout)
	}
	drain(&remorav1.DrainRequest{Backend: "10.20.0.11"}, vip4.String(), vip6.String())
	if d.timeout != 0 {
		t.Errorf("timeout is %v", d.timeout)
	}
	for _, want := range []string{vip4.String() + " " + vip6.String(), ""} {
		all, err := c.Drains(t.Context())
		require.NoError(t, err)
		if (len(all.Drains) == 2) != (want != "") {
			t.Errorf("the drains are %v", all.Drains)
		}
		res, err := c.Undrain(t.Context(), &remorav1.UndrainRequest{Backend: "10.20.0.11"})
		require.NoError(t, err)
		if got := strings.Join(res.Vips, " "); got != want {
			t.Errorf("undrained for %q, want %q", got, want)
		}
	}
	for _, want := range []string{`msg="control API: drain" vip=192.0.2.10:80/tcp real=10.20.0.11 deadline=`, `msg="control API: undrain"`, "uid=0 pid="} {
		if !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := serve(t, &fakeDaemon{})
	c := s.client(t)
	for _, tc := range []struct {
		name         string
		vip, backend string
		timeout      *durationpb.Duration
		code         Code
		object       string
		want         []string
	}{
		{"no VIP's text", "192.0.2.10", "10.20.0.11", nil, CodeInvalid, "vip", []string{`parse VIP "192.0.2.10": no protocol`, "write it as"}},
		{"no address", "", "ten", nil, CodeInvalid, "backend", []string{`backend: "ten" is not an IPv4 or IPv6 address`}},
		{"no backend", vip4.String(), "", nil, CodeInvalid, "backend", []string{`"" is not an IPv4`}},
		{"timeout 0", "", "10.20.0.11", durationpb.New(0), CodeInvalid, "timeout", []string{"timeout: 0s is not more than 0"}},
		{"negative timeout", "", "10.20.0.11", durationpb.New(-1), CodeInvalid, "timeout", []string{"timeout: -1ns"}},
		{"timeout of years", "", "10.20.0.11", &durationpb.Duration{Seconds: 1 << 60}, CodeInvalid, "timeout", []string{"at most 8760h"}},
		{"unknown VIP", "192.0.2.11:80/tcp", "10.20.0.11", nil, CodeNotFound, "192.0.2.11:80/tcp", []string{"there is no VIP 192.0.2.11:80/tcp; the nearest: 192.0.2.10:80/tcp"}},
		{"unknown backend", vip4.String(), "10.20.0.13", nil, CodeNotFound, vip4.String() + " 10.20.0.13", []string{"the nearest: 10.20.0.11, 10.20.0.12"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check := func(err error) {
				t.Helper()
				require.ErrorSays(t, err, tc.want...)
				if e := err.(*Error); e.Code != tc.code || e.Object != tc.object {
					t.Errorf("%+v", e)
				}
			}
			_, err := c.Drain(t.Context(), &remorav1.DrainRequest{Vip: tc.vip, Backend: tc.backend, Timeout: tc.timeout})
			check(err)
			if tc.timeout != nil {
				return
			}
			_, err = c.Undrain(t.Context(), &remorav1.UndrainRequest{Vip: tc.vip, Backend: tc.backend})
			check(err)
			check(c.WatchDrain(t.Context(), &remorav1.WatchDrainRequest{Vip: tc.vip, Backend: tc.backend}, nil))
		})
	}
}

// TestFaults: errors, panics and silence of the daemon are answers, and it goes on.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status func(context.Context) (Status, error)
		code   Code
		want   string
		log    string
	}{
		{"error", func(context.Context) (Status, error) { return Status{}, errors.New("map is gone") }, CodeInternal, "map is gone", `error="map is gone"`},
		{"refusal", func(context.Context) (Status, error) {
			return Status{}, &Error{CodeUnavailable, "x", "not yet", "wait"}
		}, CodeUnavailable, "not yet; wait", ""},
		{"panic", func(context.Context) (Status, error) { panic("broken") }, CodeInternal, "the daemon has a fault", "panic=broken"},
		{"silence", func(ctx context.Context) (Status, error) {
			<-ctx.Done()
			return Status{}, ctx.Err()
		}, CodeLate, "GetStatus took too long", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &fakeDaemon{status: tc.status}
			s := serve(t, d, func(_ *Config, b *bounds) { b.call = 100 * time.Millisecond })
			c := s.client(t)
			_, err := c.Status(t.Context())
			require.ErrorSays(t, err, tc.want)
			if e := err.(*Error); e.Code != tc.code {
				t.Errorf("%+v", e)
			}
			if log := s.log.String(); !strings.Contains(log, tc.log) || tc.log == "" && strings.Contains(log, "ERROR") {
				t.Errorf("the log is\n%s", log)
			}
			_, err = c.Undrain(t.Context(), &remorav1.UndrainRequest{Backend: "10.20.0.11"})
			require.NoError(t, err)
		})
	}
}

// TestPanicInStream: a stream's panic is its own, too.
func TestPanicInStream(t *testing.T) {
	s := serve(t, &fakeDaemon{drains: func(context.Context, Selection) ([]Drain, error) { panic("broken") }})
	err := s.client(t).WatchDrain(t.Context(), &remorav1.WatchDrainRequest{Backend: "10.20.0.11"}, nil)
	require.ErrorSays(t, err, "the daemon has a fault; its log says where")
	if !strings.Contains(s.log.String(), "panic=broken") {
		t.Errorf("the log is\n%s", s.log)
	}
}

// TestCurl speaks JSON as people do.
func TestCurl(t *testing.T) {
	require.Tools(t, "curl")
	s := serve(t, &fakeDaemon{status: func(context.Context) (Status, error) { return fullStatus(), nil }})
	curl := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
		require.NoError(t, err)
		return string(out)
	}
	t.Run("status", func(t *testing.T) {
		var got struct {
			Instance string
			Services []struct {
				Vips []struct{ Reals []map[string]any }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(curl(t, curlArgs(s.socket, "GetStatus", "{}")...)), &got))
		real := got.Services[0].Vips[0].Reals[0]
		if got.Instance != "lab" || real["use"] != "REAL_USE_DRAINING" || real["packets"] != "1099511627776" || real["flows"] != 3.0 {
			t.Errorf("status is %+v", got)
		}
	})
	for _, tc := range []struct{ name, method, body, want string }{
		{"drain", "Drain", `{"vip":"192.0.2.10:80/tcp","backend":"10.20.0.11","timeout":"60s"}`,
			`{"drains":[{"vip":"192.0.2.10:80/tcp","backend":"10.20.0.11","state":"DRAIN_STATE_RUNNING","since":"2026-03-01T12:00:00Z","deadline":"2026-03-01T12:01:00Z","slotsLeft":100,"flowsLeft":7,"activeFlows":3}]}`},
		{"undrain", "Undrain", `{"backend":"10.20.0.11"}`, `{"vips":["192.0.2.10:80/tcp"]}`},
		{"misspelt field", "Drain", `{"vip":"192.0.2.10:80/tcp","bakend":"10.20.0.11"}`, `unknown field \"bakend\"`},
		{"no JSON", "Drain", `{"vip":`, `"code":"invalid_argument"`},
		{"nothing", "GetStatus", "", "the body is empty: for no fields write {}"},
		{"another type", "Drain", `{"vip":1}`, `"code":"invalid_argument"`},
		{"no such method", "Drian", `{}`, "404 page not found"},
		{"with details", "Drain", `{"backend":"10.20.0.1"}`, `"debug":{"object":"10.20.0.1","cure":"the nearest: `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := curl(t, curlArgs(s.socket, tc.method, tc.body)...); !strings.Contains(got, tc.want) {
				t.Errorf("the answer is %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("another path", func(t *testing.T) {
		if got := curl(t, "-s", "--unix-socket", s.socket, "http://localhost/"); !strings.Contains(got, "the API is at POST /remora.v1.Control/METHOD") {
			t.Errorf("the answer is %q", got)
		}
	})
	t.Run("GET", func(t *testing.T) {
		got := curl(t, "-s", "--unix-socket", s.socket, "http://localhost/remora.v1.Control/GetStatus?encoding=json&message=%7B%7D")
		if !strings.HasPrefix(got, `{"version":"v1.2.3"`) {
			t.Errorf("the answer is %q", got)
		}
	})
}
