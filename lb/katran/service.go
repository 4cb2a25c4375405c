// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package katran

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/remora-lb/remora/lb"
)

// service makes one of a VIP.
func (c *converter) service(v VIP) service {
	c.flags(v)
	s := service{
		Name:         serviceName(v),
		VIPs:         []string{v.String()},
		Ring:         ring{c.dump.Settings.RingSize, v.Hash.String()},
		Flows:        c.flows(v),
		Hash:         hashInput(v.Flags),
		SourceRoutes: v.Flags.has(SourceRouting),
		Backends:     []backend{},
	}
	if v.Protocol == lb.TCP {
		s.TCPIDs = c.dump.Settings.TCPServerIDs
	} else {
		s.UDPIDs = v.Flags.has(UDPStableRouting)
		if v.Flags.has(QUICVIP) {
			s.ConnectionIDs = lb.ConnectionIDsKatran.String()
		}
	}
	reals := slices.SortedFunc(slices.Values(v.Reals), func(a, b Real) int { return a.Addr.Compare(b.Addr) })
	local := false
	for _, r := range reals {
		b, ok := c.backend(v, r)
		if !ok {
			continue
		}
		if b.Local && local {
			c.note(v.String(), "real %s is not local: remora has one local backend in a service", r.Addr)
			b.Local = false
		}
		local = local || b.Local
		if s.TCPIDs || s.UDPIDs || s.ConnectionIDs != "" {
			b.ServerID = c.serverID(v, r.Addr, s.UDPIDs)
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}

// serviceName is the VIP's text form with what a name must not have replaced. No two VIPs have one.
func serviceName(v VIP) string {
	address := v.Prefix.Addr().String()
	if v.vip().IsPrefix() {
		address = v.Prefix.String()
	}
	address = strings.NewReplacer(":", "-", "/", "_").Replace(address)
	return "vip-" + address + "-" + strconv.Itoa(int(v.Port)) + "-" + v.Protocol.String()
}

// flags notes those that mean nothing in remora, or nothing for this VIP.
func (c *converter) flags(v VIP) {
	where := v.String()
	for _, number := range v.Flags.unknown(vipFlags()) {
		c.note(where, "flag %s is left out: it is not known here", number)
	}
	if v.Flags.has(GlobalLRU) {
		c.note(where, "flag GLOBAL_LRU is left out: remora has no table beside its own")
	}
	for _, f := range []struct {
		flag Flags
		name string
		of   lb.Protocol
	}{
		{QUICVIP, "QUIC_VIP", lb.UDP},
		{UDPStableRouting, "UDP_STABLE_ROUTING", lb.UDP},
		{UDPFlowMigration, "UDP_FLOW_MIGRATION", lb.UDP},
	} {
		if v.Flags.has(f.flag) && v.Protocol != f.of {
			c.note(where, "flag %s is left out: it is for %s", f.name, f.of)
		}
	}
}

// flows are what the VIP's flags say of remembering, where it is not remora's default.
func (c *converter) flows(v VIP) *flows {
	var f flows
	never := v.Flags.has(NoLRU)
	switch {
	case v.Protocol == lb.TCP && never:
		f.TCP = "never"
	case v.Protocol == lb.TCP && c.choices.KatranFlows:
		f.TCP = "always"
	case v.Protocol == lb.UDP && never:
		f.UDP = "stateless"
	case v.Protocol == lb.UDP && c.choices.KatranFlows:
		f.UDP = "sticky"
	case v.Protocol == lb.UDP && v.Flags.has(QUICVIP):
		f.UDP = "quic"
	}
	if v.Protocol == lb.UDP && v.Flags.has(UDPFlowMigration) {
		f.OnDown = "rehash"
	}
	if f == (flows{}) {
		return nil
	}
	return &f
}

func hashInput(f Flags) (words []string) {
	if f.has(NoSourcePort) {
		words = append(words, "no-source-port")
	}
	if f.has(HashSourceDestinationPort) {
		words = append(words, "keep-destination-port")
	}
	if f.has(DestinationPortHash) {
		words = append(words, "destination-port-only")
	}
	return words
}

// backend makes one of a real; false if remora cannot have it.
func (c *converter) backend(v VIP, r Real) (backend, bool) {
	where := v.String()
	if _, err := lb.ParseBackendAddr(r.Addr.String()); err != nil {
		c.note(where, "real %s is left out: %v", r.Addr, err)
		return backend{}, false
	}
	if vip, ok := c.vipOf(r.Addr); ok {
		c.note(where, "real %s is left out: it is the address of the VIP %s", r.Addr, vip)
		return backend{}, false
	}
	if !c.reachable(r.Addr) {
		c.note(where, "real %s is left out: GUE to it needs settings.%s", r.Addr, sourceField(r.Addr))
		return backend{}, false
	}
	for _, number := range r.Flags.unknown(realFlags()) {
		c.note(where, "flag %s of real %s is left out: it is not known here", number, r.Addr)
	}
	b := backend{Address: r.Addr.String(), Weight: min(r.Weight, maxWeight)}
	if b.Weight != r.Weight {
		c.note(where, "real %s has weight %d in place of %d: the ring is another one", r.Addr, b.Weight, r.Weight)
	}
	if r.Flags.has(LocalReal) {
		b.Local = v.Flags.has(LocalVIP)
		if !b.Local {
			c.note(where, "flag LOCAL_REAL of real %s is left out: the VIP has no LOCAL_VIP, so it had no effect", r.Addr)
		}
	}
	return b, true
}

// vipOf is a VIP that the address belongs to: no server can have it.
func (c *converter) vipOf(addr netip.Addr) (VIP, bool) {
	if v, ok := c.addrs[addr]; ok {
		return v, true
	}
	for _, v := range c.prefixes {
		if v.Prefix.Contains(addr) {
			return v, true
		}
	}
	return VIP{}, false
}

// reachable tells whether there is an outer source address of the family.
func (c *converter) reachable(a netip.Addr) bool {
	s := c.dump.Settings
	if s.Encap != lb.GUE {
		return true
	}
	if a.Is4() {
		return s.Source4.IsValid()
	}
	return s.Source6.IsValid()
}

func sourceField(a netip.Addr) string {
	if a.Is4() {
		return "source4"
	}
	return "source6"
}

// serverID is the number of a real; 0 if it has none, or one that the VIP's UDP headers cannot say.
func (c *converter) serverID(v VIP, addr netip.Addr, udpIDs bool) uint32 {
	list := c.ids[addr]
	if len(list) == 0 {
		return 0
	}
	if udpIDs && list[0] >= udpIDLimit {
		c.note(v.String(), "id %d of %s is left out: UDP_STABLE_ROUTING has 3 bytes for it", list[0], addr)
		return 0
	}
	return list[0]
}

// unusedIDs notes the numbers that lead nowhere: in remora a backend has one, and is a VIP's.
func (c *converter) unusedIDs() {
	placed := map[netip.Addr]bool{}
	for _, v := range c.vips {
		ids := v.Protocol == lb.TCP && c.dump.Settings.TCPServerIDs ||
			v.Protocol == lb.UDP && v.Flags&(QUICVIP|UDPStableRouting) != 0
		for _, r := range v.Reals {
			placed[r.Addr] = placed[r.Addr] || ids
		}
	}
	sorted := slices.SortedFunc(slices.Values(c.dump.ServerIDs), func(a, b ServerID) int { return cmp.Compare(a.ID, b.ID) })
	for _, id := range sorted {
		switch {
		case !placed[id.Addr]:
			c.note("quic_reals", "id %d is left out: %s is a real of no VIP that reads server ids", id.ID, id.Addr)
		case id.ID != c.ids[id.Addr][0]:
			c.note("quic_reals", "id %d is left out: %s has %d, and a backend has one", id.ID, id.Addr, c.ids[id.Addr][0])
		}
	}
}
