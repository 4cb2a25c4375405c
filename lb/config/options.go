// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"slices"

	"github.com/remora-lb/remora/lb"
)

// DefaultAnswersPerSecond is how many echo requests and packets that are too big each CPU answers.
const DefaultAnswersPerSecond = 1000

// How many addresses a prefix VIP may have, as free bits: those of a /8 or a /32.
const (
	maxHostBits4 = 24
	maxHostBits6 = 96
)

// checkOptions reads a VIP's options; what the section does not say is as in def.
func checkOptions(s optionsSection, def lb.Options, r *report) lb.Options {
	o := lb.Options{
		Hash: def.Hash,
		Fragments: choose(r, s.fragments, def.Fragments, choice[lb.Fragments]{"drop", lb.FragmentsDrop},
			choice[lb.Fragments]{"hash-3-tuple", lb.FragmentsByClient}, choice[lb.Fragments]{"pass", lb.FragmentsPass}),
		ConnectionIDs: choose(r, s.connectionIDs, def.ConnectionIDs,
			choice[lb.ConnectionIDs]{"off", lb.ConnectionIDsOff}, choice[lb.ConnectionIDs]{"katran", lb.ConnectionIDsKatran},
			choice[lb.ConnectionIDs]{"quic-lb", lb.ConnectionIDsQUICLB}),
		TCPIDs:       truth(s.tcpIDs, def.TCPIDs),
		UDPIDs:       truth(s.udpIDs, def.UDPIDs),
		SourceRoutes: truth(s.routes, def.SourceRoutes),
	}
	if s.hash.ok {
		o.Hash = checkHashInput(s.hash, r)
	}
	return o
}

func truth(f field[bool], def bool) bool {
	if f.ok {
		return f.value
	}
	return def
}

func checkHashInput(l list[field[string]], r *report) (h lb.HashInput) {
	for _, f := range l.items {
		switch choose(r, f, "", choice[string]{"no-source-port", "s"},
			choice[string]{"keep-destination-port", "k"}, choice[string]{"destination-port-only", "d"}) {
		case "s":
			h.NoSourcePort = true
		case "k":
			h.KeepDestinationPort = true
		case "d":
			h.DestinationPortOnly = true
		}
	}
	return h
}

// ofProtocol leaves out the options of the other protocol, which a service with VIPs of both may have.
func ofProtocol(o lb.Options, p lb.Protocol) lb.Options {
	if p == lb.TCP {
		o.ConnectionIDs, o.UDPIDs = lb.ConnectionIDsOff, false
	} else {
		o.TCPIDs = false
	}
	return o
}

// checkOptionsOf reports what a VIP's own section asks of the wrong protocol, and what its options
// contradict.
func (s *services) checkOptionsOf(item vipSection, v lb.ServiceVIP) {
	own, vip := item.options, v.VIP
	wrong := func(at place, name string, p lb.Protocol) {
		s.add(at, "%s is for %s: expected it at VIPs of %s only", name, p, p)
	}
	if vip.Protocol == lb.TCP && own.connectionIDs.ok && own.connectionIDs.value != "off" {
		wrong(own.connectionIDs.place, "connection_ids", lb.UDP)
	}
	if vip.Protocol == lb.TCP && own.udpIDs.value {
		wrong(own.udpIDs.place, "udp_ids", lb.UDP)
	}
	if vip.Protocol == lb.UDP && own.tcpIDs.value {
		wrong(own.tcpIDs.place, "tcp_ids", lb.TCP)
	}
	if v.Options.Fragments == lb.FragmentsByClient && v.Options.Hash != (lb.HashInput{}) {
		s.add(item.place, "fragments: hash-3-tuple hashes the source address alone: expected no hash beside it")
	}
	if v.Options.Fragments == lb.FragmentsByClient && v.Options.TCPIDs {
		s.add(item.place, "fragments: hash-3-tuple remembers one server for all connections of a client: expected no tcp_ids beside it, by which each has its own")
	}
	if v.Options.Fragments != lb.FragmentsDrop && vip.IsPrefix() {
		s.add(item.place, "fragments of the prefix VIP %s: expected drop, since fragments are looked up by whole addresses", vip)
	}
	if v.Options.ConnectionIDs == lb.ConnectionIDsQUICLB && !s.quicLB.given {
		s.add(item.place, "connection_ids: quic-lb of the VIP %s needs the section quic_lb: expected it with config_id and server_id_bytes", vip)
	}
}

// placedOptions are a VIP's options, and where it stands.
type placedOptions struct {
	place
	vip     lb.VIP
	options lb.Options
}

// checkFragments reports VIPs of one address and protocol that do not agree on what becomes of
// fragments, which have no port.
func (s *services) checkFragments() {
	type key struct {
		addr     netip.Addr
		protocol lb.Protocol
	}
	first := map[key]placedOptions{}
	for _, v := range s.options {
		if v.vip.IsPrefix() {
			continue
		}
		k := key{v.vip.Addr, v.vip.Protocol}
		other, ok := first[k]
		switch {
		case !ok:
			first[k] = v
		case v.options.Fragments != other.options.Fragments:
			s.add(v.place, "fragments of %s: %s, but %s for %s (line %d): expected the same for all VIPs of an address and protocol",
				v.vip, v.options.Fragments, other.options.Fragments, other.vip, other.line)
		case v.options.Fragments == lb.FragmentsByClient:
			s.add(v.place, "fragments: hash-3-tuple of %s and of %s (line %d): expected one VIP of an address and protocol, since fragments have no port",
				v.vip, other.vip, other.line)
		}
	}
}

