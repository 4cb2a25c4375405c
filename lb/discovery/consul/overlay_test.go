// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

const who = `"author": "ada", "reason": "disk", "expires": "2030-01-02T15:04:05Z"`

func TestParseOverlay(t *testing.T) {
	for _, tc := range []struct {
		name, document, bad string
	}{
		{"drain of a backend", `{"service": "web", "action": "drain", "backend": "10.0.0.1", ` + who + `}`, ""},
		{"drain of a node everywhere", `{"service": "*", "action": "drain", "node": "n1", ` + who + `}`, ""},
		{"weight", `{"service": "web", "action": "weight", "backend": "2001:db8::1", "factor": 0.5, ` + who + `}`, ""},
		{"freeze", `{"service": "web", "action": "freeze", ` + who + `}`, ""},
		{"nothing", ``, "not an override: EOF"},
		{"half", `{"service": "web"`, "unexpected EOF"},
		{"not an object", `[]`, "cannot unmarshal"},
		{"null", `null`, "service: \"\""},
		{"two documents", `{"service": "web", "action": "freeze", ` + who + `} {}`, "something follows"},
		{"a field that is none", `{"servise": "web", ` + who + `}`, `unknown field "servise"`},
		{"no service", `{"action": "freeze", ` + who + `}`, `service: "" is not`},
		{"freeze of everything", `{"service": "*", "action": "freeze", ` + who + `}`, `service: "*" is not`},
		{"an action that is none", `{"service": "web", "action": "stop", ` + who + `}`, `action: "stop" is not drain, weight or freeze`},
		{"drain of nobody", `{"service": "web", "action": "drain", ` + who + `}`, "needs a backend or a node"},
		{"drain of both", `{"service": "web", "action": "drain", "backend": "10.0.0.1", "node": "n1", ` + who + `}`, "not both"},
		{"no address", `{"service": "web", "action": "drain", "backend": "n1", ` + who + `}`, "ParseAddr"},
		{"freeze of a backend", `{"service": "web", "action": "freeze", "backend": "10.0.0.1", ` + who + `}`, "no backend or node"},
		{"weight without a factor", `{"service": "web", "action": "weight", "node": "n1", ` + who + `}`, "factor: 0 is not more than 0"},
		{"a negative factor", `{"service": "web", "action": "weight", "node": "n1", "factor": -1, ` + who + `}`, "factor: -1"},
		{"a factor too large", `{"service": "web", "action": "weight", "node": "n1", "factor": 101, ` + who + `}`, "factor: 101"},
		{"drain with a factor", `{"service": "web", "action": "drain", "node": "n1", "factor": 1, ` + who + `}`, "only action weight"},
		{"no author", `{"service": "web", "action": "freeze", "reason": "x", "expires": "2030-01-02T15:04:05Z"}`, "author: missing"},
		{"a blank reason", `{"service": "web", "action": "freeze", "author": "ada", "reason": "  ", "expires": "2030-01-02T15:04:05Z"}`, "reason: missing"},
		{"no end", `{"service": "web", "action": "freeze", "author": "ada", "reason": "x"}`, "expires: missing"},
		{"an end that is no time", `{"service": "web", "action": "freeze", "author": "ada", "reason": "x", "expires": "soon"}`, "cannot parse"},
		{"a long author", `{"service": "web", "action": "freeze", "author": "` + strings.Repeat("a", 513) + `", "reason": "x", "expires": "2030-01-02T15:04:05Z"}`, "513 bytes"},
		{"a long document", strings.Repeat(" ", 20_000), "20000 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := Pair{Key: "good", Value: []byte(`{"service": "good", "action": "freeze", ` + who + `}`)}
			overlay, bad := ParseOverlay([]Pair{{Key: "tried", Value: []byte(tc.document)}, good, {Key: "folder/"}})
			if overlay[0].Key != "good" {
				t.Errorf("the good document is gone: %+v", overlay)
			}
			if tc.bad == "" {
				if len(overlay) != 2 || len(bad) != 0 || overlay[1].Author != "ada" {
					t.Errorf("overlay %+v, bad %+v", overlay, bad)
				}
				return
			}
			if len(overlay) != 1 || len(bad) != 1 || bad[0].Key != "tried" || !strings.Contains(bad[0].Reason, tc.bad) {
				t.Errorf("overlay %+v, bad %+v, want %q", overlay, bad, tc.bad)
			}
		})
	}
}

