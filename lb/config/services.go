// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"

	"github.com/remora-lb/remora/lb"
)

const (
	maxNameLen = 63
	maxWeight  = 1_000_000
)

// services gathers the services of a document and what they must not share.
type services struct {
	*report
	// tunnel and encap are the defaults of all services; section is where they are written.
	tunnel  lb.TunnelSources
	encap   lb.Encap
	section encapSection
	// flows are the defaults of all services.
	flows flowRules
	// quicLB is the section of that name.
	quicLB quicLBSection
	// options are those of all VIPs.
	options []placedOptions

	services []lb.Service
	backends map[string][]lb.Backend
	sources  map[string]ConsulSource
	health   map[string]Health

	// names has the place of each service by name, vips the owner of each VIP, and addrs the
	// first VIP of each address.
	names map[string]place
	vips  map[lb.VIP]owner
	addrs map[netip.Addr]lb.VIP
	// placed are all backends of all services.
	placed []placedBackend
	// missing has, by field of encapsulation.gue, the first tunnel that needs it.
	missing map[string]missingSource
}

// owner is the service that has a VIP, and the line where it has it.
type owner struct {
	service string
	line    int
}

type placedBackend struct {
	place
	addr  netip.Addr
	local bool
}

// missingSource is a GUE tunnel without source: the VIP's line, and the backend that it leads to.
type missingSource struct {
	vipLine int
	service string
	backend placedBackend
}

func newServices(doc document, r *report) *services {
	s := &services{
		report:   r,
		section:  doc.encap,
		quicLB:   doc.quicLB,
		backends: map[string][]lb.Backend{},
		sources:  map[string]ConsulSource{},
		health:   map[string]Health{},
		names:    map[string]place{},
		vips:     map[lb.VIP]owner{},
		addrs:    map[netip.Addr]lb.VIP{},
		missing:  map[string]missingSource{},
	}
	s.tunnel, s.encap = checkTunnel(doc.encap, r)
	s.flows = checkFlows(doc.flows, defaultFlowRules(), r)
	return s
}

// gather checks a service and gathers it.
func (s *services) gather(section serviceSection) {
	name := s.name(section)
	label := "service " + quote(name)
	if name == "" {
		label = section.path
	}
	vips, gueLine := s.serviceVIPs(section, label)
	backends, placed := s.serviceBackends(section)
	s.checkQUICLBIDs(section, vips)
	s.checkUDPIDs(section, vips)
	s.services = append(s.services, lb.Service{Name: name, VIPs: vips})
	s.backends[name] = backends
	if health, ok := checkHealth(section.health, s.report); ok {
		s.checkHealthPort(section.health, health, vips)
		s.health[name] = health
	}
	if source, ok := checkServiceSource(section, s.report); ok {
		s.sources[name] = source
	}
	s.placed = append(s.placed, placed...)
	if gueLine > 0 {
		s.noteMissing(gueLine, label, placed)
	}
}

// name checks the name of a service; it is empty if there is none.
func (s *services) name(section serviceSection) string {
	f := section.name
	if !f.given {
		s.add(section.field("name"), "missing: expected a name that no other service has")
	}
	if !f.ok {
		return ""
	}
	const first, more = "abcdefghijklmnopqrstuvwxyz0123456789", "._-"
	if f.value == "" || len(f.value) > maxNameLen || !isMadeOf(f.value[:1], first) || !isMadeOf(f.value, first+more) {
		s.add(f.place, "%s is not a service name: expected 1 to %d of a-z, 0-9, dot, dash and underscore, a letter or digit first",
			quote(f.text), maxNameLen)
		return ""
	}
	if other, ok := s.names[f.value]; ok {
		s.add(f.place, "duplicate name %s: already that of %s (line %d): expected another", quote(f.text), other.path, other.line)
		return f.value
	}
	s.names[f.value] = place{section.path, f.line}
	return f.value
}

// serviceVIPs checks the VIPs of a service. The line is that of its first with GUE, 0 if there is
// none.
func (s *services) serviceVIPs(section serviceSection, label string) (vips []lb.ServiceVIP, gueLine int) {
	if !section.vips.given || section.vips.ok && len(section.vips.items) == 0 {
		at := section.field("vips")
		if section.vips.given {
			at = section.vips.place
		}
		s.add(at, "the service has no VIP: expected at least one, such as 192.0.2.10:80/tcp")
	}
	ring := checkRing(section.ring, lb.Ring{Size: lb.DefaultRingSize, Hash: lb.MaglevV2}, s.report)
	encap := chooseEncap(s.report, section.encap, s.encap)
	flows := checkFlows(section.flows, s.flows, s.report)
	options := checkOptions(section.options, lb.Options{}, s.report)
	for _, item := range section.vips.items {
		if !item.ok {
			continue
		}
		v := lb.ServiceVIP{
			VIP:    s.vip(item, label),
			Ring:   checkRing(item.ring, ring, s.report),
			Encap:  chooseEncap(s.report, item.encap, encap),
			Tunnel: s.tunnel,
		}
		v.Flows, v.Leave = checkFlows(item.flows, flows, s.report).of(v.VIP.Protocol)
		v.Options = ofProtocol(checkOptions(item.options, options, s.report), v.VIP.Protocol)
		s.checkOptionsOf(item, v)
		s.options = append(s.options, placedOptions{item.place, v.VIP, v.Options})
		if v.Encap == lb.GUE && gueLine == 0 {
			gueLine = item.line
		}
		vips = append(vips, v)
	}
	return vips, gueLine
}

