// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"maps"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/engine"
)

// examiner finds the facts about VIPs. It belongs to one goroutine.
type examiner struct {
	instanceFlags
	iface string
	log   *slog.Logger
	// announceable is what health checks say of a VIP. Set before the first facts are asked for.
	announceable func(lb.VIP) (known, servable bool)

	tests map[lb.VIP]*tested
	// adopted are the VIPs that were announced by an earlier run, and forwarded meanwhile.
	adopted map[lb.VIP]bool
	// attached tells whether the interface runs the program in use; missing counts how often in a row
	// it was not found there.
	attached bool
	missing  int
}

// tested is how the self-test of a VIP stands.
type tested struct {
	// at is when it was last made. failures counts those in a row.
	at       time.Time
	passed   bool
	failures int
}

const (
	// testInterval is the time between two self-tests of a VIP that passes.
	testInterval = 10 * time.Second
	// testTries is how many self-tests in a row must fail: a test may meet tables that are being
	// changed. They follow each other after testPause.
	testTries = 3
	testPause = 50 * time.Millisecond
)

func newExaminer(f instanceFlags, iface string, log *slog.Logger) *examiner {
	return &examiner{instanceFlags: f, iface: iface, log: log, tests: make(map[lb.VIP]*tested), adopted: make(map[lb.VIP]bool)}
}

// facts are those of all configured VIPs. Again tells that a self-test is to be repeated soon.
func (x *examiner) facts(configured []lb.VIP, s engine.Status, now time.Time) (all map[lb.VIP]announce.Facts, again bool) {
	vips := vipsOf(s)
	again = x.test(vips, now)
	all = make(map[lb.VIP]announce.Facts, len(configured))
	for _, vip := range configured {
		v, there := vips[vip]
		f := announce.Facts{Adopted: x.adopted[vip]}
		if there && x.attached {
			f = healthFacts(v)
			f.Attached, f.SelfTest, f.Adopted = true, x.tests[vip].passed, x.adopted[vip]
			known, servable := x.announceable(vip)
			f.HealthKnown = s.Settled && !v.Held && known
			if !servable {
				f.HealthyReals = 0 // however many: they are not enough for health.min_healthy
			}
		}
		all[vip] = f
	}
	return all, again
}

// healthFacts counts the reals of a VIP. A backend that is drained or down has its configured weight
// in the total; one that is removed, or of weight 0, has none.
func healthFacts(v engine.VIPStatus) (f announce.Facts) {
	resolved := 0
	for _, r := range v.Reals {
		if r.Absence.Cause == engine.CauseRemoved {
			continue
		}
		weight := uint64(r.Backend.Weight)
		f.TotalWeight += weight
		if r.Absence.Cause != engine.CauseNone {
			continue
		}
		f.HealthyReals++
		f.HealthyWeight += weight
		if r.NextHop.Resolved() {
			resolved++
		}
	}
	// Without healthy reals it is their lack that counts.
	f.NextHop = resolved > 0 || f.HealthyReals == 0
	return f
}

// test makes the self-tests that are due.
func (x *examiner) test(vips map[lb.VIP]engine.VIPStatus, now time.Time) (again bool) {
	maps.DeleteFunc(x.tests, func(vip lb.VIP, _ *tested) bool { _, there := vips[vip]; return !there })
	prog, err := attachedProgram(x.instanceFlags, x.iface)
	if err == nil {
		defer prog.Close()
		x.attached, x.missing = true, 0
	} else if x.missing++; x.missing >= testTries {
		x.attached = false
	}
	ports := portsOf(vips)
	for vip, v := range vips {
		t := x.tests[vip]
		if t == nil {
			t = new(tested)
			x.tests[vip] = t
		}
		if t.passed && t.failures == 0 && now.Sub(t.at) < testInterval && err == nil {
			continue
		}
		result := err
		if err == nil {
			result = selfTest(prog, v, ports)
		}
		again = x.note(vip, t, result, now) || again
	}
	return again
}

// note takes in the result of a self-test.
func (x *examiner) note(vip lb.VIP, t *tested, err error, now time.Time) (again bool) {
	was := t.passed
	t.at = now
	if err == nil {
		t.passed, t.failures = true, 0
	} else if t.failures++; t.failures >= testTries {
		t.passed = false
	}
	switch {
	case was && !t.passed || !was && t.failures == testTries:
		x.log.Error("self-test failed", "vip", vip, "error", err)
	case !was && t.passed:
		x.log.Debug("self-test passed", "vip", vip)
	}
	return t.failures > 0 && t.failures < testTries
}

// adopt takes over which of these VIPs were announced and forward, and tells whether all do.
func (x *examiner) adopt(announced []lb.VIP, s engine.Status) bool {
	vips := vipsOf(s)
	prog, err := attachedProgram(x.instanceFlags, x.iface)
	if err != nil {
		return false
	}
	defer prog.Close()
	ports := portsOf(vips)
	for _, vip := range announced {
		v, there := vips[vip]
		if reals, _ := forwarding(v); !there || len(reals) == 0 {
			continue
		}
		if err := selfTest(prog, v, ports); err != nil {
			x.log.Warn("an earlier run announced a VIP that is not forwarded", "vip", vip, "error", err)
			continue
		}
		x.adopted[vip] = true
	}
	return len(announced) > 0 && len(x.adopted) == len(announced)
}

// portsOf tells which ports are taken.
func portsOf(vips map[lb.VIP]engine.VIPStatus) map[lb.VIP]bool {
	ports := make(map[lb.VIP]bool, len(vips))
	for vip := range vips {
		ports[vip] = true
	}
	return ports
}

// vipsOf are the VIPs of a status.
func vipsOf(s engine.Status) map[lb.VIP]engine.VIPStatus {
	vips := make(map[lb.VIP]engine.VIPStatus)
	for _, service := range s.Services {
		for _, v := range service.VIPs {
			vips[v.VIP] = v
		}
	}
	return vips
}
