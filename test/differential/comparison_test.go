// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// errNotRepeated says that a sequence differed from the model, but does not if it is repeated: what
// the program does depends on more than tables and flows, or somebody else used it.
var errNotRepeated = errors.New("the sequence differed from the model, but does not if it is repeated")

// subject is what is compared with the model: the compiled program, or a fake with known faults.
type subject interface {
	// rewind begins a sequence: it makes the tables be these, and the flow table empty.
	rewind(*model.Tables) error
	// change makes a change to the tables.
	change(frames.Change) error
	// run processes one frame. The frame that comes out is valid until the next run.
	run(frame []byte) (lb.Verdict, []byte, error)
	// count reads one counter, not of an event; it is cheap.
	count(counter) (dataplane.Counter, error)
	// counts reads all counters; it may cost as much as hundreds of runs.
	counts() (counts, error)
	// flows reads the flow table, in sortRemembered's order.
	flows() ([]remembered, error)
}

// comparison feeds sequences to a subject and to the model. Nobody else may use the subject.
type comparison struct {
	oracle  *oracle
	subject subject
	// sums is the subject's counters after the last frame; within a sequence, what they should be.
	sums counts
}

// finding is the shortest sequence for which the subject differs from the model that was found, by
// its last step.
type finding struct {
	start       *model.Tables
	steps       []step
	differences []difference
}

// newComparison begins with these tables.
func newComparison(o *oracle, s subject, start *model.Tables) (*comparison, error) {
	c := &comparison{oracle: o, subject: s}
	return c, c.rewind(start)
}

// rewind begins a sequence with these tables.
func (c *comparison) rewind(start *model.Tables) (err error) {
	c.oracle.rewind(start)
	if err := c.subject.rewind(start); err != nil {
		return err
	}
	c.sums, err = c.subject.counts()
	return err
}

// sequence compares the outcomes of all steps. It begins with the tables as the sequence before left
// them, and an empty flow table. If there is a finding, the comparison begins anew with the tables
// from before.
func (c *comparison) sequence(steps []step) (*finding, error) {
	start := copyOf(c.oracle.tables)
	same, at, err := c.same(steps)
	if err != nil {
		return nil, err
	}
	if same {
		c.oracle.rewind(c.oracle.tables)
		return nil, c.subject.rewind(c.oracle.tables)
	}
	found, err := c.narrow(start, steps[:at])
	return found, errors.Join(err, c.rewind(start))
}

// same tells whether the outcomes of all steps are equal, or if not, after how many that showed.
//
// After each frame only the counter of packets that the model names is read, and all counters and the
// flow table after the last. That misses nothing of counters of packets: the counter of the model is
// seen to grow as it should for each single frame; so if another one grew too for some frame, its sum
// is too great in the end, and no other frame can make up for that, because counters never shrink.
// Events at the flow table are compared by their sums alone.
func (c *comparison) same(steps []step) (same bool, at int, err error) {
	for i, s := range steps {
		seems, err := c.seemsSame(s)
		if err != nil || !seems {
			return false, i + 1, err
		}
	}
	sums, err := c.subject.counts()
	if err != nil {
		return false, 0, err
	}
	flows, err := c.subject.flows()
	same = maps.Equal(sums, c.sums) && slices.Equal(flows, c.oracle.remembered())
	return same, len(steps), err
}

// seemsSame compares the outcome of one step but for flows, events and the counters that should not
// have grown.
func (c *comparison) seemsSame(s step) (bool, error) {
	if s.frame == nil {
		s.change.Apply(c.oracle.tables, c.oracle.flows)
		return true, c.subject.change(s.change)
	}
	want := c.oracle.process(s.frame)
	verdict, out, err := c.subject.run(s.frame)
	if err != nil {
		return false, err
	}
	name := counterOf(want)
	sum, err := c.subject.count(name)
	for grown, n := range countsOf(want) {
		c.sums.add(grown, n)
	}
	return verdict == want.Verdict && bytes.Equal(out, want.Frame) && sum == c.sums[name], err
}

// narrowFor is how long a sequence is made shorter at most.
const narrowFor = 30 * time.Second

// narrow leaves out steps of a sequence that differs as long as it still does.
func (c *comparison) narrow(start *model.Tables, steps []step) (*finding, error) {
	deadline := time.Now().Add(narrowFor)
	differs := func(steps []step) (bool, error) {
		if time.Now().After(deadline) {
			return false, nil
		}
		if err := c.rewind(start); err != nil {
			return false, err
		}
		same, _, err := c.same(steps)
		return !same, err
	}
	still, err := differs(steps)
	if err == nil && !still {
		err = errNotRepeated
	}
	if err != nil {
		return nil, err
	}
	if steps, err = shortest(steps, differs); err != nil {
		return nil, err
	}
	return c.look(start, steps)
}

// shortest leaves out one part of the steps after the other, of half of them at first down to one
// step, as long as what is left differs.
func shortest(steps []step, differs func([]step) (bool, error)) ([]step, error) {
	for part := max(len(steps)/2, 1); ; {
		before := len(steps)
		for at := len(steps) - part; at >= 0; at -= part {
			rest := slices.Concat(steps[:at], steps[at+part:])
			still, err := differs(rest)
			if err != nil {
				return nil, err
			}
			if still {
				steps = rest
			}
		}
		if part == 1 && len(steps) == before {
			return steps, nil
		}
		part = max(part/2, 1)
	}
}

// look compares the whole outcome of one step after the other until one differs.
func (c *comparison) look(start *model.Tables, steps []step) (*finding, error) {
	if err := c.rewind(start); err != nil {
		return nil, err
	}
	for i, s := range steps {
		got, err := c.outcome(s)
		if err != nil {
			return nil, err
		}
		if found := differences(c.oracle.run(s), got); len(found) > 0 {
			return &finding{start, steps[:i+1], found}, nil
		}
	}
	return nil, errNotRepeated
}

// outcome is the subject's of a step.
func (c *comparison) outcome(s step) (o outcome, err error) {
	if s.frame == nil {
		err = c.subject.change(s.change)
	} else {
		o.verdict, o.frame, err = c.subject.run(s.frame)
	}
	if err != nil {
		return o, err
	}
	sums, err := c.subject.counts()
	if err != nil {
		return o, err
	}
	o.counts = growth(c.sums, sums)
	c.sums = sums
	o.flows, err = c.subject.flows()
	return o, err
}

// report fails the test with a finding and the model's steps.
func report(tb testing.TB, o *oracle, f *finding) {
	tb.Helper()
	o.rewind(f.start)
	var text strings.Builder
	fmt.Fprintf(&text, "the last of %d steps differs", len(f.steps))
	for _, s := range f.steps {
		fmt.Fprintf(&text, "\n%s", s)
		if s.frame != nil {
			text.WriteString(o.trace(s.frame))
		}
		o.run(s)
	}
	for _, d := range f.differences {
		fmt.Fprintf(&text, "\n%s: %s", d.aspect, d.text)
	}
	tb.Error(text.String())
}
