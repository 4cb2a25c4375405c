// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// collectionCloser gives Collection.Close the shape of io.Closer.
type collectionCloser struct{ *ebpf.Collection }

func (c collectionCloser) Close() error {
	c.Collection.Close()
	return nil
}

// PinnedTarget is a program that somebody else loaded, filled and pinned. Its owner must stay
// alive if it has tail-call tables, which are cleared with their last user. A reload of it only
// reloads the reference.
func PinnedTarget(name, path string) Target {
	return Target{Name: name, Load: func() (*ebpf.Program, io.Closer, error) {
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("open pinned program %q: %w", path, err)
		}
		return p, p, nil
	}}
}

// ObjectTarget is one program of an ELF file, with its maps empty. program may be empty if the
// file has only one.
func ObjectTarget(name, path, program string) Target {
	return Target{Name: name, Load: func() (*ebpf.Program, io.Closer, error) {
		spec, err := ebpf.LoadCollectionSpec(path)
		if err != nil {
			return nil, nil, fmt.Errorf("read object %q: %w", path, err)
		}
		if program, err = onlyProgram(spec, program); err != nil {
			return nil, nil, fmt.Errorf("read object %q: %w", path, err)
		}
		if err := keepProgram(spec, program); err != nil {
			return nil, nil, fmt.Errorf("read object %q: %w", path, err)
		}
		coll, err := ebpf.NewCollection(spec)
		if err != nil {
			return nil, nil, fmt.Errorf("load object %q: %w", path, err)
		}
		return coll.Programs[program], collectionCloser{coll}, nil
	}}
}

func onlyProgram(spec *ebpf.CollectionSpec, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	var names []string
	for n, p := range spec.Programs {
		if p.Type == ebpf.XDP {
			names = append(names, n)
		}
	}
	if len(names) != 1 {
		slices.Sort(names)
		return "", fmt.Errorf("it has %d XDP programs (%s): name one", len(names), strings.Join(names, ", "))
	}
	return names[0], nil
}

// keepProgram removes the other programs, and the maps that only they use: those would cost
// memory and loading time.
func keepProgram(spec *ebpf.CollectionSpec, name string) error {
	p := spec.Programs[name]
	if p == nil {
		return fmt.Errorf("there is no program %q", name)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{name: p}
	used := map[string]bool{}
	for _, in := range p.Instructions {
		used[in.Reference()] = true
	}
	for n := range spec.Maps {
		if !used[n] {
			delete(spec.Maps, n)
		}
	}
	for n, v := range spec.Variables {
		if !used[v.SectionName] {
			delete(spec.Variables, n)
		}
	}
	return nil
}
