// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/remora-lb/remora/test/require"
)

// recorded is a machine whose facts are in testdata/NAME: machine.json, and files below files. Tests
// change what they need.
type recorded struct {
	LinkList       []Link                  `json:"links"`
	AddressList    []Address               `json:"addresses"`
	Routes         map[string]Route        `json:"routes"`
	Default4       []Route                 `json:"default4"`
	Default6       []Route                 `json:"default6"`
	Neighbours     map[string]Neighbour    `json:"neighbours"` // "LINK ADDRESS"
	GUE            []uint16                `json:"gue"`
	DriverFacts    driverFacts             `json:"driver"`
	ReleaseText    string                  `json:"release"`
	CPUCount       int                     `json:"cpus"`
	Synchronised   bool                    `json:"synchronised"`
	FileSystems    map[string]FileSystem   `json:"file_systems"`
	Owners         map[string]Owner        `json:"owners"`
	PinnedPrograms map[string]uint32       `json:"pinned"`
	Decapsulators  map[string]Decapsulator `json:"decapsulators"`
	Rules          string                  `json:"rules"`

	files fstest.MapFS
	// denied are answers that take privileges: "bpf", "pinned", "decapsulator", "rules", "netlink".
	denied map[string]bool
	// unsupported are answers that the kernel or the driver does not know: "ring", "fou".
	unsupported map[string]bool
	// answers are what routers answer; those that are not there do not.
	answers map[netip.AddrPort]error
}

type driverFacts struct {
	Name     string
	Features map[string]bool
	Queues   [2]int
	Ring     [2]int
}

func record(t *testing.T, name string) *recorded {
	t.Helper()
	r := &recorded{files: fstest.MapFS{}, denied: map[string]bool{}, unsupported: map[string]bool{}, answers: map[netip.AddrPort]error{}}
	text, err := os.ReadFile(filepath.Join("testdata", name, "machine.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, r))
	root := os.DirFS(filepath.Join("testdata", name, "files"))
	require.NoError(t, fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		r.files[path] = &fstest.MapFile{Data: data}
		return err
	}))
	return r
}

// write puts a text into a file.
func (r *recorded) write(path, text string) { r.files[path] = &fstest.MapFile{Data: []byte(text)} }

// link is the interface of this name, to be changed.
func (r *recorded) link(name string) *Link {
	for i := range r.LinkList {
		if r.LinkList[i].Name == name {
			return &r.LinkList[i]
		}
	}
	return nil
}

func (r *recorded) machine() *Machine {
	return &Machine{Files: r.files, Network: r, Driver: r, System: r, BPF: r, PacketFilter: r.packetFilter, Connect: r.connect}
}

func (r *recorded) allowed(what string) error {
	if r.denied[what] {
		return fmt.Errorf("ask for %s: %w", what, fs.ErrPermission)
	}
	if r.unsupported[what] {
		return fmt.Errorf("ask for %s: %w", what, errors.ErrUnsupported)
	}
	return nil
}

func (r *recorded) Links() ([]Link, error)        { return r.LinkList, r.allowed("netlink") }
func (r *recorded) Addresses() ([]Address, error) { return r.AddressList, r.allowed("netlink") }
func (r *recorded) GUEPorts() ([]uint16, error)   { return r.GUE, r.allowed("fou") }

func (r *recorded) Route(dst netip.Addr) (Route, error) {
	if route, ok := r.Routes[dst.String()]; ok {
		return route, r.allowed("netlink")
	}
	return Route{Problem: "no route leads to " + dst.String()}, r.allowed("netlink")
}

func (r *recorded) DefaultRoutes(ipv6 bool) ([]Route, error) {
	if ipv6 {
		return r.Default6, r.allowed("netlink")
	}
	return r.Default4, r.allowed("netlink")
}

func (r *recorded) Neighbour(link int, addr netip.Addr) (Neighbour, error) {
	return r.Neighbours[fmt.Sprintf("%d %v", link, addr)], r.allowed("netlink")
}

