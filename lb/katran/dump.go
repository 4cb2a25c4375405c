// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/maglev"
)

// Dump is a configuration of Katran: well formed, and without contradictions. Whether remora can do
// what it says is another matter, for Convert.
type Dump struct {
	Settings  Settings
	VIPs      []VIP
	ServerIDs []ServerID
	// Routes have each prefix once, masked.
	Routes []Route
	// Probes are the destinations of health checks by their marks.
	Probes []Probe
	// Decap is nil if Katran is built without inline decapsulation.
	Decap *Decap
}

// Settings are of the whole balancer.
type Settings struct {
	// Interface is empty if the dump does not say it; so is DefaultMAC.
	Interface, DefaultMAC string
	// MaxVIPs and RingSize are those that Katran is built with.
	MaxVIPs, RingSize uint32
	Encap             lb.Encap
	GUEPort           uint16
	// Source4 and Source6 are the outer source addresses of GUE, if the dump says them.
	Source4, Source6 netip.Addr
	// TCPServerIDs tells that Katran is built to read server ids in TCP options.
	TCPServerIDs bool
}

// VIP is one of Katran's VIPs.
type VIP struct {
	// Prefix has all bits, but for VIPs of prefixes.
	Prefix   netip.Prefix
	Port     uint16
	Protocol lb.Protocol
	Flags    Flags
	Hash     lb.RingHash
	Reals    []Real
}

func (v VIP) String() string { return v.vip().String() }

// vip is the VIP in remora's terms; ParseVIP may refuse it.
func (v VIP) vip() lb.VIP {
	return lb.VIP{Addr: v.Prefix.Addr(), Port: v.Port, Protocol: v.Protocol, HostBits: uint8(v.Prefix.Addr().BitLen() - v.Prefix.Bits())}
}

// Real is a real of a VIP.
type Real struct {
	Addr   netip.Addr
	Weight uint32
	Flags  Flags
}

// ServerID leads a server's number to a real.
type ServerID struct {
	ID   uint32
	Addr netip.Addr
}

// Route leads clients to a real.
type Route struct {
	Source netip.Prefix
	Real   netip.Addr
}

// Probe is where packets with a mark go.
type Probe struct {
	Mark uint32
	Addr netip.Addr
}

// Decap is inline decapsulation.
type Decap struct {
	Destinations []DecapDestination
	// Strict leaves packets to other addresses than those wrapped.
	Strict bool
}

// DecapDestination is an outer destination; the inner packet is balanced, or sent back.
type DecapDestination struct {
	Addr   netip.Addr
	Egress bool
}

// Read reads a dump. The error says everything that is wrong with it, a line each.
func Read(r io.Reader) (*Dump, error) {
	doc, err := decode(r)
	if err != nil {
		return nil, fmt.Errorf("read dump: %v", err)
	}
	c := &checker{}
	d := c.dump(doc)
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("read dump: %v", errors.Join(c.problems...))
	}
	return d, nil
}

// checker makes a Dump of a document and gathers what is wrong.
type checker struct{ problems []error }

