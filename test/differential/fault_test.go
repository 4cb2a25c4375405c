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
	oracle oracle
	// fault, if not nil, changes outcomes, and amend what the model gives and remembers.
	fault func(frame []byte, o *outcome)
	amend func(flows *model.Flows, frame []byte, res *model.Result)
	sums  counts
}

func (f *faulty) rewind(tables *model.Tables) error {
	f.oracle.rewind(tables)
	return nil
}

func (f *faulty) change(c frames.Change) error {
	c.Apply(f.oracle.tables, f.oracle.flows)
	return nil
}

func (f *faulty) run(frame []byte) (lb.Verdict, []byte, error) {
	res := f.oracle.process(frame)
	if f.amend != nil {
		f.amend(f.oracle.flows, frame, &res)
	}
	o := outcome{verdict: res.Verdict, frame: res.Frame, counts: countsOf(res)}
	if f.fault != nil {
		f.fault(frame, &o)
	}
	for name, n := range o.counts {
		f.sums.add(name, n)
	}
	return o.verdict, o.frame, nil
}

func (f *faulty) count(name counter) (dataplane.Counter, error) { return f.sums[name], nil }
func (f *faulty) counts() (counts, error)                       { return maps.Clone(f.sums), nil }
func (f *faulty) flows() ([]remembered, error)                  { return f.oracle.remembered(), nil }

// faultCase changes the outcomes of some frames among many, and says what must be found: one of them
// alone.
type faultCase struct {
	name  string
	fault func(frame []byte, o *outcome)
	want  map[string][]aspect // by frame
}

// compareFaulty compares a faulty model with the sound one over frames, and over others afterwards in
// which nothing is to be found.
func compareFaulty(t *testing.T, tables *model.Tables, f *faulty, steps, sound []step) *finding {
	t.Helper()
	f.sums = counts{}
	c, err := newComparison(&oracle{}, f, tables)
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.sequence(steps)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := c.sequence(sound); err != nil || found != nil {
		t.Errorf("afterwards, frames without a fault give %v, %v", found, err)
	}
	return found
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
			found := compareFaulty(t, tables, &faulty{fault: c.fault}, frameSteps(group...), frameSteps(sound...))
			if found == nil {
				if len(c.want) > 0 {
					t.Error("nothing is found")
				}
				return
			}
			want, ok := c.want[string(found.steps[0].frame)]
			if got := aspects(found.differences); !ok || len(found.steps) != 1 || !slices.Equal(got, want) {
				t.Errorf("found %q in %d steps, want %q in one", got, len(found.steps), want)
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
	own := func(frame []byte) counts { return countsOf(tables.Process(frame, nil)) }
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
		{"also counted for a real", on(passed[0], also(counterOf(tables.Process(sent[1], nil)))), one(passed[0], aspectCounters)},
		{"also counted for an unknown real", on(passed[0], also(counter{})), one(passed[0], aspectCounters)},
		{
			"counts of two frames swapped", both(
				on(sent[0], func(o *outcome) { o.counts = own(sent[1]) }),
				on(sent[1], func(o *outcome) { o.counts = own(sent[0]) })),
			two(sent[0], sent[1], aspectCounters),
		},
		{"also an event", on(sent[0], also(eventCounter(lb.FlowRefusedBusy))), one(sent[0], aspectCounters)},
		{
			"counted twice, and for the next of the reason not at all",
			both(on(passed[0], twice), on(passed[1], never)),
			two(passed[0], passed[1], aspectCounters),
		},
		{
			"everything", on(sent[0], func(o *outcome) { *o = outcome{verdict: lb.Drop, counts: own(passed[0])} }),
			one(sent[0], aspectVerdict, aspectFrame, aspectCounters),
		},
	}
}

// TestFaultsOfStateAreNarrowed has faults that only some frames one after the other show.
func TestFaultsOfStateAreNarrowed(t *testing.T) {
	const seed = 6
	tables := tablesOf(seed)
	steps := newMaker(tables, seed).next(2000, 20)
	cases := []struct {
		name  string
		amend func(flows *model.Flows, frame []byte, res *model.Result)
		steps int // at most
	}{
		{"forgets all flows after the 20th", func(flows *model.Flows, _ []byte, _ *model.Result) {
			if flows.Len() > 20 {
				*flows = model.Flows{}
			}
		}, 21},
		{"forgets known flows about which an ICMP error comes", func(flows *model.Flows, _ []byte, res *model.Result) {
			if res.Flow.Change == model.ChangeNone && slices.Contains(res.Flow.Events, lb.FlowHit) {
				flows.Forget(res.Flow.Flow)
			}
		}, 3},
		{"does not mark a flow as used", func(flows *model.Flows, _ []byte, res *model.Result) {
			if e := res.Flow.Entry; res.Flow.Change == model.ChangeUse {
				e.Idle = shortPause
				flows.Set(res.Flow.Flow, e)
			}
		}, 3},
		{"remembers the slot wrongly", func(flows *model.Flows, _ []byte, res *model.Result) {
			if e := res.Flow.Entry; res.Flow.Change == model.ChangeRemember {
				e.Slot++
				flows.Set(res.Flow.Flow, e)
			}
		}, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			found := compareFaulty(t, tables, &faulty{amend: c.amend}, steps, nil)
			if found == nil {
				t.Fatal("nothing is found")
			}
			if got := aspects(found.differences); len(found.steps) > c.steps || !slices.Contains(got, aspectFlows) {
				t.Errorf("found %q in %d steps, want flows in %d", got, len(found.steps), c.steps)
			}
		})
	}
}

// TestFaultThatDoesNotRepeat is for what is no property of the sequence.
func TestFaultThatDoesNotRepeat(t *testing.T) {
	tables := frames.Tables(1)
	runs := 0
	f := &faulty{sums: counts{}, fault: func(_ []byte, o *outcome) {
		if runs++; runs == 50 {
			o.verdict = 0
		}
	}}
	c, err := newComparison(&oracle{}, f, tables)
	if err != nil {
		t.Fatal(err)
	}
	steps := frameSteps(next(newGenerator(tables, 5), 100)...)
	if _, err := c.sequence(steps); !errors.Is(err, errNotRepeated) {
		t.Errorf("got %v, want %v", err, errNotRepeated)
	}
}

// TestShortest leaves what matters, wherever it is.
func TestShortest(t *testing.T) {
	steps := frameSteps(next(newGenerator(frames.Tables(1), 5), 100)...)
	for _, matter := range [][]int{{0}, {99}, {0, 99}, {3, 4, 50, 51, 52, 98}} {
		got, err := shortest(steps, func(some []step) (bool, error) {
			for _, i := range matter {
				if !slices.ContainsFunc(some, func(s step) bool { return &s.frame[0] == &steps[i].frame[0] }) {
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil || len(got) != len(matter) {
			t.Errorf("%d steps are left of those that matter, %v: %v", len(got), matter, err)
		}
	}
}

// distinct finds two different frames that end for the reason, if forwarded to different reals.
func distinct(tables *model.Tables, group [][]byte, reason lb.Reason) [][]byte {
	var found [][]byte
	var real lb.RealID
	for _, frame := range group {
		res := tables.Process(frame, nil)
		if res.Reason != reason || len(found) > 0 && (bytes.Equal(frame, found[0]) || reason == lb.ReasonForwarded && res.Real == real) {
			continue
		}
		found, real = append(found, frame), res.Real
	}
	return found[:2]
}
