// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

func caseNamed(t *testing.T, name string) Case {
	t.Helper()
	cases, err := SelectCases([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	return cases[0]
}

// floor returns a reference program's target.
func floor(t *testing.T, name string) Target {
	t.Helper()
	all := append(Floors(), UnitTarget())
	i := slices.IndexFunc(all, func(f Target) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("there is no reference program %q", name)
	}
	return all[i]
}

// loadTarget loads a target until the end of the test, and returns its maps as well.
func loadTarget(t *testing.T, target Target) (*ebpf.Program, map[string]*ebpf.Map) {
	t.Helper()
	p, c, err := target.Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return p, c.(collectionCloser).Maps
}

// quick measures once, on any class.
func quick() Options { return Options{Reloads: 1, Rounds: 1, CPU: -1} }
