// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
)

// errNotAlone says that a group of frames differs from the model, and none of its frames does so
// alone: what the program does depends on what it did before, or somebody else used it.
var errNotAlone = errors.New("the group differs from the model, but no frame of it does when it is repeated alone")

// maxFindings is how many frames that differ are looked for in one group.
const maxFindings = 5

// subject is what is compared with the model: the compiled program, or a fake with known faults.
type subject interface {
	// run processes one frame. The frame that comes out is valid until the next run.
	run(frame []byte) (lb.Verdict, []byte, error)
	// count reads one counter; it is cheap.
	count(counter) (dataplane.Counter, error)
	// counts reads all counters; it may cost as much as hundreds of runs.
	counts() (counts, error)
}

// comparison feeds frames to a subject and to the model. Nobody else may use the subject.
type comparison struct {
	model   func(frame []byte) model.Result
	subject subject
	// sums is the subject's counters after the last frame; within a group, what they should be.
	sums counts
}

// finding is a frame for which the subject differs from the model.
type finding struct {
	frame       []byte
	differences []difference
}

func newComparison(model func([]byte) model.Result, s subject) (*comparison, error) {
	sums, err := s.counts()
	return &comparison{model: model, subject: s, sums: sums}, err
}

// group compares the outcomes of all frames and returns those that differ, up to maxFindings.
//
// After each frame only the counter that the model names is read, and all counters after the last.
// That misses nothing: the counter of the model is seen to grow as it should for each single frame;
// so if another one grew too for some frame, its sum is too great in the end, and no other frame can
// make up for that, because counters never shrink. Only if something is wrong, all frames are run
// again one by one, with all counters read after each.
func (c *comparison) group(frames [][]byte) ([]finding, error) {
	same := true
	for _, frame := range frames {
		seems, err := c.seemsSame(frame)
		if err != nil {
			return nil, err
		}
		same = same && seems
	}
	sums, err := c.subject.counts()
	if err != nil {
		return nil, err
	}
	same = same && maps.Equal(sums, c.sums)
	c.sums = sums
	if same {
		return nil, nil
	}
	findings, err := c.each(frames)
	if err == nil && len(findings) == 0 {
		err = errNotAlone
	}
	return findings, err
}

// seemsSame compares the outcome of one frame except for the counters that should not have grown.
func (c *comparison) seemsSame(frame []byte) (bool, error) {
	want := c.model(frame)
	verdict, out, err := c.subject.run(frame)
	if err != nil {
		return false, err
	}
	name := counterOf(want)
	sum, err := c.subject.count(name)
	if err != nil {
		return false, err
	}
	wantSum := c.sums[name]
	wantSum.Packets++
	wantSum.Bytes += uint64(want.Bytes)
	c.sums[name] = wantSum
	return verdict == want.Verdict && bytes.Equal(out, want.Frame) && sum == wantSum, nil
}

// each returns the first frames that differ when run one by one.
func (c *comparison) each(frames [][]byte) ([]finding, error) {
	var findings []finding
	for _, frame := range frames {
		found, err := c.alone(frame)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			findings = append(findings, finding{frame, found})
		}
		if len(findings) == maxFindings {
			break
		}
	}
	return findings, nil
}

// alone compares the whole outcome of one frame.
func (c *comparison) alone(frame []byte) ([]difference, error) {
	verdict, out, err := c.subject.run(frame)
	if err != nil {
		return nil, err
	}
	sums, err := c.subject.counts()
	if err != nil {
		return nil, err
	}
	got := outcome{verdict, out, growth(c.sums, sums)}
	c.sums = sums
	return differences(modelOutcome(c.model(frame)), got), nil
}

// report fails the test with a frame that differs and the model's steps.
func report(tb testing.TB, tables *model.Tables, frame []byte, found []difference) {
	tb.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "a frame of %d bytes: %x", len(frame), frame)
	for _, d := range found {
		fmt.Fprintf(&text, "\n%s: %s", d.aspect, d.text)
	}
	traced := *tables
	traced.Trace = func(step, what string) { fmt.Fprintf(&text, "\nmodel's %s: %s", step, what) }
	traced.Process(frame)
	tb.Error(text.String())
}
