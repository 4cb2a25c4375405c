// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"time"
)

// tester makes trials of one load. One goroutine uses it.
type tester struct {
	options   TrafficOptions
	rig       *rig
	generator generator
	load      load
	report    *TrafficReport
}

const (
	// longestTrial is an interval of a soak, and mostTrials how many of them there are at most; a longer
	// soak has longer intervals.
	longestTrial = 10 * time.Second
	mostTrials   = 360
	// quietTime is how long nothing more must come before a packet counts as lost, lastTime how long is
	// waited at most.
	quietTime = 100 * time.Millisecond
	lastTime  = 3 * time.Second
)

// soak sends at one rate for the whole duration, as trials one after the other.
func (t *tester) soak(ctx context.Context) error {
	d := t.options.Duration
	interval := max(min(d, longestTrial), d/mostTrials)
	n := max(int((d+interval/2)/interval), 1)
	for i := range n {
		t.options.Progress.part(i, n)
		if _, err := t.trial(ctx, roleFixed, t.load.rate, d/time.Duration(n)); err != nil {
			return err
		}
	}
	return nil
}

// trial sends once, and adds what came back to the report. A trial that ctx ends early is not added.
func (t *tester) trial(ctx context.Context, role string, rate float64, d time.Duration) (Trial, error) {
	if err := t.rig.sink.forget(); err != nil {
		return Trial{}, err
	}
	before, err := t.rig.sink.read()
	if err != nil {
		return Trial{}, err
	}
	counters, polls := t.rig.counters(), t.rig.pollSeconds()
	sent, err := t.generator.send(ctx, rate, d)
	if err != nil {
		return Trial{}, err
	}
	if ctx.Err() != nil {
		return Trial{}, ctx.Err()
	}
	if err := t.waitQuiet(ctx, before.tallies[tallyReceived]+sent.packets); err != nil {
		return Trial{}, err
	}
	polls = t.rig.pollSeconds() - polls
	after, err := t.rig.sink.read()
	if err != nil {
		return Trial{}, err
	}
	result := t.result(role, rate, sent, after.since(before))
	result.Counters = counterChanges(counters, t.rig.counters())
	result.CPUPerMpps = cpuPerMpps(sent, polls, t.options)
	t.report.Trials = append(t.report.Trials, result)
	if t.options.Log != nil {
		t.options.Log(result)
	}
	return result, nil
}

// waitQuiet waits until all is received, or nothing more comes.
func (t *tester) waitQuiet(ctx context.Context, all uint64) error {
	const pause = 5 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	last, since := uint64(0), time.Now()
	for end := since.Add(lastTime); ; {
		now, err := t.rig.sink.received()
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
		if now >= all || time.Since(since) > quietTime || time.Now().After(end) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// result makes the trial's figures.
func (t *tester) result(role string, rate float64, sent sentLoad, got sinkState) Trial {
	received := got.tallies[tallyReceived]
	r := Trial{
		Role: role, Size: t.load.size.Name, Destination: t.load.destination.String(), Generator: t.generator.name(),
		Threads: t.options.Threads, Placement: t.rig.placement, Flows: t.flows(),
		Offered: rate, Seconds: sent.seconds, Sent: sent.packets, Received: received,
		Disordered: got.tallies[tallyDisordered], Plain: got.tallies[tallyPlain], Uncounted: got.tallies[tallyUncounted],
		Latency: got.latency(), Balance: balance(got.servers, t.options.Weights[t.load.destination], t.flows()),
	}
	if t.options.TX == "" {
		r.Target = t.options.Target.Name
	}
	if received < sent.packets {
		r.Lost = sent.packets - received
	}
	if sent.seconds > 0 {
		r.SentMpps = float64(sent.packets) / sent.seconds / 1e6
		r.ReceivedMpps = float64(received) / sent.seconds / 1e6
	}
	r.WireMbps = r.ReceivedMpps * (t.load.size.mean() + wireOverhead) * 8
	return r
}

// flows is how many the packets are of.
func (t *tester) flows() int {
	if _, kernel := t.generator.(*pktgen); kernel && t.load.ipv6() {
		return t.load.ports // which all threads have
	}
	return t.load.flows() * t.options.Threads
}

// cpuPerMpps is the CPU seconds for a million packets, which is also how many CPUs a rate of 1 Mpps keeps
// busy: of the program's threads if it has some of its own, else of the generators', which do all there is
// to do. Behind interfaces it is not known.
func cpuPerMpps(sent sentLoad, polls float64, o TrafficOptions) float64 {
	if o.TX != "" || sent.packets == 0 {
		return 0
	}
	if !o.Across {
		polls = sent.cpuSeconds
	}
	return polls / (float64(sent.packets) / 1e6)
}

// counterChanges are the counters that have changed.
func counterChanges(before, after map[string]uint64) map[string]uint64 {
	changed := map[string]uint64{}
	for name, n := range after {
		if n > before[name] {
			changed[name] = n - before[name]
		}
	}
	return changed
}
