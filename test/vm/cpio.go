// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
)

// Modes of entries (inode(7)).
const (
	modeDir  = 0o040755
	modeFile = 0o100755
)

// archive writes the archive that a kernel unpacks at its start: cpio in the "newc" form
// (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel). The first error stays
// and is returned by close.
type archive struct {
	w     io.Writer
	err   error
	inode int
	// dirs are the folders that were written.
	dirs map[string]bool
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{".": true, "/": true}}
}

// dir adds a folder and those above it.
func (a *archive) dir(name string) {
	name = path.Clean(name)
	if a.dirs[name] {
		return
	}
	a.dirs[name] = true
	a.dir(path.Dir(name))
	a.entry(name, modeDir, 0, bytes.NewReader(nil))
}

// text adds a file with this content.
func (a *archive) text(name, content string) {
	a.dir(path.Dir(name))
	a.entry(name, modeFile, int64(len(content)), bytes.NewReader([]byte(content)))
}

// file adds a copy of the host's file from.
func (a *archive) file(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		a.fail(err)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		a.fail(err)
		return
	}
	a.dir(path.Dir(name))
	a.entry(name, modeFile, info.Size(), f)
}

// close writes the end.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, bytes.NewReader(nil))
	return a.err
}

// entry writes a header of fixed length, the name, and the content; the latter two are filled up to
// a multiple of four.
func (a *archive) entry(name string, mode uint32, size int64, content io.Reader) {
	if a.err != nil {
		return
	}
	a.inode++
	for len(name) > 0 && name[0] == '/' {
		name = name[1:]
	}
	const links, headerBytes = 1, 110
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	_, err := io.WriteString(a.w, header+padding(headerBytes+int64(len(name))+1))
	if err != nil {
		a.fail(err)
		return
	}
	n, err := io.Copy(a.w, content)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, not %d", name, n, size)
	}
	if err == nil {
		_, err = io.WriteString(a.w, padding(size))
	}
	if err != nil {
		a.fail(err)
	}
}

func padding(size int64) string { return "\x00\x00\x00"[:(4-size%4)%4] }

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}
