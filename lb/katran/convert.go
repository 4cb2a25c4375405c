// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
)

// Choices are what a dump does not say.
type Choices struct {
	// Interface is the file's, in place of the dump's. Default: the dump's, else eth0 with a note.
	Interface string
	// KatranFlows has every flow remembered, as Katran does, of VIPs that it remembers flows of. Default:
	// remora's own way, which remembers them only while a ring changes.
	KatranFlows bool
}

// Note says something of a dump that is not in the file, or not as it was.
type Note struct {
	// Where is a VIP, or a field of the dump.
	Where, Text string
}

func (n Note) String() string { return n.Where + ": " + n.Text }

// Convert makes remora's file, in YAML, sorted: of equal dumps it makes equal files, in whatever order
// they have things. The notes are in the file, too, as comments. An error means that there is no file of
// remora's for the dump.
func (d *Dump) Convert(choices Choices) ([]byte, []Note, error) {
	c := &converter{dump: d, choices: choices}
	f := c.file()
	text, err := f.write(c.notes)
	if err != nil {
		return nil, nil, err
	}
	if _, err := config.Parse("imported.yaml", text); err != nil {
		return nil, nil, fmt.Errorf("make configuration: what came of the dump is not valid: %v", err)
	}
	return text, c.notes, nil
}

type converter struct {
	dump    *Dump
	choices Choices
	notes   []Note
	// vips are those that are carried over.
	vips []VIP
	// addrs has a VIP of each single address among them, and prefixes those of prefixes.
	addrs    map[netip.Addr]VIP
	prefixes []VIP
	// ids are the server ids by address, ascending.
	ids map[netip.Addr][]uint32
}

// What a file may say at most: the configuration refuses more.
const (
	maxWeight    = 1_000_000
	maxHostBits4 = 24
	maxHostBits6 = 96
	// udpIDLimit is the least server id that the 3 bytes of UDP headers do not hold.
	udpIDLimit = 1 << 24
)

func (c *converter) note(where, format string, args ...any) {
	c.notes = append(c.notes, Note{where, fmt.Sprintf(format, args...)})
}

func (c *converter) file() file {
	f := file{
		Interface:     c.iface(),
		Encapsulation: c.encapsulation(),
		Services:      []service{},
	}
	c.sizes()
	if mac := c.dump.Settings.DefaultMAC; mac != "" {
		f.NextHop = &nextHop{mac}
	}
	c.sortIDs()
	c.sortVIPs()
	for _, v := range c.vips {
		f.Services = append(f.Services, c.service(v))
	}
	c.unusedIDs()
	f.SourceRoutes = c.sourceRoutes()
	if c.dump.Decap != nil {
		f.Decapsulation = c.decapsulation(*c.dump.Decap)
	}
	c.probes()
	return f
}

func (c *converter) iface() string {
	if name := cmp.Or(c.choices.Interface, c.dump.Settings.Interface); name != "" {
		return name
	}
	c.note("settings", "the interface is not in the dump: eth0 is a guess")
	return "eth0"
}

// sizes notes what Katran is built with and remora has no word for.
func (c *converter) sizes() {
	s := c.dump.Settings
	if s.MaxVIPs != MaxVIPs {
		c.note("settings", "max_vips %d: it is the seed of the flows' hash, which is %d in remora: packets get other reals", s.MaxVIPs, MaxVIPs)
	}
	if s.RingSize != RingSize {
		c.note("settings", "ring_size %d: remora takes the slot of such a ring otherwise: packets get other reals", s.RingSize)
	}
}

func (c *converter) encapsulation() encapsulation {
	s := c.dump.Settings
	if s.Encap != lb.GUE {
		return encapsulation{Type: s.Encap.String()}
	}
	return encapsulation{Type: s.Encap.String(), GUE: &gue{textOf(s.Source4), textOf(s.Source6), s.GUEPort, "katran"}}
}

func textOf(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (c *converter) sortIDs() {
	c.ids = map[netip.Addr][]uint32{}
	for _, id := range c.dump.ServerIDs {
		c.ids[id.Addr] = append(c.ids[id.Addr], id.ID)
	}
	for _, list := range c.ids {
		slices.Sort(list)
	}
}

// sortVIPs takes the VIPs that remora can have.
func (c *converter) sortVIPs() {
	c.addrs = map[netip.Addr]VIP{}
	sorted := slices.SortedFunc(slices.Values(c.dump.VIPs), func(a, b VIP) int { return a.vip().Compare(b.vip()) })
	for _, v := range sorted {
		if _, err := lb.ParseVIP(v.String()); err != nil {
			c.note(v.String(), "left out: %v", err)
			continue
		}
		most := maxHostBits4
		if v.Prefix.Addr().Is6() {
			most = maxHostBits6
		}
		if int(v.vip().HostBits) > most {
			c.note(v.String(), "left out: remora has prefixes from /%d on", v.Prefix.Addr().BitLen()-most)
			continue
		}
		c.vips = append(c.vips, v)
		if v.vip().IsPrefix() {
			c.prefixes = append(c.prefixes, v)
		} else {
			c.addrs[v.Prefix.Addr()] = v
		}
	}
}

// decapsulation is what Katran does with packets that come wrapped.
func (c *converter) decapsulation(d Decap) *fileDecapsulation {
	out := &fileDecapsulation{Others: "host"}
	if d.Strict {
		out.Others = "none"
		c.note("inline_decapsulation", "strict: packets to this machine's own addresses stay wrapped: list them with action host")
	}
	if c.dump.Settings.Encap == lb.GUE {
		out.GUEPort = c.dump.Settings.GUEPort
	}
	sorted := slices.SortedFunc(slices.Values(d.Destinations), func(a, b DecapDestination) int { return a.Addr.Compare(b.Addr) })
	for _, dst := range sorted {
		if _, err := lb.ParseBackendAddr(dst.Addr.String()); err != nil {
			c.note("inline_decapsulation", "%s is left out: %v", dst.Addr, err)
			continue
		}
		action := "balance"
		if dst.Egress {
			action = "egress"
		}
		out.Destinations = append(out.Destinations, decapDestination{dst.Addr.String(), action})
	}
	return out
}

func (c *converter) sourceRoutes() (all []sourceRoutes) {
	byReal := map[netip.Addr][]netip.Prefix{}
	for _, r := range c.dump.Routes {
		byReal[r.Real] = append(byReal[r.Real], r.Source)
	}
	for _, addr := range slices.SortedFunc(maps.Keys(byReal), netip.Addr.Compare) {
		if _, err := lb.ParseBackendAddr(addr.String()); err != nil {
			c.note("source_routes", "those to %s are left out: %v", addr, err)
			continue
		}
		routes := sourceRoutes{Backend: addr.String()}
		slices.SortFunc(byReal[addr], netip.Prefix.Compare)
		for _, p := range byReal[addr] {
			routes.Prefixes = append(routes.Prefixes, p.String())
		}
		all = append(all, routes)
	}
	return all
}

// probes notes that health checks are not carried over: they are another program's beside Katran.
func (c *converter) probes() {
	if n := len(c.dump.Probes); n > 0 {
		c.note("healthcheck_destinations", "left out, %d in number: remora checks by itself: give the services a health section", n)
	}
}
