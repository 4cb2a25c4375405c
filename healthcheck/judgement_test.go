// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/remora-lb/remora/test/require"
)

var (
	dawn   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pass   = Result{}
	fails  = Result{Reason: Timeout}
	cannot = Result{Reason: Local}
)

// TestSequences gives a judgement one result a second and writes its verdicts: "+" a probe passes,
// "-" fails, "?" could not be sent; "u" up, "d" down, "s" suppressed, "." unknown.
func TestSequences(t *testing.T) {
	damping := Damping{Penalty: 1000, Suppress: 2200, Reuse: 700, HalfLife: 5 * time.Second, Longest: time.Minute}
	short := damping
	short.Longest = 8500 * time.Millisecond
	for _, tc := range []struct {
		name     string
		rules    Rules
		in, want string
	}{
		{"defaults from unknown to up", Rules{}, "++++", ".uuu"},
		{"defaults from unknown to down", Rules{}, "---+", "..dd"},
		{"unknown holds while results change", Rules{}, "+-+--+--+-", ".........."},
		{"rise and fall", Rules{Initial: Up}, "--+---++", "uuuuuddu"},
		{"rise 3, fall 1", Rules{Initial: Up, Rise: 3, Fall: 1}, "+-++-+++-", "uddddddud"},
		{"initially down", Rules{Initial: Down}, "+-+++", "ddduu"},
		{"initially up stays without results", Rules{Initial: Up}, "????", "uuuu"},
		{"what says nothing does not count", Rules{Initial: Up}, "--?-", "uuud"},
		{"what says nothing does not interrupt", Rules{}, "+??+", "...u"},
		{"flapping is suppressed", Rules{Initial: Up, Rise: 1, Fall: 1, Damping: damping}, "-+-+-++++++++++", "dudusssssssssuu"},
		{"flapping without damping", Rules{Initial: Up, Rise: 1, Fall: 1}, "-+-+-+", "dududu"},
		{"suppression is bounded", Rules{Initial: Up, Rise: 1, Fall: 1, Damping: short}, "-+-+-+-+-+-++++++++++", "dudusssssssssssssssuu"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.NoError(t, tc.rules.Validate())
			j := NewJudgement(tc.rules, dawn)
			var got strings.Builder
			for i, c := range tc.in {
				v := j.Observe(dawn.Add(time.Duration(i+1)*time.Second), map[rune]Result{'+': pass, '-': fails, '?': cannot}[c])
				got.WriteString(letter(v))
			}
			if got.String() != tc.want {
				t.Errorf("results  %s\nverdicts %s\nwant     %s", tc.in, &got, tc.want)
			}
		})
	}
}

func letter(v Verdict) string {
	if v.Suppressed {
		return "s"
	}
	return map[State]string{Up: "u", Down: "d", Unknown: "."}[v.State]
}

// TestPenalty follows the penalty through suppression and reuse.
func TestPenalty(t *testing.T) {
	j := NewJudgement(Rules{Initial: Up, Rise: 1, Fall: 1, Damping: Damping{
		Penalty: 1000, Suppress: 1500, Reuse: 500, HalfLife: 10 * time.Second, Longest: time.Minute,
	}}, dawn)
	for _, step := range []struct {
		second  int
		result  Result
		verdict string
		penalty float64
	}{
		{0, fails, "d", 1000},
		{1, pass, "u", 933},
		{10, fails, "d", 1500 - 0.000001},
		{11, pass, "u", 1399},
		{12, fails, "s", 2305},
		{13, pass, "s", 2151},
		{22, pass, "s", 1152},
		{34, pass, "s", 501.9},
		{35, pass, "u", 468.3},
	} {
		now := dawn.Add(time.Duration(step.second) * time.Second)
		if step.second == 10 {
			now = now.Add(time.Microsecond) // so that it just does not reach the limit
		}
		v := j.Observe(now, step.result)
		if p := j.Penalty(now); letter(v) != step.verdict || p < step.penalty-1 || p > step.penalty+1 {
			t.Errorf("second %d: %s with penalty %.1f, want %s with %.1f", step.second, letter(v), p, step.verdict, step.penalty)
		}
	}
}

func TestSlowStart(t *testing.T) {
	r := Rules{Rise: 1, Fall: 1, SlowStart: SlowStart{Duration: 4 * time.Second, Steps: 4}}
	for _, tc := range []struct {
		name     string
		initial  State
		in, want string
	}{
		{"after recovery", Up, "+-+++++++", "100 0 25 50 75 100 100 100 100"},
		{"from initially down", Down, "++", "25 50"},
		{"not when first known", Unknown, "++", "100 100"},
		{"broken off and begun again", Up, "-++-++", "0 25 50 0 25 50"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.Initial = tc.initial
			j := NewJudgement(r, dawn)
			var got []string
			for i, c := range tc.in {
				v := j.Observe(dawn.Add(time.Duration(i)*time.Second), map[rune]Result{'+': pass, '-': fails}[c])
				got = append(got, fmt.Sprint(v.Weight))
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("weights %s, want %s", s, tc.want)
			}
		})
	}
}

func TestAgentWeight(t *testing.T) {
	j := NewJudgement(Rules{Initial: Up}, dawn)
	for i, step := range []struct {
		asks, want int
	}{
		{-1, 100}, {50, 50}, {53, 50}, {55, 55}, {51, 55}, {0, 0}, {3, 0}, {5, 5}, {98, 98}, {100, 100}, {-1, 100},
	} {
		r := pass
		if step.asks >= 0 {
			r.Weight, r.HasWeight = step.asks, true
		}
		if v := j.Observe(dawn.Add(time.Duration(i)*time.Second), r); v.Weight != step.want || v.State != Up {
			t.Errorf("step %d: asked for %d, got %+v, want weight %d", i, step.asks, v, step.want)
		}
	}
}