func (r *recorded) Name(string) (string, error) { return r.DriverFacts.Name, r.allowed("driver") }
func (r *recorded) Features(string) (map[string]bool, error) {
	return r.DriverFacts.Features, r.allowed("driver")
}
func (r *recorded) Queues(string) (now, most int, err error) {
	return r.DriverFacts.Queues[0], r.DriverFacts.Queues[1], r.allowed("driver")
}
func (r *recorded) Ring(string) (now, most int, err error) {
	return r.DriverFacts.Ring[0], r.DriverFacts.Ring[1], r.allowed("ring")
}

func (r *recorded) Release() (string, error)         { return r.ReleaseText, nil }
func (r *recorded) CPUs() int                        { return r.CPUCount }
func (r *recorded) ClockSynchronised() (bool, error) { return r.Synchronised, r.allowed("clock") }

func (r *recorded) FileSystem(path string) (FileSystem, error) {
	f, ok := r.FileSystems[path]
	if !ok {
		return f, fmt.Errorf("look at %s: %w", path, fs.ErrNotExist)
	}
	return f, nil
}

func (r *recorded) Owner(path string) (Owner, error) {
	o, ok := r.Owners[path]
	if !ok {
		return o, fmt.Errorf("look at %s: %w", path, fs.ErrNotExist)
	}
	return o, nil
}

func (r *recorded) Usable() error { return r.allowed("bpf") }

func (r *recorded) Pinned(path string) (uint32, error) {
	return r.PinnedPrograms[path], r.allowed("pinned")
}

func (r *recorded) Decapsulator(program uint32) (Decapsulator, error) {
	return r.Decapsulators[fmt.Sprint(program)], r.allowed("decapsulator")
}

func (r *recorded) packetFilter(context.Context) (string, error) {
	return r.Rules, r.allowed("rules")
}

func (r *recorded) connect(_ context.Context, _, to netip.AddrPort) error {
	err, ok := r.answers[to]
	if !ok {
		return context.DeadlineExceeded
	}
	return err
}

// want is a finding that a test demands.
type want struct {
	id      string
	verdict Verdict
	// says are parts of the facts, the object or the need; cures, of the cure.
	says, cures []string
}

// assertFindings demands exactly these findings beside those that are OK.
func assertFindings(t *testing.T, r Report, wanted ...want) {
	t.Helper()
	var bad []Finding
	for _, f := range r.Findings {
		if f.Facts == "" || f.Group == "" {
			t.Errorf("finding %+v says nothing", f)
		}
		if f.Verdict != OK {
			bad = append(bad, f)
		}
		if (f.Verdict == Fail || f.Verdict == Warn) && f.Cure == "" {
			t.Errorf("%s has no cure: %s", f.ID, f.Facts)
		}
		if f.Verdict == CannotTell && f.Needs == "" {
			t.Errorf("%s does not say what it needs: %s", f.ID, f.Facts)
		}
	}
	for _, w := range wanted {
		i := indexFinding(bad, w)
		if i < 0 {
			t.Errorf("no finding %s %s that says %q and cures %q", w.id, w.verdict, w.says, w.cures)
			continue
		}
		bad = append(bad[:i], bad[i+1:]...)
	}
	for _, f := range bad {
		t.Errorf("unexpected: %s %s %s: %s (cure %q)", f.Verdict, f.ID, f.Object, f.Facts, f.Cure)
	}
}

// indexFinding finds what is wanted; -1 if it is not there.
func indexFinding(list []Finding, w want) int {
	return slices.IndexFunc(list, func(f Finding) bool {
		said := f.Object + " " + f.Facts + " " + f.Needs
		return f.ID == w.id && f.Verdict == w.verdict && containsAll(said, w.says) && containsAll(f.Cure, w.cures)
	})
}

func containsAll(text string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}
