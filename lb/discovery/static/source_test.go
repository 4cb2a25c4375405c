// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package static

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-lb/remora/lb"
)

// set is what a file says that names these backends, and a service for each of their names.
func set(byService map[string][]lb.Backend) Set {
	s := Set{Backends: map[string][]lb.Backend{}}
	for name, list := range byService {
		s.Backends[name] = list
		s.Services = append(s.Services, lb.Service{Name: name, VIPs: []lb.ServiceVIP{{Encap: lb.GUE}}})
	}
	slices.SortFunc(s.Services, func(a, b lb.Service) int { return strings.Compare(a.Name, b.Name) })
	return s
}

type byService = map[string][]lb.Backend

func backends(addrs ...string) []lb.Backend {
	var list []lb.Backend
	for i, a := range addrs {
		list = append(list, lb.Backend{Addr: netip.MustParseAddr(a), Weight: uint32(i + 1)})
	}
	return list
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: -want +got:\n%s", what, diff)
	}
}

// run starts the source inside a synctest bubble and returns where its sets gather; read it after
// synctest.Wait only. The source ends, without an error, with the test.
func run(t *testing.T, s *Source) *[]Set {
	t.Helper()
	var got []Set
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(handed Set) { got = append(got, handed) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return &got
}

func TestHandsOverWholeSets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := set(byService{"web": backends("10.0.0.11", "2001:db8::11"), "dns": nil})
		second := set(byService{"web": backends("10.0.0.12")})

		s := New(first)
		got := run(t, s)
		synctest.Wait()
		equal(t, "at the start", []Set{first}, *got)

		s.Replace(second)
		synctest.Wait()
		equal(t, "after a change", []Set{first, second}, *got)

		s.Replace(Set{})
		synctest.Wait()
		equal(t, "after the last service went", []Set{first, second, set(nil)}, *got)
	})
}

func TestSkipsSetsThatAreReplacedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(set(byService{"web": backends("10.0.0.11")}))
		s.Replace(set(byService{"web": backends("10.0.0.12")}))
		s.Replace(set(byService{"web": backends("10.0.0.13")}))
		got := run(t, s)
		synctest.Wait()
		equal(t, "handed over", []Set{set(byService{"web": backends("10.0.0.13")})}, *got)
	})
}

func TestSharesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine := set(byService{"web": backends("10.0.0.11")})
		s := New(mine)
		mine.Backends["web"][0].Weight = 99
		mine.Services[0].VIPs[0].Encap = lb.IPIP
		delete(mine.Backends, "web")
		got := run(t, s)
		synctest.Wait()

		want := set(byService{"web": backends("10.0.0.11")})
		equal(t, "after New's argument changed", []Set{want}, *got)

		(*got)[0].Backends["web"][0].Weight = 99
		equal(t, "after the set that was handed over changed", want, s.set())

		mine = set(byService{"web": backends("10.0.0.12")})
		s.Replace(mine)
		mine.Backends["web"][0].Weight = 99
		synctest.Wait()
		equal(t, "after Replace's argument changed", set(byService{"web": backends("10.0.0.12")}), (*got)[1])
	})
}

func TestRunsAgain(t *testing.T) {
	s := New(set(byService{"web": backends("10.0.0.11")}))
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		var got []Set
		if err := s.Run(ctx, func(handed Set) { got = append(got, handed); cancel() }); err != nil {
			t.Fatal(err)
		}
		equal(t, "handed over", []Set{set(byService{"web": backends("10.0.0.11")})}, got)
	}
}
