// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// writeImage writes all files of a machine: a shell, modules, programs, and what tests read of the
// source.
func (w *workshop) writeImage(name string, opts options, kernel string, p part) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write image: %v", err)
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(buffered)
	err = w.fill(a, opts, kernel, p)
	if err := errors.Join(err, a.close(), buffered.Flush(), f.Close()); err != nil {
		return fmt.Errorf("write image: %v", err)
	}
	return nil
}

func (w *workshop) fill(a *archive, opts options, kernel string, p part) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/tests"} {
		a.dir(dir)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	a.file("/bin/busybox", busybox)
	a.file("/bin/remora", w.remora(opts))
	a.file("/init", "test/vm/init")
	if err := addModules(a, kernel, p.modules); err != nil {
		return err
	}
	var script strings.Builder
	for _, t := range p.tests {
		a.file("/tests/"+t.binary(), filepath.Join(w.dir, t.binary()))
		a.dir("/source/" + t.pkg)
		fmt.Fprintln(&script, t.command())
	}
	a.text("/commands", script.String())
	if err := addFiles(a, "/source/bpf", "bpf/*.h"); err != nil {
		return err
	}
	if opts.objects == "" {
		return nil
	}
	return addFiles(a, "/objects", filepath.Join(opts.objects, "*.o"))
}

// addModules adds the modules so that their names have the order in which they are loaded.
func addModules(a *archive, kernel string, names []string) error {
	all, err := newModules(filepath.Join(kernel, "modules"))
	if err != nil {
		return err
	}
	files, err := all.order(names)
	if err != nil {
		return err
	}
	for i, file := range files {
		a.file(fmt.Sprintf("/modules/%03d-%s", i, filepath.Base(file)), file)
	}
	return nil
}

// addFiles adds the files that a pattern names, without folders in between.
func addFiles(a *archive, dir, pattern string) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no %s", pattern)
	}
	for _, file := range files {
		a.file(filepath.Join(dir, filepath.Base(file)), file)
	}
	return nil
}
