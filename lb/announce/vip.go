// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"fmt"
	"time"
)

// vip is the state machine of one VIP. It decides from the VIP's own facts; what the other VIPs of
// its address mean for it is decided by Machine.
type vip struct {
	state State
	// since is when state began.
	since time.Time
	cause cause

	damper damper
	// learnUntil is the end of the learn time that runs, learned tells that it has passed.
	learnUntil time.Time
	learned    bool
	// healthySince is since when a degraded VIP has been above the threshold.
	healthySince time.Time
	// withdrawnAt is when a draining VIP was withdrawn; zero while it is announced.
	withdrawnAt time.Time
	// failedAt is when it was last withdrawn because it failed.
	failedAt time.Time
	// served tells that it has been announced before.
	served bool
	// next is when to look again; zero for when a fact changes.
	next time.Time
}

// cause is why a VIP is as it is.
type cause struct {
	code Code
	text string
}

func because(code Code, format string, args ...any) cause {
	return cause{code, fmt.Sprintf(format, args...)}
}

// announced tells whether the VIP asks for an announcement.
func (v *vip) announced() bool {
	switch v.state {
	case Announced, Degraded:
		return true
	case Draining:
		return v.withdrawnAt.IsZero()
	}
	return false
}

// class is how it wants to be announced.
func (v *vip) class() Class {
	switch v.state {
	case Degraded:
		return ClassDegraded
	case Draining:
		return ClassDraining
	}
	return ClassNormal
}

// enter changes the state and keeps the time when it changed.
func (v *vip) enter(now time.Time, s State, c cause) {
	if v.state != s {
		v.state, v.since = s, now
	}
	v.cause = c
	v.served = v.served || v.announced()
}

// step takes the facts in. drain says why the VIP is to go; its code is empty if it is not.
func (v *vip) step(cfg Config, now time.Time, f Facts, drain cause) {
	v.next = time.Time{}
	if !f.Attached {
		v.learned, v.learnUntil = false, time.Time{}
	}
	switch v.state {
	case Withdrawn, Waiting:
		v.stepDown(cfg, now, f, drain)
	case Announced, Degraded:
		v.stepUp(cfg, now, f, drain)
	case Draining:
		v.stepDraining(cfg, now, f, drain)
	}
}

// stepDown is for a VIP that is not announced.
func (v *vip) stepDown(cfg Config, now time.Time, f Facts, drain cause) {
	if drain.code != "" {
		v.rest(cfg, now, drain)
		return
	}
	if c := v.missing(cfg, now, f); c.code != "" {
		v.enter(now, Waiting, c)
		return
	}
	v.rise(cfg, now, f)
}

// rest is for a VIP that shall not be announced and is not. If it failed just now, packets may
// still be on their way to it.
func (v *vip) rest(cfg Config, now time.Time, drain cause) {
	v.learnUntil = time.Time{}
	if until := v.failedAt.Add(cfg.WithdrawTime); v.state == Waiting && now.Before(until) {
		v.withdrawnAt, v.next = v.failedAt, until
		v.enter(now, Draining, drain)
		return
	}
	v.enter(now, Withdrawn, drain)
}

// rise announces a VIP that is ready.
func (v *vip) rise(cfg Config, now time.Time, f Facts) {
	if c := lowWeight(cfg, f); c.code != "" {
		v.healthySince = time.Time{}
		v.enter(now, Degraded, c)
		return
	}
	v.enter(now, Announced, served(f))
}

// missing says what a VIP lacks that is not announced. Where it has only to wait, next says for
// how long.
func (v *vip) missing(cfg Config, now time.Time, f Facts) cause {
	if c := unfit(cfg, f); c.code != "" {
		v.learnUntil = time.Time{}
		return c
	}
	if until := v.damper.heldUntil(cfg.Damping, now); !until.IsZero() && f.Fleet != FleetAlone {
		v.next = until
		return because(CodeDamped, "it came and went too often; held back until %s", until.Format(time.TimeOnly))
	}
	if f.Adopted && !v.served {
		return cause{}
	}
	if !f.HealthKnown {
		v.learnUntil = time.Time{}
		return because(CodeHealthRound, "its reals have not all been checked once")
	}
	return v.learning(cfg, now)
}

// learning is the learn time, once for each time that the data plane was attached.
func (v *vip) learning(cfg Config, now time.Time) cause {
	if v.learned || cfg.LearnTime == 0 {
		v.learned = true
		return cause{}
	}
	if v.learnUntil.IsZero() {
		v.learnUntil = now.Add(cfg.LearnTime)
	}
	if now.Before(v.learnUntil) {
		v.next = v.learnUntil
		return because(CodeLearning, "it is ready and learns from the other balancers until %s", v.learnUntil.Format(time.TimeOnly))
	}
	v.learned = true
	return cause{}
}

