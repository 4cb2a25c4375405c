// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package healthcheck

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Defaults of Rules.
const (
	DefaultRise      = 2
	DefaultFall      = 3
	DefaultInterval  = time.Second
	DefaultAgentStep = 5
)

// Rules say how results become a verdict, and how often to ask. Rules are comparable.
type Rules struct {
	// Rise is how many probes in a row must pass before a server is up, Fall how many must fail
	// before it is down; 1 to 1000. Defaults: 2 and 3.
	Rise, Fall int
	// UpInterval is the time from the start of one probe to the start of the next while the server
	// is up, DownInterval while it is down or nothing is known yet; 1 ms to 1 h. Defaults: 1 s, and
	// UpInterval.
	UpInterval, DownInterval time.Duration
	// Jitter is by how much intervals vary, in percent in either direction, 0 to 50. Default: 0;
	// checks are spread over the interval when they start, with or without jitter.
	Jitter int
	// Initial is the verdict before Rise or Fall is reached for the first time. Default: Unknown,
	// for which whoever uses the verdict keeps what he had.
	Initial State
	// Damping keeps a server down that goes up and down too often. Default: off.
	Damping Damping
	// SlowStart gives a server that recovered its weight in steps. Default: off.
	SlowStart SlowStart
	// AgentStep is by how many percent points the weight that a server asks for must differ from
	// the one in force to be taken over, 1 to 100. 0 and 100 percent are always taken over.
	// Default: 5.
	AgentStep int
}

// Damping counts a penalty for each time a server goes down. The penalty halves every HalfLife;
// once it reaches Suppress, the server is kept down until it is below Reuse.
type Damping struct {
	// Penalty is added each time, 1 to 1e6. 0: no damping, and all other fields must be 0.
	Penalty int
	// Suppress and Reuse are in units of Penalty's; Reuse is at least 1 and less than Suppress.
	Suppress, Reuse int
	// HalfLife is 1 s to 24 h.
	HalfLife time.Duration
	// Longest is how long a server is kept down after it went down for the last time, HalfLife to
	// 24 h; the penalty is bounded accordingly.
	Longest time.Duration
}

// most is what decays to Reuse within Longest.
func (d Damping) most() float64 {
	return float64(d.Reuse) * math.Exp2(d.Longest.Seconds()/d.HalfLife.Seconds())
}

// SlowStart gives a server that goes from down to up one step's share of its weight, and one more
// after every Duration/Steps. A server that was never down starts with its whole weight.
type SlowStart struct {
	// Duration is the time until the whole weight, 0 to 1 h. 0: no slow start.
	Duration time.Duration
	// Steps is 2 to 100. Default: 10. Every step changes the ring.
	Steps int
}

// withDefaults fills in the fields that were left zero.
func (r Rules) withDefaults() Rules {
	for _, d := range []struct {
		field    *int
		fallback int
	}{{&r.Rise, DefaultRise}, {&r.Fall, DefaultFall}, {&r.AgentStep, DefaultAgentStep}, {&r.SlowStart.Steps, 10}} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	if r.UpInterval == 0 {
		r.UpInterval = DefaultInterval
	}
	if r.DownInterval == 0 {
		r.DownInterval = r.UpInterval
	}
	return r
}

// Validate reports all problems, each with the name of its field.
func (r Rules) Validate() error {
	r = r.withDefaults()
	var errs []error
	number := func(field string, n, least, most int) {
		if n < least || n > most {
			errs = append(errs, fmt.Errorf("%s: %d is not from %d to %d", field, n, least, most))
		}
	}
	length := func(field string, d, least, most time.Duration) {
		if d < least || d > most {
			errs = append(errs, fmt.Errorf("%s: %v is not from %v to %v", field, d, least, most))
		}
	}
	number("Rise", r.Rise, 1, 1000)
	number("Fall", r.Fall, 1, 1000)
	length("UpInterval", r.UpInterval, time.Millisecond, time.Hour)
	length("DownInterval", r.DownInterval, time.Millisecond, time.Hour)
	number("Jitter", r.Jitter, 0, 50)
	number("Initial", int(r.Initial), int(Unknown), int(Down))
	number("AgentStep", r.AgentStep, 1, 100)
	length("SlowStart.Duration", r.SlowStart.Duration, 0, time.Hour)
	number("SlowStart.Steps", r.SlowStart.Steps, 2, 100)
	if d := r.Damping; d.Penalty != 0 {
		number("Damping.Penalty", d.Penalty, 1, 1e6)
		number("Damping.Reuse", d.Reuse, 1, max(1, d.Suppress-1))
		number("Damping.Suppress", d.Suppress, 2, 1e9)
		length("Damping.HalfLife", d.HalfLife, time.Second, 24*time.Hour)
		length("Damping.Longest", d.Longest, d.HalfLife, 24*time.Hour)
		if most := d.most(); d.HalfLife > 0 && most < float64(d.Suppress) {
			errs = append(errs, fmt.Errorf("Damping.Longest: %v is too short: the penalty would be bounded to %.0f, less than Suppress, %d",
				d.Longest, most, d.Suppress))
		}
	} else if d != (Damping{}) {
		errs = append(errs, errors.New("Damping: Penalty is 0, so the other fields have no effect"))
	}
	return errors.Join(errs...)
}
