// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// elementBytes is what an element takes of a card's memory.
func elementBytes(m *ebpf.MapSpec) int {
	return roundUp(int(m.KeySize), 8) + roundUp(int(m.ValueSize), 8)
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// checkMaps judges all maps of the object, since whoever loads it makes all.
func (c *checker) checkMaps() {
	c.report.Maps = []MapReport{}
	for _, name := range slices.Sorted(maps.Keys(c.spec.Maps)) {
		m := c.spec.Maps[name]
		r := MapReport{Name: name, Type: m.Type.String(), ElementBytes: elementBytes(m), Elements: int(m.MaxEntries)}
		c.report.Maps = append(c.report.Maps, r)
		c.report.Elements += r.Elements
		c.checkMap(name, m)
	}
	whole := func(what string, n, limit int) {
		if limit != 0 && n > limit {
			c.find(Finding{Rule: RuleElements, Severity: Error, Instruction: -1, Message: fmt.Sprintf("%s: %d, and a card has room for %d", what, n, limit)})
		}
	}
	whole("elements of all maps", c.report.Elements, c.profile.Elements)
	whole("maps", len(c.spec.Maps), c.profile.Maps)
}

func (c *checker) checkMap(name string, m *ebpf.MapSpec) {
	find := func(r Rule, format string, args ...any) {
		c.find(Finding{Rule: r, Severity: Error, Map: name, Instruction: -1, Message: fmt.Sprintf(format, args...)})
	}
	if strings.HasPrefix(name, ".") {
		find(RuleData, "it holds a data section, and a card has none: use an ARRAY map, and no global or static variables, no constants outside the code and no format strings")
		return
	}
	if m.Type != ebpf.Array && m.Type != ebpf.Hash {
		find(RuleMapType, "its type is %s, and a card takes ARRAY and HASH", m.Type)
	}
	if m.Flags != 0 {
		find(RuleMapFlags, "it has flags %#x, and a card takes none", m.Flags)
	}
	if m.InnerMap != nil {
		find(RuleMapFlags, "it holds maps, and a card has none that do")
	}
	if m.NumaNode != 0 {
		find(RuleMapFlags, "it asks for NUMA node %d, and a card has none", m.NumaNode)
	}
	if n, limit := elementBytes(m), c.profile.ElementBytes; limit != 0 && n > limit {
		find(RuleElementBytes, "an element takes %d bytes (key %d, value %d, each rounded up to 8), and a card has room for %d", n, m.KeySize, m.ValueSize, limit)
	}
}

// wordName names a 4-byte word of a map's values.
type wordName struct {
	mapName string
	word    int64
}

// wordUse is where a word is first read, and first added to.
type wordUse struct{ read, added *place }

// mapUpdate is where a program updates a map.
type mapUpdate struct {
	mapName string
	where   place
}

// useWords notes that the bytes of a value are read or added to, and finds words that are both.
func (c *checker) useWords(mapName string, offset, size int64, added bool, where place) {
	for word := offset / 4; word <= (offset+size-1)/4; word++ {
		name := wordName{mapName, word}
		use := c.words[name]
		if use == nil {
			use = &wordUse{}
			c.words[name] = use
		}
		mine, other := &use.read, use.added
		if added {
			mine, other = &use.added, use.read
		}
		if *mine == nil {
			*mine = &where
		}
		if other != nil {
			c.findAt(where, RuleWordUse, Error, "bytes %d to %d of values of map %s are read and atomically added to; a card's driver wants one of the two",
				word*4, word*4+3, mapName)
		}
	}
}

// checkUpdates finds updates of maps that have counters. Older kernels take them where the counter is
// seen to be set to zero, and newer ones do not see it.
func (c *checker) checkUpdates() {
	counters := map[string]bool{}
	for name, use := range c.words {
		if use.added != nil {
			counters[name.mapName] = true
		}
	}
	for _, u := range c.updates {
		if counters[u.mapName] {
			c.findAt(u.where, RuleUpdate, Error, "map %s, which has counters, is updated by the program; keep the counters in a map of their own", u.mapName)
		}
	}
}
