// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// SearchOptions say how the highest rate without loss is looked for, in the manner of RFC 2544.
type SearchOptions struct {
	// Trial is how long each rate is sent, 100 ms to 10 m. Default 1 s; RFC 2544 asks for 60 s.
	Trial time.Duration
	// MaxLoss is the share of packets that may be lost, 0 to 0.5. Default 0.
	MaxLoss float64
	// Resolution is the share of the rate to which it is found, 0.001 to 0.5. Default 0.02.
	Resolution float64
	// Tries is how often a rate must fail to count as too high, 1 to 10. Default 2: on machines that do
	// something else now and then, a packet is lost to that.
	Tries int
	// Curve is how many rates, from a tenth to 1.2 times of what was found, make the loss curve, 0 to 24.
	// Default 6.
	Curve int
}

// DefaultSearchOptions are two tries of a second, to two hundredths.
func DefaultSearchOptions() SearchOptions {
	return SearchOptions{Trial: time.Second, Resolution: 0.02, Tries: 2, Curve: 6}
}

func (o SearchOptions) validate() error {
	var errs []error
	problem := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("search: "+format, args...))
		}
	}
	problem(o.Trial < 100*time.Millisecond || o.Trial > 10*time.Minute, "trial: %v is not between 100ms and 10m", o.Trial)
	problem(!(o.MaxLoss >= 0 && o.MaxLoss <= 0.5), "max loss: %g is not between 0 and 0.5", o.MaxLoss)
	problem(!(o.Resolution >= 0.001 && o.Resolution <= 0.5), "resolution: %g is not between 0.001 and 0.5", o.Resolution)
	problem(o.Tries < 1 || o.Tries > 10, "tries: %d is not between 1 and 10", o.Tries)
	problem(o.Curve < 0 || o.Curve > 24, "curve: %d is not between 0 and 24", o.Curve)
	return errors.Join(errs...)
}

// search finds the highest rate, then sends at it once more for the latency, then takes the loss curve. What
// is found is the rate that was sent, which is less than the offered one if other work held the generator up.
func (t *tester) search(ctx context.Context) error {
	o := *t.options.Search
	s := Search{Size: t.load.size.Name, Destination: t.load.destination.String(), Threads: t.options.Threads, MaxLoss: o.MaxLoss}
	t.options.Progress.part(0, 3)
	free, err := t.trial(ctx, roleFree, 0, o.Trial)
	if err != nil {
		return err
	}
	most := free.SentMpps * 1e6
	if t.load.rate > 0 {
		most = min(most, t.load.rate)
	}
	rate, trials := bisect(minRate, most, o.Resolution, func(rate float64) bool {
		t.options.Progress.describe("%.2f Mpps of %s bytes", rate/1e6, t.load.size.Name)
		sent, e := t.fits(ctx, o, rate)
		s.Mpps, err = max(s.Mpps, sent), e
		return sent > 0
	}, func() bool { return err != nil })
	if err != nil {
		return err
	}
	s.Trials, s.GeneratorBound = trials, rate == most
	if rate > 0 {
		t.options.Progress.part(1, 3)
		at, err := t.trial(ctx, roleLatency, rate, o.Trial)
		if err != nil {
			return err
		}
		s.Latency, s.CPUPerMpps = at.Latency, at.CPUPerMpps
	}
	s.WireMbps = s.Mpps * (t.load.size.mean() + wireOverhead) * 8
	t.report.Searches = append(t.report.Searches, s)
	return t.curve(ctx, o, rate, most)
}

// fits returns the rate in Mpps at which packets were sent, when a rate was asked for, and not lost; 0 if
// all tries lost some.
func (t *tester) fits(ctx context.Context, o SearchOptions, rate float64) (float64, error) {
	for range o.Tries {
		r, err := t.trial(ctx, roleSearch, rate, o.Trial)
		if err != nil {
			return 0, err
		}
		if r.lossShare() <= o.MaxLoss {
			return r.SentMpps, nil
		}
	}
	return 0, nil
}

// curve sends at rates from low ones to more than what was found.
func (t *tester) curve(ctx context.Context, o SearchOptions, found, most float64) error {
	if found == 0 {
		found = most
	}
	for i := range o.Curve {
		t.options.Progress.part(2*o.Curve+i, 3*o.Curve)
		share := 0.1 + 1.1*float64(i)/float64(max(o.Curve-1, 1))
		rate := max(found*share, minRate)
		t.options.Progress.describe("loss at %.2f Mpps", rate/1e6)
		if _, err := t.trial(ctx, roleCurve, rate, o.Trial); err != nil {
			return err
		}
	}
	return nil
}

// bisect finds the highest rate from least to most that fits, to a share of it; 0 if not even least does. It
// asks for most first, and at most 2 + log2(most / (least * resolution)) times; it ends early once stop says so.
func bisect(least, most, resolution float64, fits func(float64) bool, stop func() bool) (rate float64, asked int) {
	asked = 1
	if most <= least {
		most = least
	}
	if fits(most) {
		return most, asked
	}
	low, high := 0.0, most
	for !stop() && high > least && high-low > resolution*high {
		middle := max((low+high)/2, least)
		asked++
		if fits(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low, asked
}
