// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// faulty is the model as a subject, with outcomes changed on purpose.
type faulty struct {
	tables *model.Tables
	fault  func(frame []byte, o *outcome)
	sums   counts
}

func (f *faulty) run(frame []byte) (lb.Verdict, []byte, error) {
	o := modelOutcome(f.tables.Process(frame))
	f.fault(frame, &o)
	for name, n := range o.counts {
		sum := f.sums[name]
		f.sums[name] = dataplane.Counter{Packets: sum.Packets + n.Packets, Bytes: sum.Bytes + n.Bytes}
	}
	return o.verdict, o.frame, nil
}

func (f *faulty) count(name counter) (dataplane.Counter, error) { return f.sums[name], nil }
func (f *faulty) counts() (counts, error)                       { return maps.Clone(f.sums), nil }

// faultCase changes the outcomes of some frames among many, and says what must be found.
type faultCase struct {
	name  string
	fault func(frame []byte, o *outcome)
	want  map[string][]aspect // by frame
}

// TestEveryFaultIsFound needs no root: it is the comparison that is on trial, not the program.
func TestEveryFaultIsFound(t *testing.T) {
	tables := frames.Tables(1)
	generator := newGenerator(tables, 5)
	group, sound := next(generator, 2000), next(generator, 10)
	// Two frames to different reals, and two that are passed for the same reason.
	sent := distinct(tables, group, lb.ReasonForwarded)
	passed := distinct(tables, group, lb.ReasonNotIP)
	for _, c := range faultCases(tables, sent, passed) {
		t.Run(c.name, func(t *testing.T) {
			comparison, err := newComparison(tables.Process, &faulty{tables, c.fault, counts{}})
			if err != nil {
				t.Fatal(err)
			}
			findings, err := comparison.group(group)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string][]aspect{}
			for _, f := range findings {
				got[string(f.frame)] = aspects(f.differences)
			}
			if !maps.EqualFunc(got, c.want, slices.Equal) {
				t.Errorf("found %q, want %q", got, c.want)
			}
			if findings, err := comparison.group(sound); err != nil || len(findings) > 0 {
				t.Errorf("afterwards, frames without a fault give %v, %v", findings, err)
			}
		})
	}
}

func faultCases(tables *model.Tables, sent, passed [][]byte) []faultCase {
	on := func(target []byte, change func(o *outcome)) func([]byte, *outcome) {
		return func(frame []byte, o *outcome) {
			if bytes.Equal(frame, target) {
				change(o)
			}
		}
	}
	both := func(a, b func([]byte, *outcome)) func([]byte, *outcome) {
		return func(frame []byte, o *outcome) { a(frame, o); b(frame, o) }
	}
	countsOf := func(frame []byte) counts { return modelOutcome(tables.Process(frame)).counts }
	one := func(frame []byte, a ...aspect) map[string][]aspect { return map[string][]aspect{string(frame): a} }
	two := func(a, b []byte, of aspect) map[string][]aspect {
		return map[string][]aspect{string(a): {of}, string(b): {of}}
	}
	twice := func(o *outcome) {
		for name, n := range o.counts {
			o.counts[name] = dataplane.Counter{Packets: 2 * n.Packets, Bytes: 2 * n.Bytes}
		}
	}
	never := func(o *outcome) { clear(o.counts) }
	bytesMore := func(o *outcome) {
		for name, n := range o.counts {
			o.counts[name] = dataplane.Counter{Packets: n.Packets, Bytes: n.Bytes + 1}
		}
	}
	also := func(name counter) func(*outcome) {
		return func(o *outcome) { o.counts[name] = dataplane.Counter{Packets: 1} }
	}
	return []faultCase{
		{"none", func([]byte, *outcome) {}, map[string][]aspect{}},
		{"verdict", on(sent[0], func(o *outcome) { o.verdict = lb.Pass }), one(sent[0], aspectVerdict)},
		{"a verdict that is none", on(sent[0], func(o *outcome) { o.verdict = 0 }), one(sent[0], aspectVerdict)},
		{"last bit of the frame", on(sent[0], func(o *outcome) { o.frame[len(o.frame)-1] ^= 1 }), one(sent[0], aspectFrame)},
		{"frame too short", on(sent[0], func(o *outcome) { o.frame = o.frame[:len(o.frame)-1] }), one(sent[0], aspectFrame)},
		{"frame too long", on(sent[0], func(o *outcome) { o.frame = append(o.frame, 0) }), one(sent[0], aspectFrame)},
		{"passed frame changed", on(passed[0], func(o *outcome) { o.frame[0] ^= 1 }), one(passed[0], aspectFrame)},
		{"counted twice", on(sent[0], twice), one(sent[0], aspectCounters)},
		{"not counted", on(passed[0], never), one(passed[0], aspectCounters)},
		{"bytes", on(sent[0], bytesMore), one(sent[0], aspectCounters)},
		{"bytes of a reason", on(passed[0], bytesMore), one(passed[0], aspectCounters)},
		{"also counted for another reason", on(sent[0], also(counter{reason: lb.ReasonICMP})), one(sent[0], aspectCounters)},
		{"also counted for a real", on(passed[0], also(counterOf(tables.Process(sent[1])))), one(passed[0], aspectCounters)},
		{"also counted for an unknown real", on(passed[0], also(counter{lb.ReasonForwarded, 0})), one(passed[0], aspectCounters)},
		{
			"counts of two frames swapped", both(
				on(sent[0], func(o *outcome) { o.counts = countsOf(sent[1]) }),
				on(sent[1], func(o *outcome) { o.counts = countsOf(sent[0]) })),
			two(sent[0], sent[1], aspectCounters),
		},
		{
			"counted twice, and for the next of the reason not at all",
			both(on(passed[0], twice), on(passed[1], never)),
			two(passed[0], passed[1], aspectCounters),
		},
		{
			"everything", on(sent[0], func(o *outcome) { *o = outcome{lb.Drop, nil, countsOf(passed[0])} }),
			one(sent[0], aspectVerdict, aspectFrame, aspectCounters),
		},
	}
}

// TestFaultOfTheGroupAlone is for what no single frame shows.
func TestFaultOfTheGroupAlone(t *testing.T) {
	tables := frames.Tables(1)
	group := next(newGenerator(tables, 5), 100)
	runs := 0
	fault := func(_ []byte, o *outcome) {
		if runs++; runs == 50 {
			o.verdict = 0
		}
	}
	comparison, err := newComparison(tables.Process, &faulty{tables, fault, counts{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := comparison.group(group); !errors.Is(err, errNotAlone) {
		t.Errorf("got %v, want %v", err, errNotAlone)
	}
}

// distinct finds two different frames that end for the reason, if forwarded to different reals.
func distinct(tables *model.Tables, group [][]byte, reason lb.Reason) [][]byte {
	var found [][]byte
	var real lb.RealID
	for _, frame := range group {
		res := tables.Process(frame)
		if res.Reason != reason || len(found) > 0 && (bytes.Equal(frame, found[0]) || reason == lb.ReasonForwarded && res.Real == real) {
			continue
		}
		found, real = append(found, frame), res.Real
	}
	return found[:2]
}
