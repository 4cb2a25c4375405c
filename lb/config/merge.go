// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import "go.yaml.in/yaml/v4"

// pair is a field of a mapping, with its key for the line.
type pair struct {
	name       string
	key, value *yaml.Node
}

// merger flattens one mapping: its own fields first, then those of the mappings that it merges in
// by <<, where the first to have a field wins.
type merger struct {
	d     *decoder
	at    place
	pairs []pair
	has   map[string]bool
	// visited ends cycles, and saves work: a mapping adds nothing when it is merged again.
	visited map[*yaml.Node]bool
}

// pairs are the fields of the mapping n, merged ones included.
func (d *decoder) pairs(n node) []pair {
	m := merger{d: d, at: n.place, has: map[string]bool{}, visited: map[*yaml.Node]bool{}}
	m.add(n.yaml)
	return m.pairs
}

func (m *merger) add(mapping *yaml.Node) {
	if m.visited[mapping] || !m.d.spend(len(mapping.Content), m.at) {
		return
	}
	m.visited[mapping] = true
	var bases []*yaml.Node
	lines := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := resolve(key)
		switch {
		case name.Kind != yaml.ScalarNode:
			m.d.add(place{m.at.path, key.Line}, "found %s where a field's name was expected: %s", describe(name), quotesHint)
		case name.ShortTag() == "!!merge":
			bases = append(bases, m.bases(key, value)...)
		case lines[name.Value] != 0:
			at := place{m.at.field(showName(name.Value)).path, key.Line}
			m.d.add(at, "duplicate field: already set on line %d", lines[name.Value])
		default:
			lines[name.Value] = key.Line
			m.addPair(pair{name.Value, key, value})
		}
	}
	for _, base := range bases {
		m.add(base)
	}
}

func (m *merger) addPair(p pair) {
	if !m.has[p.name] {
		m.has[p.name] = true
		m.pairs = append(m.pairs, p)
	}
}

// bases are the mappings that a merge key names: one, or a list of them.
func (m *merger) bases(key, value *yaml.Node) []*yaml.Node {
	value = resolve(value)
	list := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		list = value.Content
	}
	if !m.d.spend(len(list), m.at) {
		return nil
	}
	var bases []*yaml.Node
	for _, n := range list {
		if n = resolve(n); n.Kind == yaml.MappingNode {
			bases = append(bases, n)
			continue
		}
		m.d.add(place{m.at.path, key.Line}, "found %s to merge: expected the alias of a mapping, or a list of such", describe(n))
	}
	return bases
}

// resolve follows an alias; an alias never names another one.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}
