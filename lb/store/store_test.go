// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-lb/remora/test/require"
)

// value is what the tests save.
type value struct {
	Number int
	Text   string
}

func open(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(dir)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func save(tb testing.TB, s *Store, v value) {
	tb.Helper()
	require.NoError(tb, s.Save("state", 1, v))
}

// wantLoad fails unless the store, opened anew, has v.
func wantLoad(tb testing.TB, dir string, want value) Meta {
	tb.Helper()
	var got value
	meta, err := open(tb, dir).Load("state", 1, &got)
	require.NoError(tb, err)
	if got != want {
		tb.Errorf("got %+v, want %+v", got, want)
	}
	return meta
}

// wantError fails unless loading gives this sentinel and leaves the value as it is.
func wantError(tb testing.TB, s *Store, sentinel error, parts ...string) Meta {
	tb.Helper()
	got := value{7, "before"}
	meta, err := s.Load("state", 1, &got)
	if !errors.Is(err, sentinel) {
		tb.Fatalf("got error %v, want %v", err, sentinel)
	}
	require.ErrorSays(tb, err, parts...)
	if want := (value{7, "before"}); got != want {
		tb.Errorf("the value became %+v", got)
	}
	return meta
}

func wantFiles(tb testing.TB, dir string, want ...string) {
	tb.Helper()
	if diff := cmp.Diff(want, filesIn(tb, dir)); diff != "" {
		tb.Errorf("files (-want +got):\n%s", diff)
	}
}

func filesIn(tb testing.TB, dir string) []string {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(tb, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := open(t, dir)
	wantError(t, s, ErrNone, "load state", "nothing saved")
	at := time.Date(2026, 5, 6, 7, 8, 9, 10, time.UTC)
	s.now = func() time.Time { return at }
	for _, v := range []value{{1, "one"}, {2, "<&> \u2028 \x00 \xff"}, {3, strings.Repeat("x", 1<<20)}} {
		save(t, s, v)
		v.Text = strings.ToValidUTF8(v.Text, "\ufffd") // as JSON has it
		meta := wantLoad(t, dir, v)
		if want := (Meta{1, at}); meta != want {
			t.Errorf("meta: got %v, want %v", meta, want)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "state.json"))
	require.NoError(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode: %v", info.Mode())
	}
	wantFiles(t, dir, "state.json")
}

func TestNamesAreSeparate(t *testing.T) {
	s := open(t, t.TempDir())
	require.NoError(t, s.Save("a", 1, 1))
	require.NoError(t, s.Save("a-1", 1, 2))
	var a, b int
	_, errA := s.Load("a", 1, &a)
	_, errB := s.Load("a-1", 1, &b)
	if errA != nil || errB != nil || a != 1 || b != 2 {
		t.Errorf("got %d %v, %d %v", a, errA, b, errB)
	}
}

func TestFileOfAnotherName(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, s.Save("other", 1, value{}))
	require.NoError(t, os.Rename(filepath.Join(dir, "other.json"), filepath.Join(dir, "state.json")))
	wantError(t, s, ErrUnreadable, `saved as "other"`)
}

// TestUnchangedIsNotWritten looks at the identity of the file, which every write changes.
func TestUnchangedIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	s := open(t, dir)
	save(t, s, value{1, "one"})
	written := func(do func()) bool {
		t.Helper()
		before, err := os.Stat(file)
		require.NoError(t, err)
		do()
		after, err := os.Stat(file)
		require.NoError(t, err)
		return !os.SameFile(before, after)
	}
	if written(func() { save(t, s, value{1, "one"}) }) {
		t.Error("the same value is written again")
	}
	if !written(func() { save(t, s, value{2, "one"}) }) {
		t.Error("another value is not written")
	}
	if !written(func() { require.NoError(t, s.Save("state", 2, value{2, "one"})) }) {
		t.Error("another version is not written")
	}
	save(t, s, value{1, "one"})
	s = open(t, dir)
	if _, err := s.Load("state", 1, &value{}); err != nil {
		t.Fatal(err)
	}
	if written(func() { save(t, s, value{1, "one"}) }) {
		t.Error("the value that was loaded is written again")
	}
}

func TestUnchangedIsWrittenIfTheFileIsNot(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "state.json")
	s := open(t, dir)
	for name, spoil := range map[string]func() error{
		"removed":   func() error { return os.Remove(file) },
		"truncated": func() error { return os.Truncate(file, 3) },
		"replaced": func() error {
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("{}"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			save(t, s, value{1, "one"})
			require.NoError(t, spoil())
			save(t, s, value{1, "one"})
			wantLoad(t, dir, value{1, "one"})
		})
	}
}

