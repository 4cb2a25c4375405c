// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package corpus is programs of one question each about what a card that runs XDP takes, with the
// answers. The static check (lb/offload) and the real driver's checks are both to give them.
package corpus

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

//go:generate clang-19 -fdebug-prefix-map=$PWD=. -fdebug-compilation-dir=. -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter $BPF_CFLAGS -target bpf -c testdata/corpus.bpf.c -o testdata/corpus_bpfel.o
//go:generate llvm-strip-19 -g testdata/corpus_bpfel.o

//go:embed testdata/corpus_bpfel.o
var object []byte

// Answer is who takes a program.
type Answer string

// The answers, as the names of programs begin: testdata/corpus.bpf.c.
const (
	Accept Answer = "accept" // check and driver take it
	Warn   Answer = "warn"   // both take it, and the check warns
	Refuse Answer = "refuse" // both refuse it
	Differ Answer = "differ" // the check refuses it; the driver of some kernels does not
	Strict Answer = "strict" // the check refuses it, the driver does not
)

// Driver tells whether the card's driver takes the program; known is false if that depends on the
// kernel.
func (a Answer) Driver() (takes, known bool) {
	return a == Accept || a == Warn || a == Strict, a != Differ
}

// Question is one program.
type Question struct {
	// Name is the program's, Answer and Rule (empty if accepted) are parts of it.
	Name   string
	Answer Answer
	Rule   string
	// Spec has the program and the maps that it uses, and nothing else. It is the caller's.
	Spec *ebpf.CollectionSpec
}

// Object is all programs and maps in one ELF object.
func Object() []byte { return bytes.Clone(object) }

// Questions are all programs, by name.
func Questions() ([]Question, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read corpus: %v", err)
	}
	var all []Question
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		q := Question{Name: name, Spec: alone(spec, name)}
		answer, rest, _ := strings.Cut(name, "_")
		if q.Answer = Answer(answer); q.Answer != Accept {
			q.Rule, _, _ = strings.Cut(rest, "_")
		}
		all = append(all, q)
	}
	return all, nil
}

// alone is one program of the object with the maps that it uses.
func alone(spec *ebpf.CollectionSpec, name string) *ebpf.CollectionSpec {
	one := &ebpf.CollectionSpec{
		ByteOrder: spec.ByteOrder,
		Types:     spec.Types,
		Maps:      map[string]*ebpf.MapSpec{},
		Programs:  map[string]*ebpf.ProgramSpec{name: spec.Programs[name].Copy()},
		Variables: map[string]*ebpf.VariableSpec{},
	}
	for _, ins := range one.Programs[name].Instructions {
		if m, ok := spec.Maps[ins.Reference()]; ok && ins.IsLoadFromMap() {
			one.Maps[ins.Reference()] = m.Copy()
		}
	}
	return one
}
