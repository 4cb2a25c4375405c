// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"errors"
	"fmt"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/frames"
)

// leastBucket is the smallest flow table: one bucket, which is both of every flow's.
const leastBucket = 4

// places is a table with 0 places or 1, beside flows that were seen. With 1, it is clear which flow
// gives way.
type places int

func (n places) start(flows *model.Flows) {
	flows.Refuse = func(model.Flow) (lb.FlowEvent, bool) {
		if flows.Len() < int(n) {
			return 0, false
		}
		for _, e := range flows.All() {
			if !e.Seen {
				return 0, false
			}
		}
		return lb.FlowRefusedFull, true
	}
}

func (n places) makeRoom(flows *model.Flows, s *model.FlowStep) {
	if flows.Len() < int(n) {
		return
	}
	for flow := range flows.All() {
		flows.Forget(flow)
	}
	s.Events = append(s.Events, lb.FlowEvicted)
}

// withoutAlways makes VIPs with flow mode always have that of transitions: which of their flows give
// way depends on the time.
func withoutAlways(vips map[lb.VIP]model.VIP) {
	for name, vip := range vips {
		if vip.Flows == lb.FlowAlways {
			vip.Flows = lb.FlowTransitions
			vips[name] = vip
		}
	}
}

// TestFullTable compares sequences where no flow finds a place, or one at a time.
func TestFullTable(t *testing.T) {
	const seed, sequences, framesEach, changesEach = 30, 60, 100, 4
	t.Logf("seed %d", seed)
	for _, n := range []places{0, 1} {
		t.Run(fmt.Sprintf("%d places", n), func(t *testing.T) {
			tables := tablesOf(seed)
			withoutAlways(tables.VIPs)
			p := loadWith(t, dataplane.Config{Flows: leastBucket}, tables)
			for tag := range uint64(leastBucket - n) {
				p.others = append(p.others, lb.Flow{Tag: 1 + tag, Real: lb.MaxRealID, Seen: true})
			}
			maker := newMaker(tables, seed)
			maker.amend = func(c *frames.Change) { withoutAlways(c.VIPs) }
			events := compareLimited(t, p, tables, n, sequences, 0, func() []step {
				return maker.next(framesEach, changesEach)
			})
			if events[lb.FlowRefusedFull] < 200 || n == 1 && events[lb.FlowEvicted] < 200 {
				t.Errorf("too few events to tell: %v", events)
			}
		})
	}
}

// compareLimited compares sequences and counts the model's events. One that differs, but not if it is
// repeated, is begun anew as often as repeats says.
func compareLimited(t *testing.T, s subject, tables *model.Tables, l limit, sequences, repeats int, next func() []step) (events [lb.FlowEventLen]int) {
	t.Helper()
	o := &oracle{limit: l, amend: func(_ *model.Tables, _ []byte, res *model.Result) {
		for _, e := range res.Flow.Events {
			events[e]++
		}
	}}
	c, err := newComparison(o, s, tables)
	if err != nil {
		t.Fatal(err)
	}
	for range sequences {
		steps := next()
		found, err := c.sequence(steps)
		for n := 0; n < repeats && errors.Is(err, errNotRepeated); n++ {
			found, err = c.sequence(steps)
		}
		if err != nil {
			t.Fatal(err)
		}
		if found != nil {
			report(t, o, found)
			break
		}
	}
	t.Logf("events: %v", events)
	return events
}