func TestVersions(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	require.NoError(t, s.Save("state", 2, value{1, "one"}))
	meta := wantError(t, s, ErrVersion, "version 2 is saved, 1 is wanted")
	if meta.Version != 2 || meta.Written.IsZero() {
		t.Errorf("meta: %v", meta)
	}
	wantFiles(t, dir, "state.json")
	var got value
	_, err := s.Load("state", 2, &got)
	require.NoError(t, err)
	if want := (value{1, "one"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFormatOfANewerProgram(t *testing.T) {
	dir := t.TempDir()
	text := `{"format":9,"schema":4,"anything":[]}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state.json"), []byte(text), 0o600))
	wantError(t, open(t, dir), ErrVersion, "format 9 is saved, this program knows 1")
	wantFiles(t, dir, "state.json")
}

func TestLoadReplacesTheWholeValue(t *testing.T) {
	s := open(t, t.TempDir())
	require.NoError(t, s.Save("state", 1, map[string]int{"a": 1}))
	got := map[string]int{"b": 2}
	_, err := s.Load("state", 1, &got)
	require.NoError(t, err)
	if diff := cmp.Diff(map[string]int{"a": 1}, got); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
}

func TestRefusedCalls(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, name := range []string{"", ".", "..", "a/b", "A", "a.json", "ä", strings.Repeat("a", 65)} {
		require.ErrorSays(t, s.Save(name, 1, 0), fmt.Sprintf("save %q: a name has", name))
		_, err := s.Load(name, 1, new(int))
		require.ErrorSays(t, err, fmt.Sprintf("load %q: a name has", name))
	}
	require.ErrorSays(t, s.Save("state", 1, func() {}), "save state", "unsupported type")
	for _, into := range []any{nil, value{}, (*value)(nil)} {
		_, err := s.Load("state", 1, into)
		require.ErrorSays(t, err, "load state", "not a pointer to a value")
	}
	wantFiles(t, dir)
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "a", "b"))
	require.ErrorSays(t, err, "make state folder", "no such file")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file)
	require.ErrorSays(t, err, "open state folder", "not a directory")
}

func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	save(t, open(t, dir), value{1, "one"})
	whole, err := os.ReadFile(filepath.Join(dir, "state.json"))
	require.NoError(t, err)
	swap := func(from, to string) []byte {
		t.Helper()
		if !strings.Contains(string(whole), from) {
			t.Fatalf("%s has no %s", whole, from)
		}
		return []byte(strings.Replace(string(whole), from, to, 1))
	}
	for name, text := range map[string][]byte{
		"empty":               {},
		"zeros":               make([]byte, 4096),
		"garbage":             []byte("\xff\xfe garbage"),
		"half":                whole[:len(whole)/2],
		"last brace missing":  whole[:len(whole)-2],
		"twice":               slices.Concat(whole, whole),
		"payload changed":     swap("one", "two"),
		"schema changed":      swap(`"schema":1`, `"schema":2`),
		"time changed":        swap(`"written":"2`, `"written":"3`),
		"no time":             swap(`"written":"2`, `"written":"x`),
		"checksum missing":    swap(`"sha256"`, `"sha"`),
		"payload missing":     swap(`"payload"`, `"load"`),
		"format missing":      swap(`"format"`, `"form"`),
		"format zero":         swap(`"format":1`, `"format":0`),
		"not an object":       []byte("[]"),
		"null":                []byte("null"),
		"value does not fit":  sealed(t, `{"Number":"x"}`),
		"field nobody knows":  sealed(t, `{"Number":1,"More":1}`),
		"sealed without body": sealed(t, ``),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "state.json"), text, 0o600))
			s := open(t, dir)
			wantError(t, s, ErrUnreadable, "load state: unreadable: ", "; set aside as state.bad-")
			names := filesIn(t, dir)
			if len(names) != 1 || !strings.HasPrefix(names[0], "state.bad-") {
				t.Fatalf("files: %v", names)
			}
			aside, err := os.ReadFile(filepath.Join(dir, names[0]))
			require.NoError(t, err)
			if string(aside) != string(text) {
				t.Errorf("set aside: %q, want %q", aside, text)
			}
			wantError(t, s, ErrNone)
			save(t, s, value{2, "two"})
			wantLoad(t, dir, value{2, "two"})
		})
	}
}

// sealed is a file with this payload and a right checksum.
func sealed(tb testing.TB, payload string) []byte {
	tb.Helper()
	h := header{Format: format, Name: "state", Schema: 1, Written: "2026-05-06T07:08:09Z"}
	return fmt.Appendf(nil, `{"format":1,"name":"state","schema":1,"written":%q,"sha256":%q%s}`,
		h.Written, h.checksum([]byte(payload)), optional(payload))
}

func optional(payload string) string {
	if payload == "" {
		return ""
	}
	return `,"payload":` + payload
}

func TestWhatIsNoFileIsSetAside(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"folder": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
		},
		"pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, put(filepath.Join(dir, "state.json")))
			s := open(t, dir)
			wantError(t, s, ErrUnreadable, "not a file")
			wantError(t, s, ErrNone)
		})
	}
}

// TestBadFilesAreBounded also keeps those of another name whose beginning is the same.
func TestBadFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	at := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	s.now = func() time.Time { at = at.Add(time.Millisecond); return at }
	require.NoError(t, s.Save("state-2", 1, value{}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "state-2.bad-x"), nil, 0o600))
	for i := range badKept + 3 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "state.json"), fmt.Append(nil, i), 0o600))
		wantError(t, s, ErrUnreadable)
	}
	var texts []string
	for _, f := range filesIn(t, dir) {
		if strings.HasPrefix(f, "state.bad-") {
			text, err := os.ReadFile(filepath.Join(dir, f))
			require.NoError(t, err)
			texts = append(texts, string(text))
		}
	}
	if diff := cmp.Diff([]string{"3", "4", "5", "6", "7"}, texts); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if files := filesIn(t, dir); !slices.Contains(files, "state-2.json") || !slices.Contains(files, "state-2.bad-x") {
		t.Errorf("files of state-2 are gone: %v", files)
	}
}

func TestTemporaryFileOfACrashIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, tempName("state")), []byte("half"), 0o644))
	save(t, open(t, dir), value{1, "one"})
	wantLoad(t, dir, value{1, "one"})
	wantFiles(t, dir, "state.json")
}

func TestConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	save(t, s, value{0, "first"})
	done := make(chan error)
	for i := range 4 {
		go func() {
			var errs []error
			for n := range 20 {
				var v value
				_, err := s.Load("state", 1, &v)
				errs = append(errs, err, s.Save("state", 1, value{i, fmt.Sprint(n)}))
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, dir, "state.json")
}