func (c *checker) add(where, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

// note adds an error that is not nil.
func (c *checker) note(where string, err error) {
	if err != nil {
		c.add(where, "%v", err)
	}
}

func (c *checker) dump(doc *document) *Dump {
	hash := c.hash("settings", doc.Settings.HashFunction, lb.MaglevV2)
	d := &Dump{Settings: c.settings(doc.Settings)}
	seen := map[lb.VIP]string{}
	for i, s := range doc.VIPs {
		where := fmt.Sprintf("vips[%d]", i)
		v, ok := c.vip(where, s, hash)
		if !ok {
			continue
		}
		if other, twice := seen[v.vip()]; twice {
			c.add(where, "%s is that of %s already", v, other)
		}
		seen[v.vip()] = where
		d.VIPs = append(d.VIPs, v)
	}
	d.ServerIDs = c.serverIDs(doc.ServerIDs)
	d.Routes = c.routes(doc.Routes)
	d.Probes = c.probes(doc.Destinations)
	if doc.Decap != nil {
		d.Decap = c.decap(doc.Decap)
	}
	return d
}

func (c *checker) settings(s settingsSection) Settings {
	const where = "settings"
	out := Settings{Interface: s.Interface, MaxVIPs: MaxVIPs, RingSize: RingSize, GUEPort: GUEPort, TCPServerIDs: s.TCPServerIDs}
	if s.DefaultMAC != "" {
		mac, err := net.ParseMAC(s.DefaultMAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || [6]byte(mac) == [6]byte{} {
			c.add(where, "default_mac %q is not the MAC address of one interface", s.DefaultMAC)
		}
		out.DefaultMAC = mac.String()
	}
	if s.MaxVIPs != nil {
		out.MaxVIPs = *s.MaxVIPs
	}
	if s.RingSize != nil {
		out.RingSize = *s.RingSize
	}
	c.note(where, maglev.CheckSize(out.RingSize))
	if s.GUEPort != nil {
		out.GUEPort = *s.GUEPort
	}
	switch s.Encapsulation {
	case "", "ipip":
	case "gue":
		out.Encap = lb.GUE
	default:
		c.add(where, "encapsulation %q: expected ipip or gue", s.Encapsulation)
	}
	out.Source4 = c.source(where, s.Source4, true)
	out.Source6 = c.source(where, s.Source6, false)
	if out.Encap == lb.GUE && out.GUEPort == 0 {
		c.add(where, "gue_port 0: expected 1 to 65535")
	}
	return out
}

// source reads an outer source address, which may be absent.
func (c *checker) source(where, text string, is4 bool) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	a, err := lb.ParseBackendAddr(text)
	if err == nil && a.Is4() != is4 {
		err = fmt.Errorf("source %s is of the other family", a)
	}
	c.note(where, err)
	return a
}

func (c *checker) hash(where, name string, def lb.RingHash) lb.RingHash {
	switch name {
	case "":
		return def
	case "maglev":
		return lb.MaglevV1
	case "maglev-v2":
		return lb.MaglevV2
	}
	c.add(where, "hash_function %q: expected maglev or maglev-v2", name)
	return def
}

func (c *checker) vip(where string, s vipSection, hash lb.RingHash) (VIP, bool) {
	before := len(c.problems)
	v := VIP{Port: s.Port, Hash: c.hash(where, s.HashFunction, hash)}
	prefix, err := parsePrefix(s.Address)
	c.note(where, err)
	v.Prefix = prefix.Masked()
	v.Protocol, err = parseProtocol(s.Protocol)
	c.note(where, err)
	v.Flags, err = parseFlags(s.Flags, vipFlags())
	c.note(where, err)
	v.Reals = c.reals(where, s.Reals)
	return v, len(c.problems) == before
}

func (c *checker) reals(vip string, list []realSection) (reals []Real) {
	seen := map[netip.Addr]bool{}
	for i, s := range list {
		where := fmt.Sprintf("%s.reals[%d]", vip, i)
		addr, ok := c.addr(where, s.Address)
		if ok && seen[addr] {
			c.add(where, "%s is there twice", addr)
		}
		seen[addr] = true
		flags, err := parseFlags(s.Flags, realFlags())
		c.note(where, err)
		reals = append(reals, Real{addr, s.Weight, flags})
	}
	return reals
}

func (c *checker) serverIDs(list []idSection) (ids []ServerID) {
	seen := map[uint32]bool{}
	for i, s := range list {
		where := fmt.Sprintf("quic_reals[%d]", i)
		addr, _ := c.addr(where, s.Address)
		if s.ID == 0 {
			c.add(where, "id 0 stands for none: expected 1 to 4294967295")
		} else if seen[s.ID] {
			c.add(where, "id %d is there twice", s.ID)
		}
		seen[s.ID] = true
		ids = append(ids, ServerID{s.ID, addr})
	}
	return ids
}

func (c *checker) routes(list []routeSection) (routes []Route) {
	reals := map[netip.Prefix]netip.Addr{}
	for i, s := range list {
		where := fmt.Sprintf("source_routes[%d]", i)
		addr, _ := c.addr(where, s.Real)
		if len(s.Sources) == 0 {
			c.add(where, "no sources: expected at least one prefix")
		}
		for _, text := range s.Sources {
			p, err := parsePrefix(text)
			if err != nil {
				c.add(where, "%v", err)
				continue
			}
			p = p.Masked()
			other, twice := reals[p]
			if twice && other != addr {
				c.add(where, "%s leads to %s already", p, other)
			}
			if !twice {
				reals[p] = addr
				routes = append(routes, Route{p, addr})
			}
		}
	}
	return routes
}

func (c *checker) probes(list []probeSection) (probes []Probe) {
	for i, s := range list {
		addr, _ := c.addr(fmt.Sprintf("healthcheck_destinations[%d]", i), s.Address)
		probes = append(probes, Probe{s.Mark, addr})
	}
	return probes
}

func (c *checker) decap(s *decapSection) *Decap {
	d := &Decap{Strict: s.Strict}
	seen := map[netip.Addr]bool{}
	for i, item := range s.Destinations {
		where := fmt.Sprintf("inline_decapsulation.destinations[%d]", i)
		addr, ok := c.addr(where, item.Address)
		if ok && seen[addr] {
			c.add(where, "%s is there twice", addr)
		}
		seen[addr] = true
		d.Destinations = append(d.Destinations, DecapDestination{addr, item.Egress})
	}
	return d
}

func (c *checker) addr(where, text string) (netip.Addr, bool) {
	p, err := parsePrefix(text)
	if err == nil && p.Bits() != p.Addr().BitLen() {
		err = fmt.Errorf("address %q: expected one address", text)
	}
	c.note(where, err)
	return p.Addr(), err == nil
}

// parsePrefix reads an address or a prefix. An IPv4-mapped address is the IPv4 address, as in Katran.
func parsePrefix(text string) (netip.Prefix, error) {
	address, length, isPrefix := strings.Cut(text, "/")
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("address %q: expected an IPv4 or IPv6 address", text)
	}
	if !isPrefix {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(address + "/" + length)
	if err != nil || a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("prefix %q: expected one such as 198.51.100.0/24", text)
	}
	return p, nil
}

// parseProtocol reads a name or an IP protocol number.
func parseProtocol(v any) (lb.Protocol, error) {
	text := ""
	switch v := v.(type) {
	case string:
		text = strings.ToLower(v)
	case json.Number:
		text = v.String()
	case nil:
		return 0, errors.New("protocol is missing: expected tcp or udp, or 6 or 17")
	}
	switch text {
	case "tcp", strconv.Itoa(int(lb.TCP)):
		return lb.TCP, nil
	case "udp", strconv.Itoa(int(lb.UDP)):
		return lb.UDP, nil
	}
	return 0, fmt.Errorf("protocol %q: expected tcp or udp, or 6 or 17", fmt.Sprint(v))
}