func (s *services) vip(item vipSection, label string) lb.VIP {
	f := item.vip
	if !f.given {
		s.add(item.field("vip"), "missing: expected a VIP such as 192.0.2.10:80/tcp")
	}
	if !f.ok {
		return lb.VIP{}
	}
	v, err := lb.ParseVIP(f.value)
	if err != nil {
		s.add(f.place, "%v: expected a unicast address, port and protocol, such as 192.0.2.10:80/tcp", err)
		return lb.VIP{}
	}
	checkPrefixVIP(f, v, s.report)
	if other, ok := s.vips[v]; ok {
		s.add(f.place, "duplicate VIP %s: already in %s (line %d)", v, other.service, other.line)
		return v
	}
	s.vips[v] = owner{label, f.line}
	if _, ok := s.addrs[v.Addr]; !ok {
		s.addrs[v.Addr] = v
	}
	return v
}

func (s *services) serviceBackends(section serviceSection) (backends []lb.Backend, placed []placedBackend) {
	lines := map[netip.Addr]int{}
	seen := serverIDs{lines: map[uint32]int{}}
	for _, item := range section.backends.items {
		if !item.ok {
			continue
		}
		weight := within(s.report, item.weight, 0, maxWeight, 1)
		addr, ok := s.backendAddr(item)
		if !ok {
			continue
		}
		if line, ok := lines[addr]; ok {
			s.add(item.addr.place, "duplicate backend %s: already on line %d: expected it once", addr, line)
			continue
		}
		lines[addr] = item.addr.line
		backend := lb.Backend{Addr: addr, Weight: uint32(weight)}
		s.checkBackendOptions(item, &backend, &seen)
		backends = append(backends, backend)
		placed = append(placed, placedBackend{item.addr.place, addr, backend.Local})
	}
	return backends, placed
}

func (s *services) backendAddr(item backendSection) (netip.Addr, bool) {
	f := item.addr
	if !f.given {
		s.add(item.field("address"), "missing: expected the address of a server, such as 10.0.0.11")
	}
	if !f.ok {
		return netip.Addr{}, false
	}
	addr, err := lb.ParseBackendAddr(f.value)
	if err != nil {
		s.add(f.place, "%v: expected the unicast address of a server, such as 10.0.0.11", err)
	}
	return addr, err == nil
}

// checkBackendsAreNotVIPs keeps packets from going in a circle: what is sent to a VIP's address
// comes back to a balancer.
func (s *services) checkBackendsAreNotVIPs() {
	for _, b := range s.placed {
		if v, ok := s.vipOf(b.addr); ok {
			s.add(b.place, "backend %s is the address of the VIP %s of %s (line %d): expected the server's own address",
				b.addr, v, s.vips[v].service, s.vips[v].line)
		}
	}
}

// vipOf is a VIP that an address belongs to.
func (s *services) vipOf(addr netip.Addr) (lb.VIP, bool) {
	if v, ok := s.addrs[addr]; ok {
		return v, true
	}
	for _, v := range s.options {
		if v.vip.IsPrefix() && v.vip.Prefix().Contains(addr) {
			return v.vip, true
		}
	}
	return lb.VIP{}, false
}

// noteMissing remembers which GUE sources the backends of a service need and do not have.
func (s *services) noteMissing(vipLine int, label string, placed []placedBackend) {
	for _, b := range placed {
		if b.local {
			continue
		}
		name, given := "source4", s.section.gue.source4.given
		if b.addr.Is6() {
			name, given = "source6", s.section.gue.source6.given
		}
		if _, ok := s.missing[name]; !given && !ok {
			s.missing[name] = missingSource{vipLine, label, b}
		}
	}
}

// checkSources reports them, once for each family since one line mends all.
func (s *services) checkSources() {
	for _, name := range []string{"source4", "source6"} {
		m, ok := s.missing[name]
		if !ok {
			continue
		}
		at := place{path: "encapsulation.gue." + name, line: m.vipLine}
		if s.section.given {
			at.line = s.section.line
		}
		if s.section.gue.given {
			at.line = s.section.gue.line
		}
		s.add(at, "missing, but GUE of %s to backend %s (line %d) needs it: expected an %s address of this machine",
			m.service, m.backend.addr, m.backend.line, family(m.backend.addr))
	}
}
