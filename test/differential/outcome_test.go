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

// counter names one of the program's counters: that of a real for packets that are forwarded,
// else that of a reason.
type counter struct {
	reason lb.Reason
	real   lb.RealID // 0 unless forwarded
}

func (c counter) String() string {
	if c.reason == lb.ReasonForwarded {
		return fmt.Sprintf("%s, real %d", c.reason, c.real)
	}
	return c.reason.String()
}

// counts holds the counters that are not zero. Those of reasons have no bytes.
type counts map[counter]dataplane.Counter

// counterOf is the one counter that the model wants to grow.
func counterOf(res model.Result) counter {
	if res.Reason == lb.ReasonForwarded {
		return counter{res.Reason, res.Real}
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

// outcome is everything that became of one frame.
type outcome struct {
	verdict lb.Verdict
	frame   []byte
	// counts is how much each counter grew.
	counts counts
}

func modelOutcome(res model.Result) outcome {
	one := dataplane.Counter{Packets: 1, Bytes: uint64(res.Bytes)}
	return outcome{res.Verdict, res.Frame, counts{counterOf(res): one}}
}

// aspect is a part of an outcome.
type aspect string

const (
	aspectVerdict  aspect = "verdict"
	aspectFrame    aspect = "frame"
	aspectCounters aspect = "counters"
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
	return found
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
		return cmp.Or(cmp.Compare(a.reason, b.reason), cmp.Compare(a.real, b.real))
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