func TestInterval(t *testing.T) {
	r := Rules{UpInterval: 2 * time.Second, DownInterval: 500 * time.Millisecond, Jitter: 10, Fall: 1, Initial: Up}
	j := NewJudgement(r, dawn)
	for _, tc := range []struct {
		u    float64
		want time.Duration
	}{{0, 1800 * time.Millisecond}, {0.5, 2 * time.Second}, {0.75, 2100 * time.Millisecond}} {
		if got := j.Interval(tc.u); got != tc.want {
			t.Errorf("up, %v: %v, want %v", tc.u, got, tc.want)
		}
	}
	j.Observe(dawn, fails)
	if got := j.Interval(0.5); got != 500*time.Millisecond {
		t.Errorf("down: %v", got)
	}
}

func TestSince(t *testing.T) {
	j := NewJudgement(Rules{Initial: Up, Fall: 1}, dawn)
	j.Observe(dawn.Add(time.Second), pass)
	if !j.Since().Equal(dawn) {
		t.Errorf("up since %v", j.Since())
	}
	j.Observe(dawn.Add(2*time.Second), fails)
	j.Observe(dawn.Add(3*time.Second), fails)
	if !j.Since().Equal(dawn.Add(2 * time.Second)) {
		t.Errorf("down since %v", j.Since())
	}
}

// TestSameRulesChangeNothing: a judgement whose rules are set again, at any time, goes on exactly as
// one that was left alone.
func TestSameRulesChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rules{
			Rise: rapid.IntRange(0, 4).Draw(t, "rise"), Fall: rapid.IntRange(0, 4).Draw(t, "fall"),
			Initial: State(rapid.IntRange(0, 2).Draw(t, "initial")),
		}
		if rapid.Bool().Draw(t, "damped") {
			r.Damping = Damping{Penalty: 100, Suppress: 250, Reuse: 50, HalfLife: 3 * time.Second, Longest: 20 * time.Second}
		}
		if rapid.Bool().Draw(t, "slow") {
			r.SlowStart = SlowStart{Duration: 5 * time.Second}
		}
		alone, reloaded := NewJudgement(r, dawn), NewJudgement(r, dawn)
		for i := range 40 {
			if rapid.Bool().Draw(t, "reload") {
				reloaded.SetRules(r)
			}
			result := Result{Reason: Reason(rapid.IntRange(0, 3).Draw(t, "reason"))}
			result.Weight, result.HasWeight = rapid.IntRange(0, 100).Draw(t, "weight"), rapid.Bool().Draw(t, "asks")
			now := dawn.Add(time.Duration(i) * 700 * time.Millisecond)
			alone.Observe(now, result)
			reloaded.Observe(now, result)
			if !reflect.DeepEqual(alone, reloaded) {
				t.Fatalf("step %d:\nalone    %+v\nreloaded %+v", i, alone, reloaded)
			}
		}
	})
}

func TestSetRules(t *testing.T) {
	damped := Rules{Initial: Up, Rise: 1, Fall: 1, Damping: Damping{Penalty: 1000, Suppress: 900, Reuse: 100, HalfLife: time.Minute, Longest: time.Hour}}
	j := NewJudgement(damped, dawn)
	j.Observe(dawn, fails)
	if v := j.Observe(dawn, pass); !v.Suppressed {
		t.Fatalf("verdict %+v", v)
	}
	undamped := damped
	undamped.Damping = Damping{}
	undamped.Fall = 2
	j.SetRules(undamped)
	if v := j.Verdict(); !v.Suppressed {
		t.Errorf("new rules alone changed the verdict to %+v", v)
	}
	if v := j.Observe(dawn.Add(time.Second), pass); v != (Verdict{State: Up, Weight: 100}) {
		t.Errorf("without damping: %+v", v)
	}
	if v := j.Observe(dawn.Add(2*time.Second), fails); v.State != Up {
		t.Errorf("one failure of two: %+v", v)
	}
}

func TestRulesValidate(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rules Rules
		want  []string
	}{
		{"defaults", Rules{}, nil},
		{"numbers", Rules{Rise: -1, Fall: 1001, Jitter: 51, Initial: 9, AgentStep: 101}, []string{
			"Rise: -1", "Fall: 1001", "Jitter: 51", "Initial: 9", "AgentStep: 101",
		}},
		{"times", Rules{UpInterval: time.Microsecond, DownInterval: 2 * time.Hour, SlowStart: SlowStart{Duration: -1, Steps: 1}}, []string{
			"UpInterval: 1µs", "DownInterval: 2h", "SlowStart.Duration: -1ns", "SlowStart.Steps: 1",
		}},
		{"damping without penalty", Rules{Damping: Damping{Suppress: 1}}, []string{"Damping: Penalty is 0"}},
		{"damping", Rules{Damping: Damping{Penalty: 1, Suppress: 5, Reuse: 5, HalfLife: time.Minute, Longest: time.Second}}, []string{
			"Damping.Reuse: 5", "Damping.Longest: 1s",
		}},
		{"damping that never comes", Rules{Damping: Damping{Penalty: 1, Suppress: 9, Reuse: 2, HalfLife: time.Minute, Longest: 2 * time.Minute}}, []string{
			"Damping.Longest: 2m0s is too short: the penalty would be bounded to 8, less than Suppress, 9",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.rules.Validate()
			if len(tc.want) == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorSays(t, err, tc.want...)
		})
	}
}
