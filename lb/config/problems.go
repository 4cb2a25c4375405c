// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a configuration file.
type Problem struct {
	// File is the name that Parse was given.
	File string
	// Line is where the value stands, from 1.
	Line int
	// Path names the field, as in services[1].vips[0]; empty for the file as a whole.
	Path string
	// Message says what is wrong and what was expected, in one line. Text from the file is quoted.
	Message string
}

// String is the line that an operator reads: FILE:LINE: PATH: MESSAGE.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d: ", p.File, p.Line)
	if p.Path != "" {
		s += p.Path + ": "
	}
	return s + p.Message
}

// Problems are all mistakes of a file, ordered by line. Parse and Load return it as their error;
// errors.As finds it.
type Problems []Problem

// Error lists the problems, one line each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// place is where a value stands: its field path and line.
type place struct {
	path string
	line int
}

// field is the place of a field of a mapping; the line is the mapping's until the field is found.
func (p place) field(name string) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{name, p.line}
}

// element is the place of an element of a list.
func (p place) element(i int) place {
	return place{fmt.Sprintf("%s[%d]", p.path, i), p.line}
}

// report collects the problems of one file.
type report struct {
	file     string
	problems Problems
}

// add notes a problem. Text from the file must be quoted, so that the message is one line.
func (r *report) add(at place, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.file, max(at.line, 1), at.path, fmt.Sprintf(format, args...)})
}

// sorted are the problems by line, and in the order of their discovery within one.
func (r *report) sorted() Problems {
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return r.problems
}
