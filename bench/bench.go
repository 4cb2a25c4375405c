// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package bench measures what a packet costs: in one XDP program run alone (Prog), on the whole
// path over a veth pair (Veth), and what a ring costs to build and to publish (Ring). It also counts
// the connections that changes break (Churn).
//
// Nanoseconds of a shared machine move by a third within seconds. So packets of the program under
// test alternate, in chunks of some hundred, with those of a baseline, and what is reported and
// judged is the ratio to a reference program of the same run. The reference of Prog is lb_stats,
// the smallest useful balancer (bpf/reference.bpf.c); that of Veth is drop.
package bench

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// Target is a program under test.
type Target struct {
	Name string
	// Load loads the program and fills its maps; the closer, which may be nil, gives both back.
	// It is called once for each reload, since where its memory lies differs from load to load
	// and moves the cost of many flows by tenths.
	Load func() (*ebpf.Program, io.Closer, error)
	// Expect says what the program does with a case's frame; nil stands for what the case says.
	Expect func(Case) Expectation
	// Options tells that the program has the VIPs of OptionCases. Without, it is not measured with these.
	Options bool
}

// takes tells whether the target is measured with a case.
func (t Target) takes(c Case) bool { return t.Options || !c.Option }

// Expectation is what a program must do with a frame before anything of it is timed.
type Expectation struct {
	Verdict lb.Verdict
	// Growth is the number of bytes by which the frame becomes longer.
	Growth int
}

func (e Expectation) String() string { return fmt.Sprintf("%s %+d", e.Verdict, e.Growth) }

// ParseExpectation reads VERDICT or VERDICT:GROWTH, for example drop or tx:20.
func ParseExpectation(s string) (Expectation, error) {
	name, growth, found := strings.Cut(s, ":")
	for _, v := range []lb.Verdict{lb.Drop, lb.Pass, lb.TX} {
		if v.String() != name {
			continue
		}
		e := Expectation{Verdict: v}
		if !found {
			return e, nil
		}
		n, err := strconv.Atoi(growth)
		if err != nil {
			return Expectation{}, fmt.Errorf("parse expectation %q: growth %q is not a number of bytes", s, growth)
		}
		e.Growth = n
		return e, nil
	}
	return Expectation{}, fmt.Errorf("parse expectation %q: verdict %q is not drop, pass or tx", s, name)
}

func (t Target) expect(c Case) Expectation {
	if t.Expect == nil {
		return c.Expect
	}
	return t.Expect(c)
}

// Options say how long and where to measure.
type Options struct {
	// Reloads is how often each program is loaded anew, at least 1. Default 5.
	Reloads int
	// Rounds is the number of runs of each case in each reload, at least 1. Default 9.
	Rounds int
	// CPU is where everything runs. Default -1: the last one that the process may use.
	CPU int
	// FIFO asks for the real-time class, so that other work does not preempt a run, which lasts
	// some ms. Default true. Refused, it is only noted in the report.
	FIFO bool
	// Limits, if there are any, restrict what Prog measures to what they are about.
	Limits []Limit
	// Log gets one line for each reload; nil for none.
	Log *slog.Logger
	// Progress is told what is done; nil for none.
	Progress *Progress
}

// DefaultOptions are five reloads of nine rounds, on the last CPU, in the real-time class.
func DefaultOptions() Options { return Options{Reloads: 5, Rounds: 9, CPU: -1, FIFO: true} }

// Validate reports all problems.
func (o Options) Validate() error {
	var errs []error
	if o.Reloads < 1 {
		errs = append(errs, fmt.Errorf("reloads: %d is less than 1", o.Reloads))
	}
	if o.Rounds < 1 {
		errs = append(errs, fmt.Errorf("rounds: %d is less than 1", o.Rounds))
	}
	if o.CPU < -1 {
		errs = append(errs, fmt.Errorf("cpu: %d is neither a CPU nor -1", o.CPU))
	}
	return errors.Join(errs...)
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// maxFlows is the number of IPv4 sources that the stub can stamp (10.0.0.0/8).
const maxFlows = 1 << 24

// ValidateFlows refuses a number of flows that is no power of two from 1 to 16777216.
func ValidateFlows(flows []int) error {
	for _, n := range flows {
		if n < 1 || n > maxFlows || bits.OnesCount(uint(n)) != 1 {
			return fmt.Errorf("flows: %d is not a power of two from 1 to %d", n, maxFlows)
		}
	}
	return nil
}

// loaded is a target that is in the kernel.
type loaded struct {
	program *ebpf.Program
	closer  io.Closer
	took    time.Duration
}

func (t Target) load() (loaded, error) {
	runtime.GC() // not in the middle of a run
	start := time.Now()
	p, c, err := t.Load()
	if err != nil {
		return loaded{}, fmt.Errorf("load %s: %w", t.Name, err)
	}
	return loaded{program: p, closer: c, took: time.Since(start)}, nil
}

func (l loaded) close() error {
	if l.closer == nil {
		return nil
	}
	return l.closer.Close()
}