// stepUp is for a VIP that is announced and not draining.
func (v *vip) stepUp(cfg Config, now time.Time, f Facts, drain cause) {
	if drain.code != "" {
		v.withdrawnAt = time.Time{}
		v.enter(now, Draining, drain)
		v.stepDraining(cfg, now, f, drain)
		return
	}
	if c := unfit(cfg, f); c.code != "" {
		v.fail(cfg, now, f, c)
		return
	}
	if c := lowWeight(cfg, f); c.code != "" {
		v.healthySince = time.Time{}
		v.enter(now, Degraded, c)
		return
	}
	v.recover(cfg, now, f)
}

// fail withdraws a VIP at once, unless no other balancer announces it: then a fault of this one's
// view would take the VIP off the network. Without a data plane there is nothing to be wrong about.
func (v *vip) fail(cfg Config, now time.Time, f Facts, c cause) {
	if f.Fleet == FleetAlone && f.Attached {
		v.healthySince = time.Time{}
		v.enter(now, Degraded, because(CodeFleetGuard, "%s, but no other balancer announces it", c.text))
		return
	}
	v.damper.add(cfg.Damping, now)
	v.failedAt, v.learnUntil = now, time.Time{}
	v.enter(now, Waiting, c)
}

// recover is for an announced VIP with nothing to complain about.
func (v *vip) recover(cfg Config, now time.Time, f Facts) {
	if v.state == Degraded {
		if v.healthySince.IsZero() {
			v.healthySince = now
		}
		if until := v.healthySince.Add(cfg.DegradedHold); now.Before(until) {
			v.next = until
			v.enter(now, Degraded, because(CodeRecovering, "it has recovered; normal again from %s", until.Format(time.TimeOnly)))
			return
		}
	}
	v.enter(now, Announced, served(f))
}

// served is why a VIP is announced with nothing to complain about.
func served(f Facts) cause {
	if f.Untested != "" {
		return because(CodeServed, "it could be served when it was tested last; now %s", f.Untested)
	}
	return because(CodeServed, "it can be served")
}

// stepDraining is for a VIP that is about to go.
func (v *vip) stepDraining(cfg Config, now time.Time, f Facts, drain cause) {
	if drain.code == "" {
		v.undrain(cfg, now, f)
		return
	}
	v.enter(now, Draining, drain)
	if v.withdrawnAt.IsZero() {
		until := v.since.Add(cfg.DrainTime)
		unfit := unfit(cfg, f)
		if now.Before(until) && unfit.code == "" {
			v.next = until
			return
		}
		v.withdrawnAt = now
	}
	if until := v.withdrawnAt.Add(cfg.WithdrawTime); now.Before(until) {
		v.next = until
		return
	}
	v.enter(now, Withdrawn, drain)
}

// undrain takes a drain back. A VIP that is still announced stays so.
func (v *vip) undrain(cfg Config, now time.Time, f Facts) {
	if !v.withdrawnAt.IsZero() {
		v.stepDown(cfg, now, f, cause{})
		return
	}
	v.healthySince = time.Time{}
	if c := unfit(cfg, f); c.code != "" {
		v.fail(cfg, now, f, c)
		return
	}
	v.rise(cfg, now, f)
}

// unfit says why a VIP cannot be served; the code is empty if it can, as far as is known.
func unfit(cfg Config, f Facts) cause {
	switch {
	case !f.Attached:
		return because(CodeNotAttached, "the data plane is not attached")
	case !f.SelfTest && f.Untested != "":
		return because(CodeSelfTest, "no self-test has passed: %s", f.Untested)
	case !f.SelfTest:
		return because(CodeSelfTest, "the self-test packet did not come out as it must")
	case !f.NextHop:
		return because(CodeNextHop, "no next hop of its reals is resolved")
	case !f.HealthKnown:
		return cause{}
	case f.Unservable != "":
		return because(CodeTooFewHealthy, "%s", f.Unservable)
	case f.HealthyReals < cfg.MinReals:
		return because(CodeTooFewHealthy, "%d of its reals are healthy, %d are needed", f.HealthyReals, cfg.MinReals)
	case below(f, cfg.MinWeightPercent):
		return because(CodeTooFewHealthy, "%s of its weight is healthy, %d%% is needed", percent(f), cfg.MinWeightPercent)
	}
	return cause{}
}

// lowWeight says why a VIP that can be served is degraded; the code is empty if it is not.
func lowWeight(cfg Config, f Facts) cause {
	if f.HealthKnown && below(f, cfg.DegradedPercent) {
		return because(CodeLowWeight, "%s of its weight is healthy, less than %d%%", percent(f), cfg.DegradedPercent)
	}
	return cause{}
}

// below tells whether the healthy share of the weight is less than so many percent.
func below(f Facts, percent int) bool {
	return float64(f.HealthyWeight)*100 < float64(f.TotalWeight)*float64(percent)
}

// percent is the healthy share for people, rounded down so that it never looks sufficient.
func percent(f Facts) string {
	if f.TotalWeight == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%d%%", int(float64(f.HealthyWeight)*100/float64(f.TotalWeight)))
}
