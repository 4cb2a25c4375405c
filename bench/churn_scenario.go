// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
)

// Scenario is what happens to balancers and servers while flows go on.
type Scenario struct {
	Name  string
	About string
	// Free says that flows may be moved, but those that have seen no change.
	Free  bool
	leave lb.Leave
	act   func(context.Context, *churnRun) error
}

// longLeave is longer than any run: servers that leave keep their flows.
var longLeave = lb.Leave{Drain: time.Hour, Grace: time.Hour}

// Scenarios are all of them.
func Scenarios() []Scenario {
	return []Scenario{
		{"add", "servers are added, three times", false, longLeave, actAdd},
		{"remove", "servers are removed and drained, three times", false, longLeave, actRemove},
		{"reweight", "a third of the servers gets another weight, three times", false, longLeave, actReweight},
		{"flap", "two servers are removed and come back, again and again", false, longLeave, actFlap},
		{"mixed", "changes of all kinds at random, many within a window", false, longLeave, actMixed},
		{"mixed-flood", "the same, with a SYN flood", false, longLeave, actMixedFlood},
		{"lost-quiet", "paths move and a balancer is lost, no change within the window", false, longLeave, actLostQuiet},
		{"lost-later", "a balancer is lost, more than a window after changes", true, longLeave, actLostLater},
		{"lost-changing", "a balancer is lost in the middle of changes", true, longLeave, actLostChanging},
		{"lost-shared", "the same, after its history and flows were imported into the other", false, longLeave, actLostShared},
		{"down-rehash", "servers fail, their flows are given to others", false, lb.Leave{Drain: time.Hour}, actDownRehash},
		{"down-keep", "checks of servers fail for some time", false, longLeave, actDownKeep},
	}
}

// SelectScenarios picks by name, in the order of Scenarios; no name picks all.
func SelectScenarios(names []string) ([]Scenario, error) {
	all := Scenarios()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("select scenario: %q is not one of %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s Scenario) bool { return !slices.Contains(names, s.Name) }), nil
}

// every does n changes, with a rest after each.
func (r *churnRun) every(ctx context.Context, n int, rest time.Duration, f func(*servers)) error {
	for range n {
		if err := r.change(ctx, f); err != nil {
			return err
		}
		if err := pause(ctx, rest); err != nil {
			return err
		}
	}
	return nil
}

func actAdd(ctx context.Context, r *churnRun) error {
	return r.every(ctx, 3, r.o.Window/4, func(s *servers) { s.turn(r.rng, r.o.Servers/5, serverActive, serverAbsent) })
}

func actRemove(ctx context.Context, r *churnRun) error {
	return r.every(ctx, 3, r.o.Window/4, func(s *servers) {
		s.turn(r.rng, r.o.Servers/10, serverRemoved, serverActive)
		s.turn(r.rng, r.o.Servers/10, serverDrained, serverActive)
	})
}

func actReweight(ctx context.Context, r *churnRun) error {
	return r.every(ctx, 3, r.o.Window/4, func(s *servers) { s.reweight(r.rng, r.o.Servers/3) })
}

func actFlap(ctx context.Context, r *churnRun) error {
	back := false
	return r.every(ctx, 24, r.o.Window/16, func(s *servers) {
		if back {
			s.turn(r.rng, 2, serverActive, serverRemoved)
		} else {
			s.turn(r.rng, 2, serverRemoved, serverActive)
		}
		back = !back
	})
}

// actMixed lasts for a window and a half, so that choices leave the window while others come.
func actMixed(ctx context.Context, r *churnRun) error {
	return r.every(ctx, 48, r.o.Window/32, r.anyChange)
}

// anyChange is a random change, which leaves at least half as many active servers as at the start.
func (r *churnRun) anyChange(s *servers) {
	few := len(s.in(serverActive)) <= r.o.Servers/2
	kind := r.rng.IntN(6)
	if few && kind < 3 {
		kind = 4
	}
	n := 1 + r.rng.IntN(3)
	switch kind {
	case 0:
		s.turn(r.rng, n, serverRemoved, serverActive)
	case 1:
		s.turn(r.rng, n, serverDrained, serverActive)
	case 2:
		s.turn(r.rng, n, serverDoubted, serverActive)
	case 3:
		s.reweight(r.rng, n)
	case 4:
		s.turn(r.rng, n, serverActive, serverRemoved, serverDrained, serverDoubted)
	default:
		s.turn(r.rng, n, serverActive, serverAbsent)
	}
}

func actMixedFlood(ctx context.Context, r *churnRun) error {
	r.flood(true)
	defer r.flood(false)
	return actMixed(ctx, r)
}

func actLostQuiet(ctx context.Context, r *churnRun) error {
	for range 3 {
		r.move(churnPaths / 8)
		if err := pause(ctx, r.o.Window/8); err != nil {
			return err
		}
	}
	return r.kill(ctx, 1, false)
}

// changesBeforeLoss is over a window's length, so that some changes have left it.
func (r *churnRun) changesBeforeLoss(ctx context.Context) error {
	return r.every(ctx, 12, r.o.Window/8, r.anyChange)
}

func actLostLater(ctx context.Context, r *churnRun) error {
	if err := r.changesBeforeLoss(ctx); err != nil {
		return err
	}
	if err := pause(ctx, r.o.Window*6/5); err != nil {
		return err
	}
	return r.kill(ctx, 1, false)
}

func actLostChanging(ctx context.Context, r *churnRun) error {
	if err := r.changesBeforeLoss(ctx); err != nil {
		return err
	}
	if err := r.kill(ctx, 1, false); err != nil {
		return err
	}
	return r.every(ctx, 3, r.o.Window/8, r.anyChange)
}

func actLostShared(ctx context.Context, r *churnRun) error {
	if err := r.changesBeforeLoss(ctx); err != nil {
		return err
	}
	if err := r.kill(ctx, 1, true); err != nil {
		return err
	}
	return r.every(ctx, 3, r.o.Window/8, r.anyChange)
}

func actDownRehash(ctx context.Context, r *churnRun) error {
	return r.every(ctx, 3, r.o.Window/4, func(s *servers) { s.turn(r.rng, 1, serverDown, serverActive) })
}

func actDownKeep(ctx context.Context, r *churnRun) error {
	err := r.every(ctx, 3, r.o.Window/4, func(s *servers) { s.turn(r.rng, 2, serverDoubted, serverActive) })
	if err != nil {
		return err
	}
	return r.every(ctx, 1, 0, func(s *servers) { s.turn(r.rng, 6, serverActive, serverDoubted) })
}
