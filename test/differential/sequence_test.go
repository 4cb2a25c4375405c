// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// Pauses are so long that how fast the machine is does not matter. udpIdle is what the tables say: far
// from any number of short pauses, and less than a long one.
const (
	shortPause = 25 * time.Minute
	udpIdle    = time.Hour
	longPause  = 5 * shortPause
)

// step is a frame, or else a change. Steps follow one another on one flow table that is empty at
// first.
type step struct {
	frame  []byte
	change frames.Change
}

func (s step) String() string {
	if s.frame != nil {
		return fmt.Sprintf("a frame of %d bytes: %x", len(s.frame), s.frame)
	}
	var text []string
	for name, vip := range s.change.VIPs {
		text = append(text, fmt.Sprintf("%s gets flow mode %s, options %+v, servers %v, routes %v, and maybe other slots",
			name, vip.Flows, vip.Options, vip.Servers, vip.Routes))
	}
	for _, name := range s.change.Gone {
		text = append(text, fmt.Sprintf("%s is gone", name))
	}
	if s.change.SourceRoutes != nil {
		text = append(text, fmt.Sprintf("source routes %v", s.change.SourceRoutes))
	}
	for id, r := range s.change.Reals {
		text = append(text, fmt.Sprintf("real %d is %s, generation %d", id, r.Use, r.Generation))
	}
	if s.change.Pause > 0 {
		text = append(text, fmt.Sprintf("a pause of %s", s.change.Pause))
	}
	return strings.Join(text, "; ")
}

func frameSteps(all ...[]byte) []step {
	var steps []step
	for _, frame := range all {
		steps = append(steps, step{frame: frame})
	}
	return steps
}

// sequenceMaker makes sequences of frames and changes.
type sequenceMaker struct {
	generator *frames.Generator
	// tables are as they will be after the steps that were made.
	tables *model.Tables
	// amend, if not nil, changes what a change does to the tables.
	amend func(*frames.Change)
}

// next is steps with so many frames and changes, and a short and a long pause.
func (m *sequenceMaker) next(framesLen, changes int) []step {
	every := framesLen / (changes + 3)
	var steps []step
	for n := range framesLen {
		steps = append(steps, step{frame: m.generator.Next().Bytes})
		if n%every == every-1 {
			steps = append(steps, step{change: m.change(n / every)})
		}
	}
	return steps
}

// change is the change with this number in a sequence.
func (m *sequenceMaker) change(number int) frames.Change {
	switch number {
	case 3:
		return frames.Change{Pause: shortPause}
	case 6:
		return frames.Change{Pause: longPause}
	}
	c := m.generator.Change(m.tables)
	if m.amend != nil {
		m.amend(&c)
	}
	c.Apply(m.tables, nil)
	return c
}

// copyOf is tables whose maps may be changed. Rings are never written to.
func copyOf(t *model.Tables) *model.Tables {
	c := *t
	c.VIPs, c.Reals = maps.Clone(t.VIPs), maps.Clone(t.Reals)
	return &c
}

// tablesOf are those of a seed with the pauses above.
func tablesOf(seed uint64) *model.Tables {
	t := frames.Tables(seed)
	t.UDPIdle = udpIdle
	return t
}

// worldOf is the world of a seed with the pauses above.
func worldOf(seed uint64) *model.Tables {
	t := frames.World(seed)
	t.UDPIdle = udpIdle
	return t
}

// oracle is the model with its state.
type oracle struct {
	tables *model.Tables
	flows  *model.Flows
	// limit, if not nil, is how much of what the flow table takes.
	limit limit
	// amend, if not nil, changes results, or counts them.
	amend func(tables *model.Tables, frame []byte, res *model.Result)
	// answers, if not nil, is how many answers there are.
	answers *answers
	// note, if not nil, is told what the model's steps found.
	note func(step, text string)
}

// limit is what keeps the model from remembering flows.
type limit interface {
	// start begins a sequence, with an empty table.
	start(*model.Flows)
	// makeRoom is called before a flow is remembered that has no entry.
	makeRoom(*model.Flows, *model.FlowStep)
}

// rewind begins a sequence with these tables.
func (o *oracle) rewind(start *model.Tables) {
	o.tables, o.flows = copyOf(start), &model.Flows{}
	o.tables.Trace = o.note
	if o.limit != nil {
		o.limit.start(o.flows)
	}
	if o.answers != nil {
		o.answers.given = 0
	}
}

func (o *oracle) process(frame []byte) model.Result {
	if o.answers != nil {
		o.tables.AnswersSpent = o.answers.spent()
	}
	res := o.tables.Process(frame, o.flows)
	if o.answers != nil {
		o.answers.count(res.Reason)
	}
	if _, has := o.flows.Get(res.Flow.Flow); o.limit != nil && res.Flow.Change == model.ChangeRemember && !has {
		o.limit.makeRoom(o.flows, &res.Flow)
	}
	o.flows.Apply(res.Flow)
	if o.amend != nil {
		o.amend(o.tables, frame, &res)
	}
	return res
}

// run is the outcome of a step.
func (o *oracle) run(s step) outcome {
	if s.frame == nil {
		s.change.Apply(o.tables, o.flows)
		return outcome{counts: counts{}, flows: o.remembered()}
	}
	res := o.process(s.frame)
	return outcome{res.Verdict, res.Frame, countsOf(res), o.remembered()}
}

func (o *oracle) remembered() []remembered {
	var all []remembered
	for _, e := range o.flows.All() {
		all = append(all, newRemembered(e))
	}
	sortRemembered(all)
	return all
}

// trace is what the model says of a frame at the present state.
func (o *oracle) trace(frame []byte) string {
	var text strings.Builder
	traced := *o.tables
	traced.Trace = func(step, what string) { fmt.Fprintf(&text, "\nmodel's %s: %s", step, what) }
	res := traced.Process(frame, o.flows)
	if res.Flow.Flow != (model.Flow{}) {
		fmt.Fprintf(&text, "\nmodel's change of the flow table: %s %+v %v", res.Flow.Change, res.Flow.Entry, res.Flow.Events)
		if e, ok := o.flows.Get(res.Flow.Flow); ok {
			fmt.Fprintf(&text, " of %+v", e)
		}
	}
	return text.String()
}
