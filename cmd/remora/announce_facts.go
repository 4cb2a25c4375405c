// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/engine"
)

// examiner finds the facts about VIPs. It belongs to one goroutine.
type examiner struct {
	log *slog.Logger
	// open opens the attached program.
	open func() (*ebpf.Program, error)
	// announceable is what health checks say of a VIP. Set before the first facts are asked for.
	announceable func(lb.VIP) (known bool, unservable string)

	// fleet is what the other balancers do with a VIP. Set before the first facts are asked for.
	fleet func(lb.VIP) announce.Fleet

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
	// unmade says why the last one could not be made; empty if it was.
	unmade string
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
	return &examiner{
		open:  func() (*ebpf.Program, error) { return dataplane.OpenAttached(f.bpffs, f.instance, iface) },
		fleet: func(lb.VIP) announce.Fleet { return announce.FleetUnknown },
		log:   log, tests: make(map[lb.VIP]*tested), adopted: make(map[lb.VIP]bool),
	}
}

// facts are those of all configured VIPs. Again tells that a self-test is to be repeated soon.
func (x *examiner) facts(configured []lb.VIP, s engine.Status, now time.Time) (all map[lb.VIP]announce.Facts, again bool) {
	maps.DeleteFunc(x.adopted, func(vip lb.VIP, _ bool) bool { return !slices.Contains(configured, vip) })
	vips := vipsOf(s)
	again = x.test(vips, now)
	all = make(map[lb.VIP]announce.Facts, len(configured))
	for _, vip := range configured {
		v, there := vips[vip]
		f := announce.Facts{Adopted: x.adopted[vip]}
		if there && x.attached {
			f = healthFacts(v)
			f.Attached, f.SelfTest, f.Untested, f.Adopted = true, x.tests[vip].passed, x.tests[vip].unmade, x.adopted[vip]
			known, unservable := x.announceable(vip)
			f.HealthKnown, f.Unservable = s.Settled && !v.Held && known, unservable
		}
		f.Fleet = x.fleet(vip)
		all[vip] = f
	}
	return all, again
}

// healthFacts counts the reals of a VIP. A backend that is drained or down has its configured weight
// in the total; one that is removed, or of weight 0, counts for nothing, even if source routes lead to it.
func healthFacts(v engine.VIPStatus) (f announce.Facts) {
	resolved := 0
	for _, r := range v.Reals {
		if r.Absence.Cause == engine.CauseRemoved {
			continue
		}
		weight := uint64(r.Backend.Weight)
		f.TotalWeight += weight
		if r.Absence.Cause != engine.CauseNone || weight == 0 {
			continue
		}
		f.HealthyReals++
		f.HealthyWeight += weight
		if r.Tunnel.Encap == lb.Local || r.NextHop.Resolved() {
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
	prog, err := x.attachedProgram()
	if err == nil {
		defer prog.Close()
	}
	keys := keysOf(vips)
	for vip, v := range vips {
		t := x.tests[vip]
		if t == nil {
			t = new(tested)
			x.tests[vip] = t
		}
		if t.passed && t.failures == 0 && t.unmade == "" && now.Sub(t.at) < testInterval && err == nil {
			continue
		}
		result := err
		if err == nil {
			result = selfTest(prog, v, keys)
		}
		again = x.note(vip, t, result, now) || again
	}
	return again
}

// attachedProgram opens the attached program, and takes note of whether there is one. If that cannot be
// found out it is as before. The error is of errNotTested then.
func (x *examiner) attachedProgram() (*ebpf.Program, error) {
	prog, err := x.open()
	switch {
	case err == nil:
		x.attached, x.missing = true, 0
	case !errors.Is(err, dataplane.ErrNotAttached):
		return nil, fmt.Errorf("%w: %v", errNotTested, err)
	default:
		if x.missing++; x.missing >= testTries {
			x.attached = false
		}
	}
	return prog, err
}

// note takes in the result of a self-test. One that could not be made says nothing about the VIP, which
// stays as it was found last.
func (x *examiner) note(vip lb.VIP, t *tested, err error, now time.Time) (again bool) {
	was, unmade := t.passed, t.unmade
	t.at, t.unmade = now, ""
	switch {
	case errors.Is(err, errNotTested):
		if t.unmade = err.Error(); unmade == "" {
			x.log.Error("self-test not made", "vip", vip, "error", err)
		}
		return false
	case err == nil:
		t.passed, t.failures = true, 0
	default:
		if t.failures++; t.failures >= testTries {
			t.passed = false
		}
	}
	switch {
	case was && !t.passed || !was && t.failures == testTries:
		x.log.Error("self-test failed", "vip", vip, "error", err)
	case !was && t.passed:
		x.log.Debug("self-test passed", "vip", vip)
	}
	return t.failures > 0 && t.failures < testTries
}

// adopt takes over which of these VIPs were announced and forward, and tells whether all do. Where the
// program runs and a self-test cannot be made, that they were announced has to do.
func (x *examiner) adopt(announced []lb.VIP, s engine.Status) bool {
	vips := vipsOf(s)
	prog, err := x.attachedProgram()
	if err != nil {
		return false
	}
	defer prog.Close()
	keys := keysOf(vips)
	for _, vip := range announced {
		v, there := vips[vip]
		if reals, _ := forwarding(v); !there || len(reals) == 0 {
			continue
		}
		err := selfTest(prog, v, keys)
		if err != nil && !errors.Is(err, errNotTested) {
			x.log.Warn("an earlier run announced a VIP that is not forwarded", "vip", vip, "error", err)
			continue
		}
		x.adopted[vip] = true
		x.tests[vip] = &tested{passed: true}
		x.note(vip, x.tests[vip], err, time.Now())
	}
	return len(announced) > 0 && len(x.adopted) == len(announced)
}

// resumed are facts of VIPs that an earlier run announced and that are not configured any more: they are
// drained like those that a reload removes.
func (x *examiner) resumed(configured []lb.VIP) map[lb.VIP]announce.Facts {
	all := make(map[lb.VIP]announce.Facts)
	for vip := range x.adopted {
		if !slices.Contains(configured, vip) {
			all[vip] = announce.Facts{Attached: true, SelfTest: true, NextHop: true, Adopted: true}
		}
	}
	return all
}

// keysOf is the set of VIPs that there are.
func keysOf(vips map[lb.VIP]engine.VIPStatus) map[lb.VIP]bool {
	keys := make(map[lb.VIP]bool, len(vips))
	for vip := range vips {
		keys[vip] = true
	}
	return keys
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
