// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strconv"

	"go.yaml.in/yaml/v4"
)

const (
	// aliasBudget is how many values aliases may add to those that are written out, so that a
	// small file cannot unfold into one that fills the memory.
	aliasBudget = 1 << 20
	// maxTextLen is the longest text, in bytes; no field needs more, and messages quote it.
	maxTextLen = 256
)

// node is a value of the tree, aliases followed.
type node struct {
	place
	yaml *yaml.Node
}

// isText tells whether the node is a scalar and not a number or the like.
func (n node) isText() bool { return n.yaml.Kind == yaml.ScalarNode && n.yaml.ShortTag() == "!!str" }

// known is a field that a mapping may have, and what reads its value.
type known struct {
	name string
	read func(node)
}

// decoder reads the tree into a document. Its recursion follows the document's types, so no tree
// is too deep for it.
type decoder struct {
	*report
	// left is how many more values may be read.
	left int
	// spent is set once that is reported.
	spent bool
}

// node is n at the place of path; its line is n's own, that of the alias if it is one.
func (d *decoder) node(at place, n *yaml.Node) node {
	return node{place{at.path, n.Line}, resolve(n)}
}

// spend tells whether there is budget for so many values more.
func (d *decoder) spend(values int, at place) bool {
	d.left -= values
	if d.left < 0 && !d.spent {
		d.spent = true
		d.add(at, "the aliases of the file stand for more than %d values: expected fewer", aliasBudget)
	}
	return d.left >= 0
}

// mapping reads the fields of a mapping. It returns false, and has reported why, if n is none or
// nothing in it is known: there is no use in saying what such a value lacks. What else the value
// may be goes in front of the field names in the message.
func (d *decoder) mapping(n node, alternative string, fields ...known) bool {
	if n.yaml.Kind != yaml.MappingNode {
		d.add(n.place, "found %s: expected %sa mapping with the fields %s", describe(n.yaml), alternative, enumerate(names(fields), "and"))
		return false
	}
	before, read := len(d.problems), false
	for _, p := range d.pairs(n) {
		if d.readField(n, p, fields) {
			read = true
		}
	}
	return read || len(d.problems) == before
}

// readField reads the value of a field and tells whether the field is known.
func (d *decoder) readField(n node, p pair, fields []known) bool {
	for _, f := range fields {
		if f.name == p.name {
			at := n.field(f.name)
			at.line = p.key.Line
			f.read(node{at, resolve(p.value)})
			return true
		}
	}
	d.add(place{n.path, p.key.Line}, "unknown field %s: %s", quote(p.name), remedy(p.name, names(fields)))
	return false
}

func names(fields []known) []string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.name
	}
	return list
}

// decodeList reads the elements of a list.
func decodeList[T any](d *decoder, l *list[T], element func(node) T) func(node) {
	return func(n node) {
		l.place, l.given = n.place, true
		if n.yaml.Kind != yaml.SequenceNode {
			d.add(n.place, "found %s: expected a list, each element behind a dash", describe(n.yaml))
			return
		}
		if !d.spend(len(n.yaml.Content), n.place) {
			return
		}
		l.ok = true
		for i, child := range n.yaml.Content {
			l.items = append(l.items, element(d.node(n.element(i), child)))
		}
	}
}

// unlessNull treats a field with no value as an absent one.
func (d *decoder) unlessNull(read func(node)) func(node) {
	return func(n node) {
		if !isNull(n.yaml) {
			read(n)
		}
	}
}

// text reads a text.
func (d *decoder) text(f *field[string]) func(node) {
	return func(n node) {
		*f = field[string]{place: n.place, text: n.yaml.Value, value: n.yaml.Value, given: true}
		switch {
		case n.yaml.Kind == yaml.ScalarNode && len(n.yaml.Value) > maxTextLen:
			d.add(n.place, "the value has %d bytes: expected at most %d", len(n.yaml.Value), maxTextLen)
		case n.isText():
			f.ok = true
		case isPlainValue(n.yaml):
			d.add(n.place, "found %s: expected text: put it in quotes", describe(n.yaml))
		default:
			d.add(n.place, "found %s: expected text", describe(n.yaml))
		}
	}
}

// time reads a duration, whose unit may be missing: that is not for the decoder to judge.
func (d *decoder) time(f *field[string]) func(node) {
	return func(n node) {
		if n.yaml.Kind == yaml.ScalarNode && n.yaml.ShortTag() == "!!int" {
			*f = field[string]{place: n.place, text: n.yaml.Value, value: n.yaml.Value, given: true, ok: true}
			return
		}
		d.text(f)(n)
	}
}

// isPlainValue tells whether quotes would make a text of the value.
func isPlainValue(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!timestamp":
		return n.Kind == yaml.ScalarNode
	}
	return false
}

// whole reads a whole number in decimal digits; one that is too large for 64 bits is read as the
// nearest that is not.
func (d *decoder) whole(f *field[int64]) func(node) {
	return func(n node) {
		*f = field[int64]{place: n.place, text: n.yaml.Value, given: true}
		isNumber := n.yaml.Kind == yaml.ScalarNode && (n.yaml.ShortTag() == "!!int" || n.yaml.ShortTag() == "!!float")
		if !isNumber || !isDecimal(n.yaml.Value) {
			d.add(n.place, "found %s: expected a whole number in decimal digits, without quotes", describe(n.yaml))
			return
		}
		// The only error left is that of the range, and then the value is the nearest.
		f.value, _ = strconv.ParseInt(n.yaml.Value, 10, 64)
		f.ok = true
	}
}
