// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package offload

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity is what a finding means for the object.
type Severity string

// A warning is about speed, or about what may or may not work; an error is a refusal.
const (
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Finding is one place where an object breaks a rule.
type Finding struct {
	Rule     Rule     `json:"rule"`
	Severity Severity `json:"severity"`
	// Program or Map says where, or both are empty for the whole object.
	Program string `json:"program,omitempty"`
	Map     string `json:"map,omitempty"`
	// Instruction is the number of the instruction in the program, as disassemblers count; -1 if
	// the finding is about no single one.
	Instruction int `json:"instruction"`
	// File and Line are the source of the instruction, where the object tells; else empty and 0.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Message says what is there, and what was expected.
	Message string `json:"message"`
}

// MapReport is what a map takes of a card.
type MapReport struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// ElementBytes is that of one element, key and value rounded up to eight bytes each.
	ElementBytes int `json:"element_bytes"`
	Elements     int `json:"elements"`
}

// ProgramReport is what a program takes of a card.
type ProgramReport struct {
	Name string `json:"name"`
	// Instructions counts those of eBPF, Estimated those that the card's will be.
	Instructions int `json:"instructions"`
	Estimated    int `json:"estimated"`
	StackBytes   int `json:"stack_bytes"`
	// PacketBytes is how many bytes of a packet the program looks at, from its start.
	PacketBytes int `json:"packet_bytes"`
}

// Report is the verdict on an object.
type Report struct {
	Profile string `json:"profile"`
	// Accepted: there is no finding that is an error.
	Accepted bool            `json:"accepted"`
	Elements int             `json:"elements"`
	Maps     []MapReport     `json:"maps"`
	Programs []ProgramReport `json:"programs"`
	Findings []Finding       `json:"findings"`
}

// add adds a finding, of several at one source line the first.
func (r *Report) add(f Finding) {
	same := func(g Finding) bool {
		if f.File != "" {
			g.Instruction = f.Instruction
		}
		return g == f
	}
	if !slices.ContainsFunc(r.Findings, same) {
		r.Findings = append(r.Findings, f)
	}
}

// finish sorts what was found, the same for the same object, and judges it.
func (r *Report) finish() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Program, b.Program), cmp.Compare(a.Map, b.Map),
			cmp.Compare(a.Instruction, b.Instruction))
	})
	r.Accepted = !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Error })
}

// String is the finding in one line: where, what, and by which rule.
func (f Finding) String() string {
	where := "object"
	switch {
	case f.File != "":
		where = fmt.Sprintf("%s:%d: program %s, instruction %d", f.File, f.Line, f.Program, f.Instruction)
	case f.Program != "" && f.Instruction >= 0:
		where = fmt.Sprintf("program %s, instruction %d", f.Program, f.Instruction)
	case f.Program != "":
		where = "program " + f.Program
	case f.Map != "":
		where = "map " + f.Map
	}
	return fmt.Sprintf("%s: %s: %s [%s]", where, f.Severity, f.Message, f.Rule)
}
