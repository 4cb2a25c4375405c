// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package governor

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config is how much the governor lets through. Start from DefaultConfig: zero means something of
// its own.
type Config struct {
	// MaxReals and MaxWeightPercent are the blast radius: so many backends of a service, or so much
	// of its weight, may be lost within one Step; whichever allows more. MaxReals: default 1, at
	// least 0. MaxWeightPercent: default 25, 0 to 100; with 100 only EmptyHold is left.
	MaxReals         int
	MaxWeightPercent int
	// Step is the time over which losses add up. Default 1 minute; more than 0.
	Step time.Duration
	// Hold is how long a loss beyond the blast radius is held. Default 5 minutes; 0 holds nothing.
	Hold time.Duration
	// EmptyHold is how long losses are held that would leave no backend that takes new flows.
	// Default 5 minutes; at least Hold.
	EmptyHold time.Duration
	// Damping keeps out what comes and goes.
	Damping Damping
}

// Damping is flap damping as routers have it (RFC 2439). Each loss of a backend adds 1 to its
// penalty, which halves in every HalfLife. From Suppress on, gains of the backend are held until
// the penalty has fallen to Reuse.
type Damping struct {
	// Suppress is the penalty from which on gains are held. Default 3, which the fourth
	// of a row of losses reaches; more than 1, or 0 to damp nothing.
	Suppress float64
	// Reuse is the penalty at which gains are no longer held. Default 1; more than 0 and less than
	// Suppress.
	Reuse float64
	// HalfLife is the time in which the penalty halves. Default 5 minutes; more than 0.
	HalfLife time.Duration
	// MaxSuppress is how long gains are held at most after the last loss. Default 15 minutes; at
	// least the time from Suppress to Reuse.
	MaxSuppress time.Duration
}

// DefaultConfig is the configuration with all defaults.
func DefaultConfig() Config {
	return Config{
		MaxReals:         1,
		MaxWeightPercent: 25,
		Step:             time.Minute,
		Hold:             5 * time.Minute,
		EmptyHold:        5 * time.Minute,
		Damping:          Damping{Suppress: 3, Reuse: 1, HalfLife: 5 * time.Minute, MaxSuppress: 15 * time.Minute},
	}
}

// Validate reports all problems, each with the path of its field.
func (c Config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.MaxReals < 0 {
		problem("MaxReals: %d is negative", c.MaxReals)
	}
	if c.MaxWeightPercent < 0 || c.MaxWeightPercent > 100 {
		problem("MaxWeightPercent: %d is not 0 to 100", c.MaxWeightPercent)
	}
	if c.Step <= 0 {
		problem("Step: %v is not more than 0", c.Step)
	}
	if c.Hold < 0 {
		problem("Hold: %v is negative", c.Hold)
	}
	if c.EmptyHold < c.Hold {
		problem("EmptyHold: %v is less than Hold, %v", c.EmptyHold, c.Hold)
	}
	return errors.Join(append(errs, c.Damping.validate()...)...)
}

func (d Damping) validate() (errs []error) {
	if d.Suppress == 0 {
		return nil
	}
	problem := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !(d.Suppress > 1) || math.IsInf(d.Suppress, 0) {
		problem("Damping.Suppress: %v is neither 0 nor a number above 1", d.Suppress)
	}
	if !(d.Reuse > 0 && d.Reuse < d.Suppress) {
		problem("Damping.Reuse: %v is not between 0 and Suppress, %v", d.Reuse, d.Suppress)
	}
	if d.HalfLife <= 0 {
		problem("Damping.HalfLife: %v is not more than 0", d.HalfLife)
	}
	if len(errs) > 0 {
		return errs
	}
	if least := d.fallTime(d.Suppress); d.MaxSuppress < least {
		problem("Damping.MaxSuppress: %v is less than %v, the time from Suppress to Reuse", d.MaxSuppress, least)
	}
	return errs
}
