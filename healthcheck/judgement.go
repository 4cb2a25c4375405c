// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"math"
	"time"
)

// State is what is held of a server.
type State uint8

// The states.
const (
	// Unknown: not enough was seen yet.
	Unknown State = iota
	Up
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// Verdict is what a judgement says to the outside.
type Verdict struct {
	State State
	// Weight is the share of its configured weight that the server shall have, in percent: less
	// than 100 in slow start or because the server asks for it, 0 if it is down.
	Weight int
	// Suppressed tells that the server passes, or may pass, but is kept down because it went up
	// and down too often.
	Suppressed bool
}

// Judgement makes a verdict of the results of one check. It is a plain value: it reads no clock,
// may be copied, and belongs to whoever has it. Calls must come in the order of time.
type Judgement struct {
	rules Rules
	// state follows the results alone.
	state State
	// streak counts the results in a row that speak against state: passed ones if positive, failed
	// ones if negative.
	streak int

	penalty    float64
	penaltyAt  time.Time
	suppressed bool

	// recovered is when slow start began; zero if there was no reason for one.
	recovered time.Time
	// agent is the weight that the server asked for last, 100 if never.
	agent int

	verdict Verdict
	since   time.Time
}

// NewJudgement begins with the initial state of the rules. The rules must be valid.
func NewJudgement(r Rules, now time.Time) Judgement {
	j := Judgement{rules: r.withDefaults(), state: r.Initial, agent: 100, since: now}
	j.verdict = j.judge(now)
	return j
}

// Verdict is the verdict after the last call of Observe.
func (j *Judgement) Verdict() Verdict { return j.verdict }

// Since is when the state of the verdict changed last.
func (j *Judgement) Since() time.Time { return j.since }

// Penalty is the penalty for flapping at a time.
func (j *Judgement) Penalty(now time.Time) float64 {
	if j.penalty == 0 {
		return 0
	}
	return j.penalty * math.Exp2(-now.Sub(j.penaltyAt).Seconds()/j.rules.Damping.HalfLife.Seconds())
}

// SetRules changes the rules and keeps what was learned. The same rules change nothing. New ones
// have effect from the next result on.
func (j *Judgement) SetRules(r Rules) {
	r = r.withDefaults()
	if r.Damping == (Damping{}) {
		j.penalty = 0
	}
	j.rules = r
}

// Interval is the time from the start of one probe to the start of the next; u is a random number
// from 0 up to, but not including, 1.
func (j *Judgement) Interval(u float64) time.Duration {
	d := j.rules.DownInterval
	if j.state == Up {
		d = j.rules.UpInterval
	}
	return time.Duration(float64(d) * (1 + float64(j.rules.Jitter)/100*(2*u-1)))
}

// Observe takes one result into account and returns the verdict. Results that say nothing about
// the server count neither way, but time goes on with them.
func (j *Judgement) Observe(now time.Time, r Result) Verdict {
	if r.Conclusive() {
		j.count(now, r.OK())
		j.hear(r)
	}
	j.damp(now)
	old := j.verdict.State
	if next := j.effective(); next != old {
		j.since = now
		j.recovered = time.Time{}
		if old == Down && next == Up {
			j.recovered = now
		}
	}
	j.verdict = j.judge(now)
	return j.verdict
}

// count moves the state along when enough results in a row speak against it.
func (j *Judgement) count(now time.Time, passed bool) {
	switch {
	case passed && j.state != Up:
		j.streak = max(j.streak, 0) + 1
	case !passed && j.state != Down:
		j.streak = min(j.streak, 0) - 1
	default:
		j.streak = 0
	}
	switch {
	case j.streak >= j.rules.Rise:
		j.state, j.streak = Up, 0
	case -j.streak >= j.rules.Fall:
		if j.state == Up {
			j.punish(now)
		}
		j.state, j.streak = Down, 0
	}
}

// punish adds to the penalty.
func (j *Judgement) punish(now time.Time) {
	d := j.rules.Damping
	if d.Penalty == 0 {
		return
	}
	j.penalty = min(j.Penalty(now)+float64(d.Penalty), d.most())
	j.penaltyAt = now
}

func (j *Judgement) damp(now time.Time) {
	d := j.rules.Damping
	switch p := j.Penalty(now); {
	case d.Penalty == 0 || p < float64(d.Reuse):
		j.suppressed = false
	case p >= float64(d.Suppress):
		j.suppressed = true
	}
}

// hear takes over the weight that a server asks for, if it differs enough: every change of a
// weight changes the ring.
func (j *Judgement) hear(r Result) {
	if !r.OK() || !r.HasWeight {
		return
	}
	difference := max(r.Weight-j.agent, j.agent-r.Weight)
	if difference >= j.rules.AgentStep || r.Weight == 0 || r.Weight == 100 {
		j.agent = r.Weight
	}
}

func (j *Judgement) effective() State {
	if j.suppressed {
		return Down
	}
	return j.state
}

func (j *Judgement) judge(now time.Time) Verdict {
	v := Verdict{State: j.effective(), Suppressed: j.suppressed}
	if v.State != Down {
		v.Weight = j.weight(now)
	}
	return v
}

// weight is the product of slow start and the server's own wish. Only a wish makes it 0.
func (j *Judgement) weight(now time.Time) int {
	slow := 100
	if s := j.rules.SlowStart; s.Duration > 0 && !j.recovered.IsZero() {
		if passed := now.Sub(j.recovered); passed < s.Duration {
			step := 1 + int(int64(passed)*int64(s.Steps)/int64(s.Duration))
			slow = 100 * step / s.Steps
		}
	}
	if j.agent == 0 {
		return 0
	}
	return max(1, slow*j.agent/100)
}
