// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/remora-lb/remora/lb"
)

// ChurnOptions say which flows go on while what changes.
type ChurnOptions struct {
	// New makes a balancer. Required.
	New func(ChurnSettings) (ChurnBalancer, error)
	// Flows is the number of flows that live at any time of a run, 100 to 1<<20. Default 200 000.
	Flows int
	// Servers is the number of servers at the start, 10 to 1000. Default 50.
	Servers int
	// Window is for how long balancers remember changes, at least 2 s; flows pause for up to nine
	// tenths of it. Default 4 s.
	Window time.Duration
	// Modes are when flows are remembered. Default: all that TCP has.
	Modes []lb.FlowMode
	// Scenarios are what happens. Default: all.
	Scenarios []Scenario
	// Runs is how many run at once, each on a wire of its own; 0 stands for as many as have
	// 600 000 flows together, 12 at most. Each keeps about a tenth of a CPU busy for 100 000 flows.
	Runs int
	// Seed decides which flows there are and what changes, but not how the two meet in time.
	Seed uint64
	// Gate makes broken promises errors of the report.
	Gate bool
	// Log gets one line for each run; nil for none.
	Log *slog.Logger
}

// DefaultChurnOptions are 200 000 flows to 50 servers.
func DefaultChurnOptions() ChurnOptions {
	return ChurnOptions{
		Flows: 200_000, Servers: 50, Window: 4 * time.Second, Scenarios: Scenarios(),
		Modes: []lb.FlowMode{lb.FlowTransitions, lb.FlowAlways, lb.FlowNever},
	}
}

// Validate reports all problems.
func (o ChurnOptions) Validate() error {
	var errs []error
	if o.Flows < 100 || o.Flows > 1<<20 {
		errs = append(errs, fmt.Errorf("flows: %d is not between 100 and %d", o.Flows, 1<<20))
	}
	if o.Servers < 10 || o.Servers > 1000 {
		errs = append(errs, fmt.Errorf("servers: %d is not between 10 and 1000", o.Servers))
	}
	if o.Window < 2*time.Second {
		errs = append(errs, fmt.Errorf("window: %v is less than 2s", o.Window))
	}
	if o.Runs < 0 || o.Runs > maxRuns {
		errs = append(errs, fmt.Errorf("runs: %d is not between 0 and %d", o.Runs, maxRuns))
	}
	if len(o.Modes) == 0 || slices.Contains(o.Modes, lb.FlowQUIC) {
		errs = append(errs, errors.New("modes: none, or one that is not for TCP"))
	}
	if len(o.Scenarios) == 0 {
		errs = append(errs, errors.New("no scenarios"))
	}
	return errors.Join(errs...)
}

const (
	maxRuns = 12
	// flowsAtOnce is what two CPUs keep up with.
	flowsAtOnce = 600_000
	// maxBegin is how many flows begin in a second at the start: so few that all can be remembered.
	maxBegin = 100_000
)

func (o ChurnOptions) runs() int {
	if o.Runs != 0 {
		return o.Runs
	}
	return max(1, min(flowsAtOnce/o.Flows, maxRuns))
}

// opening is the time within which the first flows begin.
func (o ChurnOptions) opening() time.Duration {
	return max(time.Second, time.Duration(o.Flows)*time.Second/maxBegin)
}

// Churn plays scenarios, each in each mode, with two balancers that share a VIP by ECMP, and counts the
// flows that are broken, by cause and age. Needs root. It makes network namespaces without names, which
// the kernel removes with the process.
func Churn(ctx context.Context, o ChurnOptions) (ChurnReport, error) {
	if err := o.Validate(); err != nil {
		return ChurnReport{}, fmt.Errorf("measure churn: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := ChurnReport{
		Head: newHead(KindChurn), Gated: o.Gate, Flows: o.Flows, Servers: o.Servers, Window: o.Window.Seconds(), Seed: o.Seed,
		Rows: make([]ChurnRow, len(o.Modes)*len(o.Scenarios)),
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(o.runs())
	for i, s := range o.Scenarios {
		for j, mode := range o.Modes {
			g.Go(func() (err error) {
				if groupCtx.Err() != nil {
					return groupCtx.Err()
				}
				r.Rows[i*len(o.Modes)+j], err = playScenario(groupCtx, o, s, mode)
				return err
			})
		}
	}
	err := g.Wait()
	if r.end(err); err != nil {
		r.Rows = slices.DeleteFunc(r.Rows, func(row ChurnRow) bool { return row.Scenario == "" })
		return r, fmt.Errorf("measure churn: %w", errors.Join(context.Cause(ctx), err))
	}
	return r, nil
}

func playScenario(ctx context.Context, o ChurnOptions, s Scenario, mode lb.FlowMode) (row ChurnRow, err error) {
	start := time.Now()
	r, err := newChurnRun(o, s, mode)
	defer func() {
		if e := r.close(); e != nil {
			err = errors.Join(err, fmt.Errorf("end %s, %s: %w", s.Name, mode, e))
		}
	}()
	if err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		return ChurnRow{}, fmt.Errorf("play %s, %s: %w", s.Name, mode, err)
	}
	row = r.row(mode)
	o.Log.Info("played", "scenario", s.Name, "mode", mode, "moved", row.Moved, "took", time.Since(start).Round(time.Millisecond))
	return row, nil
}