// checkPrefixVIP reports prefixes that are so short that they must be a mistake.
func checkPrefixVIP(f field[string], v lb.VIP, r *report) {
	most := maxHostBits4
	if v.Addr.Is6() {
		most = maxHostBits6
	}
	if int(v.HostBits) > most {
		r.add(f.place, "the prefix of %s is too short: expected /%d or longer", quote(f.text), v.Addr.BitLen()-most)
	}
}

// serverIDs checks the server ids of a service's backends.
type serverIDs struct {
	lines map[uint32]int
	local int
}

func (s *services) checkBackendOptions(item backendSection, b *lb.Backend, seen *serverIDs) {
	b.ServerID = uint32(within(s.report, item.serverID, 1, 1<<32-1, 0))
	b.Local = item.local.value
	if b.ServerID != 0 {
		if line, ok := seen.lines[b.ServerID]; ok {
			s.add(item.serverID.place, "duplicate server_id %d: already on line %d: expected another", b.ServerID, line)
		}
		seen.lines[b.ServerID] = item.serverID.line
	}
	if !b.Local {
		return
	}
	if seen.local != 0 {
		s.add(item.local.place, "a second local backend, beside that on line %d: expected one, since there is one machine", seen.local)
	}
	seen.local = item.local.line
}

// checkQUICLBIDs reports server ids that the configured connection ids have no room for.
func (s *services) checkQUICLBIDs(section serviceSection, vips []lb.ServiceVIP) {
	asked := false
	for _, v := range vips {
		asked = asked || v.Options.ConnectionIDs == lb.ConnectionIDsQUICLB
	}
	bytes := s.quicLB.serverIDBytes.value
	if !asked || bytes < 1 || bytes > 4 {
		return
	}
	for _, b := range section.backends.items {
		if b.serverID.ok && b.serverID.value >= 1<<(8*bytes) {
			s.add(b.serverID.place, "server_id %d needs more than the %d bytes of quic_lb.server_id_bytes: expected one below %d",
				b.serverID.value, bytes, int64(1)<<(8*bytes))
		}
	}
}

// checkUDPIDs reports server ids that UDP headers have no room for.
func (s *services) checkUDPIDs(section serviceSection, vips []lb.ServiceVIP) {
	const limit = 1 << 24 // three bytes
	if !slices.ContainsFunc(vips, func(v lb.ServiceVIP) bool { return v.Options.UDPIDs }) {
		return
	}
	for _, b := range section.backends.items {
		if b.serverID.ok && b.serverID.value >= limit {
			s.add(b.serverID.place, "server_id %d needs more than the 3 bytes of udp_ids: expected one below %d", b.serverID.value, limit)
		}
	}
}

func checkQUICLB(s quicLBSection, r *report) lb.QUICLB {
	if !s.given {
		return lb.QUICLB{}
	}
	if !s.configID.given {
		r.add(s.field("config_id"), "missing: expected the configuration id of the connection ids, 0 to 6")
	}
	if !s.serverIDBytes.given {
		r.add(s.field("server_id_bytes"), "missing: expected the length of the server's number in bytes, 1 to 4")
	}
	return lb.QUICLB{
		ConfigID:      uint8(within(r, s.configID, 0, 6, 0)), // 7 is for ids that cannot be routed
		ServerIDBytes: uint8(within(r, s.serverIDBytes, 1, 4, 1)),
	}
}

func checkDecap(s decapSection, r *report) lb.Decap {
	d := lb.Decap{
		GUEPort: uint16(within(r, s.guePort, 1, 65535, 0)),
		Others:  chooseDecap(r, s.others, lb.DecapNone),
	}
	lines := map[netip.Addr]int{}
	for _, item := range s.destinations.items {
		if !item.ok {
			continue
		}
		addr, ok := checkDecapDestination(item, r)
		if line, duplicate := lines[addr]; ok && duplicate {
			r.add(item.addr.place, "duplicate address %s: already on line %d: expected it once", addr, line)
			continue
		}
		if !ok {
			continue
		}
		if d.Destinations == nil {
			d.Destinations = map[netip.Addr]lb.DecapAction{}
		}
		lines[addr] = item.addr.line
		d.Destinations[addr] = chooseDecap(r, item.action, lb.DecapBalance)
	}
	if s.given && len(s.destinations.items) == 0 && !s.others.given {
		r.add(s.place, "nothing is decapsulated: expected destinations, or others")
	}
	return d
}

func chooseDecap(r *report, f field[string], def lb.DecapAction) lb.DecapAction {
	return choose(r, f, def, choice[lb.DecapAction]{"none", lb.DecapNone}, choice[lb.DecapAction]{"balance", lb.DecapBalance},
		choice[lb.DecapAction]{"egress", lb.DecapEgress}, choice[lb.DecapAction]{"host", lb.DecapHost})
}

func checkDecapDestination(s decapDestinationSection, r *report) (netip.Addr, bool) {
	if !s.addr.given {
		r.add(s.field("address"), "missing: expected the outer destination address of tunnelled packets")
	}
	if !s.addr.ok {
		return netip.Addr{}, false
	}
	addr, err := lb.ParseBackendAddr(s.addr.value)
	if err != nil {
		r.add(s.addr.place, "%v: expected a unicast address", err)
	}
	return addr, err == nil
}
