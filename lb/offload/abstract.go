// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"maps"
	"math"
	"slices"
)

// kind is what a register holds.
type kind uint8

const (
	unset kind = iota
	scalar
	context
	packet
	packetEnd
	stack
	value // a map's; or NULL
	mapPointer
	mixed // of several kinds, by the path
)

func (k kind) String() string {
	return [...]string{
		"nothing", "a number", "the context", "the packet", "the packet's end", "the stack", "a map's value", "a map",
		"one kind of memory or another",
	}[k]
}

// interval is a range of numbers, both ends included: unsigned for scalars, signed for offsets.
type interval[T int64 | uint64] struct{ low, high T }

func (i interval[T]) constant() bool { return i.low == i.high }

func (i interval[T]) join(j interval[T]) interval[T] {
	return interval[T]{min(i.low, j.low), max(i.high, j.high)}
}

var (
	anyNumber = interval[uint64]{0, math.MaxUint64}
	anyOffset = interval[int64]{math.MinInt64, math.MaxInt64}
	any32     = interval[uint64]{0, math.MaxUint32}
)

// abstract is what is known of a register or of a place on the stack.
type abstract struct {
	kind kind
	// number is what a scalar may be.
	number interval[uint64]
	// offset is where a pointer may point to, from where its memory starts.
	offset interval[int64]
	// constants are the few numbers that a scalar or an offset may be, by the path; nil if these are
	// not known.
	constants []uint64
	// mapName is that of a map or of its value; empty if it may be one of several.
	mapName string
	// frame is the function whose stack is pointed to.
	frame int
}

// maxConstants is how many numbers are kept apart before only their range is known.
const maxConstants = 8

func number(n interval[uint64]) abstract {
	a := abstract{kind: scalar, number: n}
	if n.constant() {
		a.constants = []uint64{n.low}
	}
	return a
}

func constant(n uint64) abstract { return number(interval[uint64]{n, n}) }

func pointer(k kind, at int64) abstract {
	return abstract{kind: k, offset: interval[int64]{at, at}, constants: []uint64{uint64(at)}}
}

// places are where a load or store through the pointer may go, by the path; nil if that is not known.
func (a abstract) places(displacement int16) []int64 {
	if !isPointer(a) {
		return nil
	}
	var all []int64
	for _, n := range a.constants {
		all = append(all, int64(n)+int64(displacement))
	}
	return all
}

func (a abstract) equal(b abstract) bool {
	return a.kind == b.kind && a.number == b.number && slices.Equal(a.constants, b.constants) && a.offset == b.offset &&
		a.mapName == b.mapName && a.frame == b.frame
}

// isNull tells whether a is 0 for sure, as a pointer is on paths where there is nothing to point to. The
// verifier sees to it that these use no memory.
func (a abstract) isNull() bool {
	return a.kind == scalar && a.number == interval[uint64]{}
}

// join is what is known if either may be.
func (a abstract) join(b abstract) abstract {
	switch {
	case a.kind == unset, a.isNull() && isPointer(b):
		return b
	case b.kind == unset, b.isNull() && isPointer(a):
		return a
	case a.kind != b.kind, a.kind == stack && a.frame != b.frame:
		return abstract{kind: mixed}
	}
	a.number, a.offset = a.number.join(b.number), a.offset.join(b.offset)
	a.constants = joinConstants(a.constants, b.constants)
	if a.mapName != b.mapName {
		a.mapName = ""
	}
	return a
}

func joinConstants(a, b []uint64) []uint64 {
	if a == nil || b == nil {
		return nil
	}
	both := slices.Concat(a, b)
	slices.Sort(both)
	if both = slices.Compact(both); len(both) > maxConstants {
		return nil
	}
	return both
}

// widen gives up on what still grows.
func (a abstract) widen(before abstract) abstract {
	if a.kind == scalar && a.number != before.number {
		return number(anyNumber)
	}
	if a.kind != scalar && a.offset != before.offset {
		a.offset, a.constants = anyOffset, nil
	}
	return a
}

// machine is what is known before an instruction.
type machine struct {
	registers [11]abstract
	// slots are the 8-byte places of the function's own stack that are known, by their offset.
	slots map[int64]abstract
}

func (m *machine) clone() *machine {
	return &machine{m.registers, maps.Clone(m.slots)}
}

// join adds what is known on another path, and tells whether that changes anything.
func (m *machine) join(other *machine, widen bool) (changed bool) {
	merge := func(mine, theirs abstract) abstract {
		joined := mine.join(theirs)
		if joined.equal(mine) {
			return mine
		}
		changed = true
		if widen {
			joined = joined.widen(mine)
		}
		return joined
	}
	for i := range m.registers {
		m.registers[i] = merge(m.registers[i], other.registers[i])
	}
	for at, mine := range m.slots {
		if theirs, ok := other.slots[at]; ok {
			m.slots[at] = merge(mine, theirs)
		} else {
			delete(m.slots, at)
			changed = true
		}
	}
	return changed
}
