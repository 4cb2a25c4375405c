// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Defaults of Config.
const (
	DefaultMinReals      = 1
	DefaultDrainTime     = 60 * time.Second
	DefaultWithdrawTime  = 5 * time.Second
	DefaultDegradedHold  = 10 * time.Second
	DefaultPenalty       = 1000
	DefaultSuppress      = 2500
	DefaultReuse         = 800
	DefaultHalfLife      = 60 * time.Second
	DefaultMaxSuppressed = 5 * time.Minute
)

// Share says when a prefix that holds several VIPs is announced.
type Share uint8

const (
	// ShareAll announces it while all of its VIPs can be served: no client ever meets a balancer
	// that cannot serve it. The price is that one VIP that is drained or has no healthy reals
	// takes its neighbours with it, without a fleet guard on all balancers. A VIP that is new in
	// an announced prefix takes nothing with it until it has been served once.
	ShareAll Share = iota
	// ShareAny announces it while at least one of its VIPs can be served. Clients of the others
	// are refused or not answered here even if another balancer could serve them.
	ShareAny
)

func (s Share) String() string {
	if s == ShareAny {
		return "any"
	}
	return "all"
}

// Config is what a Machine needs to know. The fields with a default take it where they are 0.
type Config struct {
	// MinReals is the number of healthy reals below which a VIP is not announced. From 1. Default:
	// 1.
	MinReals int
	// MinWeightPercent is the healthy share of the weight of all reals below which it is not. 0 to
	// 100. 0: any.
	MinWeightPercent int
	// DegradedPercent is the healthy share of the weight of all reals below which a VIP is
	// announced as degraded. 0 to 100, not less than MinWeightPercent. 0: never.
	DegradedPercent int
	// DegradedHold is how long the weight must be above DegradedPercent until the VIP is normal
	// again. From 0; negative for not at all. Default: 10 s.
	DegradedHold time.Duration

	// LearnTime is how long a VIP that is ready waits before its first announcement, so that what
	// other balancers know about its flows can arrive. From 0. 0: it does not wait.
	LearnTime time.Duration
	// DrainTime is how long a draining VIP is announced with the request to use other routes,
	// before it is withdrawn. Default: 60 s.
	DrainTime time.Duration
	// WithdrawTime is how long routers may take to follow a withdrawal. A drained VIP is still
	// served for so long. Default: 5 s.
	WithdrawTime time.Duration

	// Damping keeps a VIP that comes and goes withdrawn.
	Damping Damping

	// Share is for the VIPs of one address. Default: ShareAll.
	Share Share
	// Aggregates are announced in the place of the addresses within them.
	Aggregates []Aggregate
}

// Damping is as for routes in RFC 2439: each withdrawal that the VIP's own state caused adds a
// penalty, which halves every HalfLife. All fields at 0 stand for the defaults.
type Damping struct {
	// Off turns damping off.
	Off bool
	// Penalty is what one withdrawal adds. Default: 1000.
	Penalty float64
	// Suppress is the sum from which on the VIP is held back, and Reuse the one below which it is
	// free again. Defaults: 2500 and 800.
	Suppress, Reuse float64
	// HalfLife is how long it takes until half of the penalty is forgotten. Default: 60 s.
	HalfLife time.Duration
	// MaxSuppressed is the longest that a VIP is held back after its last withdrawal. Default: 5
	// min.
	MaxSuppressed time.Duration
}

// Aggregate is a prefix that is announced for the addresses within it.
type Aggregate struct {
	Prefix netip.Prefix
	// Share says how many of the VIPs within it must be served.
	Share Share
	// Hosts announces the addresses themselves, too: traffic for one that another balancer serves
	// then goes there.
	Hosts bool
}

// Validate reports all problems of the configuration, each with the name of its field.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	c = c.withDefaults()
	check(c.MinReals > 0, "MinReals: %d is less than 1", c.MinReals)
	check(c.MinWeightPercent >= 0 && c.MinWeightPercent <= 100, "MinWeightPercent: %d is not between 0 and 100", c.MinWeightPercent)
	check(c.DegradedPercent >= 0 && c.DegradedPercent <= 100, "DegradedPercent: %d is not between 0 and 100", c.DegradedPercent)
	check(c.DegradedPercent == 0 || c.DegradedPercent >= c.MinWeightPercent, "DegradedPercent: %d is less than MinWeightPercent, %d", c.DegradedPercent, c.MinWeightPercent)
	check(c.LearnTime >= 0, "LearnTime: %v is negative", c.LearnTime)
	check(c.DrainTime > 0, "DrainTime: %v is negative", c.DrainTime)
	check(c.WithdrawTime > 0, "WithdrawTime: %v is negative", c.WithdrawTime)
	if d := c.Damping; !d.Off {
		check(d.Penalty > 0, "Damping.Penalty: %v is negative", d.Penalty)
		check(d.Reuse > 0 && d.Suppress > d.Reuse, "Damping.Suppress: %v is not greater than Reuse, %v", d.Suppress, d.Reuse)
		check(d.HalfLife > 0, "Damping.HalfLife: %v is negative", d.HalfLife)
		check(d.MaxSuppressed > 0, "Damping.MaxSuppressed: %v is negative", d.MaxSuppressed)
	}
	return errors.Join(append(errs, validateAggregates(c.Aggregates)...)...)
}

func validateAggregates(aggregates []Aggregate) (errs []error) {
	for i, a := range aggregates {
		if !a.Prefix.IsValid() || a.Prefix != a.Prefix.Masked() || a.Prefix.Addr().Is4In6() {
			errs = append(errs, fmt.Errorf("Aggregates[%d].Prefix: %v is not a prefix without bits beyond its length", i, a.Prefix))
			continue
		}
		for j, b := range aggregates[:i] {
			if b.Prefix.IsValid() && b.Prefix.Overlaps(a.Prefix) {
				errs = append(errs, fmt.Errorf("Aggregates[%d].Prefix: %v overlaps Aggregates[%d], %v", i, a.Prefix, j, b.Prefix))
			}
		}
	}
	return errs
}

func (c Config) withDefaults() Config {
	if c.MinReals == 0 {
		c.MinReals = DefaultMinReals
	}
	for _, d := range []struct {
		field    *time.Duration
		fallback time.Duration
	}{
		{&c.DegradedHold, DefaultDegradedHold},
		{&c.DrainTime, DefaultDrainTime},
		{&c.WithdrawTime, DefaultWithdrawTime},
		{&c.Damping.HalfLife, DefaultHalfLife},
		{&c.Damping.MaxSuppressed, DefaultMaxSuppressed},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	for _, d := range []struct {
		field    *float64
		fallback float64
	}{
		{&c.Damping.Penalty, DefaultPenalty},
		{&c.Damping.Suppress, DefaultSuppress},
		{&c.Damping.Reuse, DefaultReuse},
	} {
		if *d.field == 0 {
			*d.field = d.fallback
		}
	}
	return c
}
