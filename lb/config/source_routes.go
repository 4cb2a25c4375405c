// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// SourceRoutes are the prefixes of clients that a backend gets, on VIPs that have source_routes.
type SourceRoutes struct {
	Prefixes []netip.Prefix
	// File, if not empty, has more of them: one a line, # begins a comment. Absolute.
	File    string
	Backend netip.Addr
	// Line is where the file of the configuration has them.
	Line int
}

// maxRoutes is how many prefixes there may be: a bit more than all of the Internet's.
const maxRoutes = 4_000_000

// placeRoutes has the backends of source routes checked like those of services.
func (s *services) placeRoutes(l list[sourceRouteSection]) {
	for _, item := range l.items {
		if addr, err := netip.ParseAddr(item.backend.value); err == nil {
			s.placed = append(s.placed, placedBackend{place: item.backend.place, addr: addr})
		}
	}
}

func checkSourceRoutes(l list[sourceRouteSection], r *report) (all []SourceRoutes) {
	lines := map[netip.Prefix]int{}
	for _, item := range l.items {
		if !item.ok {
			continue
		}
		routes := SourceRoutes{File: item.file.value, Line: item.line, Backend: checkRouteBackend(item, r)}
		if item.file.ok && !filepath.IsAbs(item.file.value) {
			r.add(item.file.place, "%s is not an absolute path", quote(item.file.text))
		}
		if !item.file.given && len(item.prefixes.items) == 0 {
			r.add(item.place, "no clients: expected prefixes, or file")
		}
		for _, f := range item.prefixes.items {
			p, err := parseRoute(f.value)
			if !f.ok {
				continue
			}
			if err != nil {
				r.add(f.place, "%v: expected a prefix such as 198.51.100.0/24", err)
				continue
			}
			if line, ok := lines[p]; ok {
				r.add(f.place, "duplicate prefix %s: already on line %d: expected it once", p, line)
				continue
			}
			lines[p] = f.line
			routes.Prefixes = append(routes.Prefixes, p)
		}
		all = append(all, routes)
	}
	return all
}

func checkRouteBackend(s sourceRouteSection, r *report) netip.Addr {
	if !s.backend.given {
		r.add(s.field("backend"), "missing: expected the address of a server")
	}
	if !s.backend.ok {
		return netip.Addr{}
	}
	addr, err := lb.ParseBackendAddr(s.backend.value)
	if err != nil {
		r.add(s.backend.place, "%v: expected the unicast address of a server, such as 10.0.0.11", err)
	}
	return addr
}

func parseRoute(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is not a prefix", quote(s))
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%s is IPv4-mapped: write the IPv4 prefix", quote(s))
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has bits behind the prefix: write %s", quote(s), p.Masked())
	}
	return p, nil
}

// ReadSourceRoutes gathers the source routes of a configuration, and reads the files that it names. The
// error says which line of which file is wrong.
func (c *Config) ReadSourceRoutes() ([]lb.SourceRoute, error) {
	backends := map[netip.Prefix]netip.Addr{}
	var all []lb.SourceRoute
	add := func(p netip.Prefix, backend netip.Addr) error {
		if other, ok := backends[p]; ok {
			return fmt.Errorf("%s leads to %s already", p, other)
		}
		if len(all) == maxRoutes {
			return fmt.Errorf("there are more than %d source routes", maxRoutes)
		}
		backends[p] = backend
		all = append(all, lb.SourceRoute{Prefix: p, Backend: backend})
		return nil
	}
	for _, routes := range c.SourceRoutes {
		for _, p := range routes.Prefixes {
			if err := add(p, routes.Backend); err != nil {
				return nil, fmt.Errorf("source_routes of line %d: %v", routes.Line, err)
			}
		}
		if routes.File == "" {
			continue
		}
		err := readRoutes(routes.File, func(p netip.Prefix) error { return add(p, routes.Backend) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readRoutes(path string, add func(netip.Prefix) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read source routes: %v", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := parseRoute(text)
		if err == nil {
			err = add(p)
		}
		if err != nil {
			return fmt.Errorf("read source routes: %s:%d: %v", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read source routes: %s: %v", path, err)
	}
	return nil
}
