// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/dataplane"
	"github.com/remora-lb/remora/lb/model"
)

// counter names one of the program's counters: that of a real for packets that are forwarded or local,
// that of another reason, that of an event at the flow table, or that of packets of a family that were
// decapsulated.
type counter struct {
	reason lb.Reason // lb.ReasonLen of an event, one more of packets that were decapsulated
	real   lb.RealID // 0 unless forwarded
	event  lb.FlowEvent
	family int // 0 unless decapsulated
}

// eventCounter is the counter of an event at the flow table.
func eventCounter(e lb.FlowEvent) counter { return counter{reason: lb.ReasonLen, event: e} }

// decapCounter is the counter of packets of a family that were decapsulated.
func decapCounter(family int) counter { return counter{reason: lb.ReasonLen + 1, family: family} }

func (c counter) String() string {
	switch c.reason {
	case lb.ReasonLen + 1:
		return fmt.Sprintf("decapsulated, IPv%d", c.family)
	case lb.ReasonForwarded:
		return fmt.Sprintf("%s, real %d", c.reason, c.real)
	case lb.ReasonLen:
		return "flow event " + c.event.String()
	}
	return c.reason.String()
}

// counts holds the counters that are not zero. Only those of reals have bytes.
type counts map[counter]dataplane.Counter

// add lets a counter grow.
func (c counts) add(name counter, n dataplane.Counter) {
	sum := c[name]
	c[name] = dataplane.Counter{Packets: sum.Packets + n.Packets, Bytes: sum.Bytes + n.Bytes}
}

// counterOf is the counter of packets that the model wants to grow.
func counterOf(res model.Result) counter {
	if res.Reason == lb.ReasonForwarded {
		return counter{reason: res.Reason, real: res.Real}
	}
	return counter{reason: res.Reason}
}

// growth is what after counts more than before. Counters that shrank come out as huge.
func growth(before, after counts) counts {
	grown := counts{}
	for name := range allCounters(before, after) {
		b, a := before[name], after[name]
		if a != b {
			grown[name] = dataplane.Counter{Packets: a.Packets - b.Packets, Bytes: a.Bytes - b.Bytes}
		}
	}
	return grown
}

func allCounters(a, b counts) counts {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// countsOf is how much the model wants all counters to grow.
func countsOf(res model.Result) counts {
	n := dataplane.Counter{Packets: 1, Bytes: uint64(res.Bytes)}
	all := counts{counterOf(res): n}
	if res.Reason == lb.ReasonLocal { // counted for the real, too
		all = counts{counterOf(res): {Packets: 1}, {reason: lb.ReasonForwarded, real: res.Real}: n}
	}
	if res.Decapsulated != 0 {
		all.add(decapCounter(res.Decapsulated), dataplane.Counter{Packets: 1})
	}
	for _, e := range res.Flow.Events {
		all.add(eventCounter(e), dataplane.Counter{Packets: 1})
	}
	return all
}

// remembered is what is compared of an entry of the flow table. Flows have other names in the
// program than in the model.
type remembered struct {
	real       lb.RealID
	generation uint8
	slot       uint32
	seen       bool
	// shortPauses is for how long the entry was not used, in units of shortPause.
	shortPauses int
}

func newRemembered(e model.Entry) remembered {
	pauses := (e.Idle + shortPause/2) / shortPause
	return remembered{e.Real, e.Generation, e.Slot, e.Seen, int(pauses)}
}

// sortRemembered puts entries of a table into the order in which tables are compared.
func sortRemembered(all []remembered) {
	slices.SortFunc(all, func(a, b remembered) int {
		return cmp.Or(cmp.Compare(a.slot, b.slot), cmp.Compare(a.real, b.real), cmp.Compare(a.generation, b.generation),
			cmp.Compare(a.shortPauses, b.shortPauses), strings.Compare(fmt.Sprint(a.seen), fmt.Sprint(b.seen)))
	})
}

// outcome is everything that became of one step; of a change, only the flows.
type outcome struct {
	verdict lb.Verdict
	frame   []byte
	// counts is how much each counter grew.
	counts counts
	// flows is the flow table afterwards, in sortRemembered's order.
	flows []remembered
}

// aspect is a part of an outcome.
type aspect string

const (
	aspectVerdict  aspect = "verdict"
	aspectFrame    aspect = "frame"
	aspectCounters aspect = "counters"
	aspectFlows    aspect = "flows"
)

// difference is one aspect in which two outcomes differ, and a text that says how.
type difference struct {
	aspect aspect
	text   string
}

// differences compares the program's outcome with the model's: at most one difference for each
// aspect, in the order of their constants; none if the two are equal.
func differences(model, program outcome) []difference {
	var found []difference
	if model.verdict != program.verdict {
		text := fmt.Sprintf("model %s, program %s (%d)", model.verdict, program.verdict, program.verdict)
		found = append(found, difference{aspectVerdict, text})
	}
	if !bytes.Equal(model.frame, program.frame) {
		found = append(found, difference{aspectFrame, frameDifference(model.frame, program.frame)})
	}
	if !maps.Equal(model.counts, program.counts) {
		found = append(found, difference{aspectCounters, counterDifference(model.counts, program.counts)})
	}
	if !slices.Equal(model.flows, program.flows) {
		text := fmt.Sprintf("only the model has %+v\nonly the program has %+v",
			without(model.flows, program.flows), without(program.flows, model.flows))
		found = append(found, difference{aspectFlows, text})
	}
	return found
}

// without is the flows of a that b has less often.
func without(a, b []remembered) []remembered {
	rest := map[remembered]int{}
	for _, flow := range b {
		rest[flow]++
	}
	var only []remembered
	for _, flow := range a {
		if rest[flow]--; rest[flow] < 0 {
			only = append(only, flow)
		}
	}
	return only
}

func frameDifference(model, program []byte) string {
	at := 0
	for at < len(model) && at < len(program) && model[at] == program[at] {
		at++
	}
	return fmt.Sprintf("differs from byte %d on; around there\nmodel   (%d bytes) %x\nprogram (%d bytes) %x",
		at, len(model), around(model, at), len(program), around(program, at))
}

// around is the bytes before and behind one place, as many as the outer headers at most.
func around(frame []byte, at int) []byte {
	return frame[max(0, at-maxOuterLen):min(len(frame), at+maxOuterLen)]
}

func counterDifference(model, program counts) string {
	names := slices.SortedFunc(maps.Keys(allCounters(model, program)), func(a, b counter) int {
		return cmp.Or(cmp.Compare(a.reason, b.reason), cmp.Compare(a.real, b.real), cmp.Compare(a.event, b.event),
			cmp.Compare(a.family, b.family))
	})
	var text []string
	for _, name := range names {
		m, p := model[name], program[name]
		if m != p {
			text = append(text, fmt.Sprintf("%s: model +%d packets +%d bytes, program +%d packets +%d bytes",
				name, m.Packets, m.Bytes, p.Packets, p.Bytes))
		}
	}
	return strings.Join(text, "; ")
}

func aspects(found []difference) []aspect {
	var of []aspect
	for _, d := range found {
		of = append(of, d.aspect)
	}
	return of
}
