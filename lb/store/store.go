// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

// Package store keeps the daemon's own state on disk: a few named values, each in a file of its
// own. A file has its old content or its new content, whenever the program or the machine stops,
// and what cannot be read is set aside, never guessed at.
package store

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"sync"
	"syscall"
	"time"
)

// The sentinels of Load.
var (
	// ErrNone says that nothing was saved under the name.
	ErrNone = errors.New("nothing saved")
	// ErrUnreadable says that what was saved is damaged, and was set aside.
	ErrUnreadable = errors.New("unreadable")
	// ErrVersion says that what was saved is whole and of another version. It is left in place, and
	// the next Save replaces it.
	ErrVersion = errors.New("another version")
)

// maxBytes bounds a file, so that a damaged one cannot exhaust memory.
const maxBytes = 256 << 20

// Store is a folder of saved values. It may be used from several goroutines. That no other process
// writes to the folder is for the caller to see to. Close it after use.
type Store struct {
	root *os.Root
	now  func() time.Time

	mu sync.Mutex
	// present is what was last found or put on disk, by name; guarded by mu.
	present map[string]content
}

// content is a file and what it holds.
type content struct {
	schema uint32
	sum    [sha256.Size]byte // of the payload
	file   fs.FileInfo
}

// Meta says of which version a value is and when it was written. A Save that changes nothing does
// not write.
type Meta struct {
	Version uint32
	Written time.Time
}

// Open opens the folder, and makes it if it is not there; its parent must be. A folder that cannot
// be written to opens too, for Load.
func Open(dir string) (*Store, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make state folder: %v", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %v", err)
	}
	return &Store{root: root, now: time.Now, present: make(map[string]content)}, nil
}

// Close releases the folder.
func (s *Store) Close() error { return s.root.Close() }

// Save makes v, as JSON, what is saved under name. The version is that of v's layout: it must change
// with any change that Load could misread. A name has 1 to 64 characters of a-z, 0-9 and "-".
//
// When Save returns nil, v is on disk to stay. When it returns an error, the old content is still
// there, except where the error says that only the last step, syncing the folder, failed.
func (s *Store) Save(name string, version uint32, v any) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("save %q: %v", name, err)
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %v", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := content{schema: version, sum: sha256.Sum256(payload)}
	if s.unchanged(name, c) {
		return nil
	}
	text, err := encode(header{Name: name, Schema: version, Written: s.now().UTC().Format(time.RFC3339Nano)}, payload)
	if err != nil {
		return fmt.Errorf("save %s: %v", name, err)
	}
	if c.file, err = s.replace(name, text); err != nil {
		return fmt.Errorf("save %s: %v", name, err)
	}
	s.present[name] = c
	return nil
}

// unchanged tells whether the file holds c, and nobody has touched it since that was found out.
func (s *Store) unchanged(name string, c content) bool {
	known, ok := s.present[name]
	if !ok || known.schema != c.schema || known.sum != c.sum {
		return false
	}
	now, err := s.root.Lstat(fileName(name))
	return err == nil && os.SameFile(now, known.file) &&
		now.Size() == known.file.Size() && now.ModTime().Equal(known.file.ModTime())
}

// Load reads what was saved under name into the value that into points to, which it replaces as a
// whole; after an error the value is as before. The error wraps ErrNone, ErrUnreadable or
// ErrVersion, and Meta then tells the version found; or it is the system's, the file is left as it
// is, and a later Load may succeed.
func (s *Store) Load(name string, version uint32, into any) (Meta, error) {
	if err := checkName(name); err != nil {
		return Meta{}, fmt.Errorf("load %q: %v", name, err)
	}
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return Meta{}, fmt.Errorf("load %s: into is %T, not a pointer to a value", name, into)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text, file, err := s.read(name)
	if errors.Is(err, errDamaged) {
		return Meta{}, s.setAside(name, err)
	}
	if err != nil {
		return Meta{}, err
	}
	h, payload, err := decode(name, text)
	meta := h.meta()
	switch {
	case errors.Is(err, errFormat):
		return meta, fmt.Errorf("load %s: %w: %v", name, ErrVersion, err)
	case err != nil:
		return Meta{}, s.setAside(name, err)
	case h.Schema != version:
		return meta, fmt.Errorf("load %s: %w: version %d is saved, %d is wanted", name, ErrVersion, h.Schema, version)
	}
	value := reflect.New(target.Type().Elem())
	if err := decodePayload(payload, value.Interface()); err != nil {
		return Meta{}, s.setAside(name, err)
	}
	target.Elem().Set(value.Elem())
	s.present[name] = content{schema: version, sum: sha256.Sum256(payload), file: file}
	return meta, nil
}

// checkName refuses names that could leave the folder or be taken for one of the store's own files.
func checkName(name string) error {
	if name == "" || len(name) > 64 {
		return errors.New("a name has 1 to 64 characters")
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return errors.New("a name has only a-z, 0-9 and \"-\"")
		}
	}
	return nil
}

// cause is the text of a system's error without the path, which the caller names better.
func cause(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
