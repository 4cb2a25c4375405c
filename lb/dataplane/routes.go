// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/remora-lb/remora/lb"
)

// routesPerCall is how many source routes are written or read at once.
const routesPerCall = 4096

// sourceRoute is a source route as the map has it. Addresses of IPv4 are the first four bytes, the rest
// is 0.
type sourceRoute struct {
	prefix  nativeSourcePrefix
	backend nativeVipAddr
}

func sourceRouteOf(r lb.SourceRoute) (sourceRoute, error) {
	if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() || r.Prefix.Addr().Is4In6() {
		return sourceRoute{}, fmt.Errorf("%q is no prefix of clients", r.Prefix)
	}
	if !r.Backend.IsValid() || r.Backend.Is4In6() || r.Backend.IsUnspecified() {
		return sourceRoute{}, fmt.Errorf("%q is no address of a backend", r.Backend)
	}
	family := uint32(4)
	if r.Prefix.Addr().Is6() {
		family = 6
	}
	return sourceRoute{
		prefix:  nativeSourcePrefix{Bits: 32 + uint32(r.Prefix.Bits()), Family: family, Addr: addrWords(r.Prefix.Addr())},
		backend: nativeVipAddr{Addr: addrKey(r.Backend)},
	}, nil
}

// compare orders by prefix, in no order that means anything else.
func (s sourceRoute) compare(t sourceRoute) int {
	p, q := &s.prefix, &t.prefix
	return cmp.Or(cmp.Compare(p.Family, q.Family), cmp.Compare(p.Addr[0], q.Addr[0]), cmp.Compare(p.Addr[1], q.Addr[1]),
		cmp.Compare(p.Bits, q.Bits))
}

// sourceRoutesOf are routes in order, each prefix once.
func sourceRoutesOf(routes []lb.SourceRoute) ([]sourceRoute, error) {
	want := make([]sourceRoute, len(routes))
	for i, r := range routes {
		var err error
		if want[i], err = sourceRouteOf(r); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(want, sourceRoute.compare)
	for i := range want[min(1, len(want)):] {
		if want[i].compare(want[i+1]) == 0 && want[i] != want[i+1] {
			return nil, errors.New("one prefix leads to two backends")
		}
	}
	return slices.Compact(want), nil
}

// SetSourceRoutes implements engine.Dataplane. It compares with what it wrote before, and not with the
// map, but for the first time and after a failure: to read that takes seconds where there are millions
// of routes. It keeps 40 bytes for each.
func (d *Dataplane) SetSourceRoutes(routes []lb.SourceRoute) error {
	want, err := sourceRoutesOf(routes)
	if err != nil {
		return fmt.Errorf("set source routes: %v", err)
	}
	if d.routes == nil {
		if d.routes, err = readRoutes(d.gen.maps["source_routes"]); err != nil {
			return err
		}
	}
	add, remove := diffRoutes(d.routes, want)
	if len(add)+len(remove) == 0 {
		return nil
	}
	if err := d.ensure(sizes{routes: len(d.routes) + len(add)}); err != nil {
		return err
	}
	d.routes = nil
	// What is new is there before what is gone goes: the clients of a prefix that is split have a route
	// at any time.
	if err := d.gen.writeRoutes(add); err != nil {
		return err
	}
	if err := d.gen.deleteRoutes(remove); err != nil {
		return err
	}
	d.routes = want
	return d.gen.countRoutes(len(want))
}

// diffRoutes compares two sets in order: what is to be written, and which prefixes are to go.
func diffRoutes(have, want []sourceRoute) (add []sourceRoute, remove []nativeSourcePrefix) {
	for len(have) != 0 || len(want) != 0 {
		switch {
		case len(want) == 0, len(have) != 0 && have[0].compare(want[0]) < 0:
			remove = append(remove, have[0].prefix)
			have = have[1:]
		case len(have) == 0, want[0].compare(have[0]) < 0:
			add = append(add, want[0])
			want = want[1:]
		default:
			if have[0] != want[0] {
				add = append(add, want[0])
			}
			have, want = have[1:], want[1:]
		}
	}
	return add, remove
}

// readRoutes reads all routes, in order. The result is not nil.
func readRoutes(m *ebpf.Map) ([]sourceRoute, error) {
	routes := []sourceRoute{}
	err := eachRoute(m, func(some []sourceRoute) error {
		routes = append(routes, some...)
		return nil
	})
	slices.SortFunc(routes, sourceRoute.compare)
	return routes, err
}

// eachRoute calls f with some routes after the other.
func eachRoute(m *ebpf.Map, f func([]sourceRoute) error) error {
	keys, values := make([]nativeSourcePrefix, routesPerCall), make([]nativeVipAddr, routesPerCall)
	routes := make([]sourceRoute, routesPerCall)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read source routes: %v", err)
		}
		for i := range n {
			routes[i] = sourceRoute{keys[i], values[i]}
		}
		if failed := f(routes[:n]); failed != nil || err != nil {
			return failed
		}
	}
}

func (g *generation) writeRoutes(routes []sourceRoute) error {
	keys, values := make([]nativeSourcePrefix, 0, routesPerCall), make([]nativeVipAddr, 0, routesPerCall)
	for some := range slices.Chunk(routes, routesPerCall) {
		keys, values = keys[:0], values[:0]
		for _, r := range some {
			keys, values = append(keys, r.prefix), append(values, r.backend)
		}
		if _, err := g.maps["source_routes"].BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("write source routes: %v", err)
		}
	}
	return nil
}

func (g *generation) deleteRoutes(prefixes []nativeSourcePrefix) error {
	for some := range slices.Chunk(prefixes, routesPerCall) {
		if _, err := g.maps["source_routes"].BatchDelete(some, nil); err != nil {
			return fmt.Errorf("delete source routes: %v", err)
		}
	}
	return nil
}

// countRoutes notes for readers how many routes there are.
func (g *generation) countRoutes(n int) error {
	info, err := readInstance(g)
	if err != nil {
		return err
	}
	info.SourceRoutes = uint32(n)
	return writeInstance(g, info)
}

// copyRoutes carries source routes over to a generation with room for another number of them.
func (g *generation) copyRoutes(next *generation) error {
	if g.maps["source_routes"] == nil || g.capacity("source_routes") == next.capacity("source_routes") {
		return nil // of a schema without, or shared
	}
	return eachRoute(g.maps["source_routes"], next.writeRoutes)
}
