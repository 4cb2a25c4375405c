// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// modules are the kernel modules of a folder.
type modules struct {
	// files has the path of each module by its name; empty, if the kernel has it built in.
	files map[string]string
	// depends has the names of those that a module needs.
	depends func(file string) ([]string, error)
}

func newModules(dir string) (*modules, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return nil, fmt.Errorf("list modules: %v", err)
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("list built-in modules: %v", err)
	}
	m := &modules{files: make(map[string]string), depends: dependsOf}
	for file := range strings.FieldsSeq(string(builtin)) {
		m.files[moduleName(file)] = ""
	}
	for _, p := range paths {
		m.files[moduleName(p)] = p
	}
	return m, nil
}

// moduleName is the name that the kernel has for a file's module, or for another spelling of it.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// order are the files of these modules and of what they need, in the order to load them. A name that
// the kernel does not know is an error.
func (m *modules) order(names []string) (files []string, err error) {
	seen := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		file, ok := m.files[name]
		if !ok {
			return fmt.Errorf("this kernel has no module %s", name)
		}
		if file == "" {
			return nil
		}
		needed, err := m.depends(file)
		if err != nil {
			return err
		}
		for _, n := range needed {
			if err := visit(n); err != nil {
				return fmt.Errorf("module %s: %v", name, err)
			}
		}
		files = append(files, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// dependsOf reads what a module says about itself: NAME=VALUE, each with a zero byte at its end.
func dependsOf(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read module: %v", err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read module %s: it has no section .modinfo", file)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read module %s: %v", file, err)
	}
	for line := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
