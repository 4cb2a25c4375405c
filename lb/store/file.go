// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// badKept is how many files of one name that were set aside are kept: the last ones.
const badKept = 5

// badTime is the layout of the time in the name of a file that was set aside. Names sort by time.
const badTime = "20060102T150405.000000000Z"

// errDamaged says that a file cannot be one that Save wrote.
var errDamaged = errors.New("no saved value")

func fileName(name string) string { return name + ".json" }

// tempName does not change with the attempt, so that a crash leaves one file at most, and the next
// Save takes it over. Names have no dot, so it is nobody else's.
func tempName(name string) string { return name + ".new" }

func badPrefix(name string) string { return name + ".bad-" }

// replace puts a file with this text into the place of the name's file.
func (s *Store) replace(name string, text []byte) (fs.FileInfo, error) {
	temp := tempName(name)
	info, err := s.write(temp, text)
	if err != nil {
		s.discard(temp)
		return nil, fmt.Errorf("%v; the old content stays", err)
	}
	if err := s.root.Rename(temp, fileName(name)); err != nil {
		s.discard(temp)
		return nil, fmt.Errorf("rename: %s; the old content stays", cause(err))
	}
	if err := s.syncFolder(); err != nil {
		return nil, fmt.Errorf("sync the folder: %s; the new content is in place but may not outlive a power failure", cause(err))
	}
	return info, nil
}

// discard removes a temporary file. One that stays is in nobody's way: the next Save removes it.
func (s *Store) discard(temp string) { _ = s.root.Remove(temp) }

// write makes a file, new and synced.
func (s *Store) write(temp string, text []byte) (fs.FileInfo, error) {
	if err := s.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove %s: %s", temp, cause(err))
	}
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %s", temp, cause(err))
	}
	defer f.Close() // for the returns before the one at the end
	if _, err := f.Write(text); err != nil {
		return nil, fmt.Errorf("write %d bytes: %s", len(text), cause(err))
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("sync: %s", cause(err))
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat: %s", cause(err))
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("close: %s", cause(err))
	}
	return info, nil
}

func (s *Store) syncFolder() error {
	folder, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// read is the file of name. The error wraps ErrNone or errDamaged, or is the system's.
func (s *Store) read(name string) ([]byte, fs.FileInfo, error) {
	// Without waiting: a pipe in the file's place must not hold up the start.
	f, err := s.root.OpenFile(fileName(name), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("load %s: %w", name, ErrNone)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: open: %s", name, cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: stat: %s", name, cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%w: it is a %v, not a file", errDamaged, info.Mode().Type())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: read: %s", name, cause(err))
	}
	if len(text) > maxBytes {
		return nil, nil, fmt.Errorf("%w: it is longer than %d bytes", errDamaged, maxBytes)
	}
	return text, info, nil
}

// setAside renames the file of name, which is damaged because of why, and returns the error that
// says so.
func (s *Store) setAside(name string, why error) error {
	bad := badPrefix(name) + s.now().UTC().Format(badTime)
	if err := s.root.Rename(fileName(name), bad); err != nil {
		return fmt.Errorf("load %s: %w: %v; it could not be set aside: %s", name, ErrUnreadable, why, cause(err))
	}
	err := fmt.Errorf("load %s: %w: %v; set aside as %s", name, ErrUnreadable, why, bad)
	if prune := errors.Join(s.pruneBad(name), s.syncFolder()); prune != nil {
		err = fmt.Errorf("%w; tidy up: %v", err, prune)
	}
	return err
}

// pruneBad removes all but the last files of name that were set aside.
func (s *Store) pruneBad(name string) error {
	folder, err := s.root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close()
	files, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	bad := slices.DeleteFunc(files, func(f string) bool { return !strings.HasPrefix(f, badPrefix(name)) })
	slices.Sort(bad)
	var errs []error
	for _, f := range bad[:max(0, len(bad)-badKept)] {
		errs = append(errs, s.root.RemoveAll(f))
	}
	return errors.Join(errs...)
}
