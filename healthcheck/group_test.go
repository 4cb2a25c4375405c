// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"strings"
	"testing"

	"github.com/remora-lb/remora/test/require"
)

// TestCombine tries all pairs of verdicts under all policies, for a real that is not in service.
func TestCombine(t *testing.T) {
	for _, tc := range []struct {
		policy Policy
		// rows: local unknown, up, down; columns: outside unknown, up, down.
		want [3][3]State
	}{
		{PolicyLocal, [3][3]State{{Unknown, Unknown, Unknown}, {Up, Up, Up}, {Down, Down, Down}}},
		{PolicyConsul, [3][3]State{{Unknown, Up, Down}, {Unknown, Up, Down}, {Unknown, Up, Down}}},
		{PolicyBoth, [3][3]State{{Unknown, Unknown, Down}, {Unknown, Up, Down}, {Down, Down, Down}}},
	} {
		for local := range tc.want {
			for outside, want := range tc.want[local] {
				m := Member{Local: Verdict{State: State(local), Weight: 100}, Outside: State(outside)}
				for _, serving := range []bool{false, true} {
					m.Serving = serving
					d := Decide(GroupRules{Policy: tc.policy}, []Member{m})
					got := d.Members[0]
					serve := want == Up || want == Unknown && serving
					if got.Combined != want || got.Serve != serve || got.Member != m || d.Servable != serve {
						t.Errorf("%s, local %s, outside %s, serving %v: %+v", tc.policy, m.Local.State, m.Outside, serving, d)
					}
				}
			}
		}
	}
}

func TestDecide(t *testing.T) {
	up, down := Member{Local: Verdict{State: Up, Weight: 100}}, Member{Local: Verdict{State: Down}}
	slow, drained := Member{Local: Verdict{State: Up, Weight: 20}}, Member{Local: Verdict{State: Up}}
	listed := Member{Local: Verdict{State: Down}, Outside: Up}
	for _, tc := range []struct {
		name               string
		rules              GroupRules
		members            []Member
		weights            []int // -1: does not serve
		servable, failOpen bool
		detail             string
	}{
		{"all up", GroupRules{}, []Member{up, slow, drained}, []int{100, 20, 0}, true, false, ""},
		{"none", GroupRules{}, []Member{down, down}, []int{-1, -1}, false, false, "0 of 2 reals are healthy"},
		{"empty", GroupRules{FailOpen: 100}, nil, nil, false, false, "0 of 0"},
		{"one is enough", GroupRules{MinHealthy: 1}, []Member{up, down}, []int{100, -1}, true, false, ""},
		{"too few", GroupRules{MinHealthy: 2}, []Member{up, down}, []int{100, -1}, false, false, "1 of 2 reals are healthy, at least 2 must be"},
		{"at the threshold", GroupRules{FailOpen: 50}, []Member{up, down}, []int{100, -1}, true, false, ""},
		{"below the threshold", GroupRules{FailOpen: 51}, []Member{slow, down}, []int{20, 100}, true, true, "1 of 2 reals are healthy, less than 51%: all are kept"},
		{"none, fail open", GroupRules{FailOpen: 1}, []Member{down, down}, []int{100, 100}, true, true, "less than 1%"},
		{"fail open does not lower the least", GroupRules{FailOpen: 80, MinHealthy: 2}, []Member{up, down}, []int{100, 100}, false, true, "but at least 2"},
		{"the catalogue alone", GroupRules{Policy: PolicyConsul}, []Member{listed, {Outside: Up}}, []int{100, 100}, true, false, ""},
		{"nothing known, in service", GroupRules{}, []Member{{Serving: true}, {}}, []int{100, -1}, true, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, tc.rules.Validate())
			d := Decide(tc.rules, tc.members)
			for i, m := range d.Members {
				if m.Serve != (tc.weights[i] >= 0) || m.Serve && m.Weight != tc.weights[i] {
					t.Errorf("member %d: %+v, want weight %d", i, m, tc.weights[i])
				}
			}
			if d.Servable != tc.servable || d.FailOpen != tc.failOpen || !strings.Contains(d.Detail, tc.detail) || (d.Detail == "") != (tc.detail == "") {
				t.Errorf("servable %v, fail-open %v, %q", d.Servable, d.FailOpen, d.Detail)
			}
		})
	}
}

func TestPolicyText(t *testing.T) {
	for _, p := range []Policy{PolicyLocal, PolicyConsul, PolicyBoth} {
		if got, err := ParsePolicy(p.String()); err != nil || got != p {
			t.Errorf("%s is read as %v, %v", p, got, err)
		}
	}
	_, err := ParsePolicy("Both")
	require.ErrorSays(t, err, `policy "Both" is not local, consul or both`)
}

func TestGroupRulesValidate(t *testing.T) {
	err := GroupRules{Policy: 7, MinHealthy: -1, FailOpen: 101}.Validate()
	require.ErrorSays(t, err, "Policy: there is no policy 7", "MinHealthy: -1 is negative", "FailOpen: 101 is not from 0 to 100")
}
