// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"strings"
	"testing"
	"time"
)

// TestReasons: what people are told where the code alone would mislead them.
func TestReasons(t *testing.T) {
	const own = "the self-test could not be made: operation not permitted"
	for _, tc := range []struct {
		name   string
		before func(*Facts) // in the first step; nil for none
		change func(*Facts)
		state  State
		code   Code
		says   string
	}{
		{"the checks of the service", nil, func(f *Facts) { f.Unservable = "1 of 3 reals are healthy, at least 2 must be" }, Waiting, CodeTooFewHealthy, "at least 2 must be"},
		{"never tested", nil, func(f *Facts) { f.SelfTest, f.Untested = false, own }, Waiting, CodeSelfTest, "no self-test has passed: " + own},
		{"tested before", func(*Facts) {}, func(f *Facts) { f.Untested = own }, Announced, CodeServed, own},
		{"the test failed before", func(f *Facts) { f.SelfTest = false }, func(f *Facts) { f.SelfTest = false }, Waiting, CodeSelfTest, "did not come out"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := New(config())
			if err != nil {
				t.Fatal(err)
			}
			step := func(at int, change func(*Facts)) Status {
				f := ready()
				change(&f)
				w := &world{t: t, facts: map[string]*Facts{web: &f}}
				return m.Step(time.Unix(int64(at), 0), w.inputs()).VIPs[0]
			}
			if tc.before != nil {
				step(1, tc.before)
			}
			got := step(2, tc.change)
			if got.State != tc.state || got.Code != tc.code || !strings.Contains(got.Reason, tc.says) {
				t.Errorf("%s, %s: %q; want %s, %s: %q", got.State, got.Code, got.Reason, tc.state, tc.code, tc.says)
			}
		})
	}
}