func TestApply(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	later, past := now.Add(time.Hour), now
	verdicts := []Verdict{
		{ID: ID{"n1", "a"}, Backend: lb.Backend{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 10}, State: Active},
		{ID: ID{"n2", "b"}, Backend: lb.Backend{Addr: netip.MustParseAddr("10.0.0.2"), Weight: 10}, State: Down},
		{ID: ID{"n2", "c"}, State: Refused},
	}
	first := verdicts[0].Backend.Addr
	for _, tc := range []struct {
		name    string
		overlay Overlay
		want    string
	}{
		{"nothing", nil, "10 active 10 down 0 refused"},
		{"drain of a backend", Overlay{{Service: "web", Action: ActionDrain, Backend: first, Expires: later}}, "10 drain 10 down 0 refused"},
		{"drain of a node", Overlay{{Service: "*", Action: ActionDrain, Node: "n2", Expires: later}}, "10 active 10 drain 0 refused"},
		{"of another service", Overlay{{Service: "dns", Action: ActionDrain, Backend: first, Expires: later}}, "10 active 10 down 0 refused"},
		{"expired this moment", Overlay{{Service: "web", Action: ActionDrain, Backend: first, Expires: past}}, "10 active 10 down 0 refused"},
		{"weight", Overlay{{Service: "web", Action: ActionWeight, Backend: first, Factor: 0.25, Expires: later}}, "3 active 10 down 0 refused"},
		{"least weight", Overlay{{Service: "web", Action: ActionWeight, Node: "n1", Factor: 0.001, Expires: later}}, "1 active 10 down 0 refused"},
		{"the first of two weights", Overlay{
			{Service: "web", Action: ActionWeight, Node: "n1", Factor: 2, Expires: later},
			{Service: "web", Action: ActionWeight, Node: "n1", Factor: 3, Expires: later},
		}, "20 active 10 down 0 refused"},
		{"drain and weight", Overlay{
			{Service: "web", Action: ActionWeight, Node: "n1", Factor: 2, Expires: later},
			{Service: "web", Action: ActionDrain, Node: "n1", Expires: later},
		}, "20 drain 10 down 0 refused"},
		{"freeze changes no verdict", Overlay{{Service: "web", Action: ActionFreeze, Expires: later}}, "10 active 10 down 0 refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, v := range tc.overlay.Apply("web", verdicts, now) {
				got = append(got, fmt.Sprintf("%d %s", v.Backend.Weight, v.State))
				if changed := v.State == Drain; changed && !strings.Contains(v.Reason, "drain until 2030-01-01T01:00:00Z") {
					t.Errorf("reason %q", v.Reason)
				}
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	if verdicts[0].State != Active || verdicts[0].Backend.Weight != 10 {
		t.Errorf("what was given has changed: %+v", verdicts)
	}
}

func TestFrozenAndExpiry(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	o := Overlay{
		{Service: "web", Action: ActionFreeze, Expires: now.Add(2 * time.Hour)},
		{Service: "dns", Action: ActionFreeze, Expires: now.Add(time.Hour)},
		{Service: "old", Action: ActionFreeze, Expires: now.Add(-time.Hour)},
		{Service: "drained", Action: ActionDrain, Node: "n1", Expires: now.Add(3 * time.Hour)},
	}
	for service, want := range map[string]bool{"web": true, "dns": true, "old": false, "drained": false} {
		if _, frozen := o.Frozen(service, now); frozen != want {
			t.Errorf("%s frozen: %v", service, frozen)
		}
	}
	for _, step := range []struct {
		at, want time.Duration
	}{{0, time.Hour}, {time.Hour, 2 * time.Hour}, {2 * time.Hour, 3 * time.Hour}} {
		if got := o.NextExpiry(now.Add(step.at)); !got.Equal(now.Add(step.want)) {
			t.Errorf("after %v the next is %v, want %v", step.at, got, step.want)
		}
	}
	if got := o.NextExpiry(now.Add(3 * time.Hour)); !got.IsZero() {
		t.Errorf("an expiry %v where there is none", got)
	}
}
