// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"runtime"
	"slices"
)

// Scale measures how the rate grows with CPUs: each target in the lab, as fast as possible, with everything on
// one CPU, then on each CPU at once, then with the program on CPUs of its own by threaded NAPI. Of so many
// rounds, in turn, the trial with the median rate counts. Otherwise it is as Traffic.
func Scale(ctx context.Context, o TrafficOptions, targets []Target, rounds int) (TrafficReport, error) {
	r := TrafficReport{Head: newHead(KindTraffic)}
	if rounds < 1 || o.TX != "" || o.Search != nil {
		return r, fmt.Errorf("measure scaling: %d rounds are too few, or it is not for the lab", rounds)
	}
	setups := scaleSetups(runtime.NumCPU())
	var err error
	for round := 0; round < rounds && err == nil; round++ {
		o.Progress.begin(round, rounds)
		for i := 0; i < len(targets)*len(setups) && err == nil; i++ {
			o.Progress.part(i, len(targets)*len(setups))
			one := setups[i%len(setups)]
			own := o
			own.Progress, own.Target, own.Threads, own.Across = nil, targets[i/len(setups)], one.threads, one.across
			var got TrafficReport
			got, err = Traffic(ctx, own)
			r.Trials = append(r.Trials, got.Trials...)
		}
	}
	r.Trials = medianTrials(r.Trials)
	r.end(err)
	return r, err
}

type scaleSetup struct {
	threads int
	across  bool
}

func scaleSetups(cpus int) []scaleSetup {
	all := []scaleSetup{{1, false}}
	if cpus > 1 {
		all = append(all, scaleSetup{min(cpus, maxThreads), false}, scaleSetup{min(cpus/2, maxThreads), true})
	}
	return all
}

// medianTrials are those of each load whose rate is the median.
func medianTrials(trials []Trial) (found []Trial) {
	groups := map[string][]Trial{}
	var order []string
	for _, t := range trials {
		name := t.label()
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], t)
	}
	for _, name := range order {
		g := groups[name]
		slices.SortFunc(g, func(a, b Trial) int {
			switch {
			case a.ReceivedMpps < b.ReceivedMpps:
				return -1
			case a.ReceivedMpps > b.ReceivedMpps:
				return 1
			}
			return 0
		})
		found = append(found, g[len(g)/2])
	}
	return found
}
