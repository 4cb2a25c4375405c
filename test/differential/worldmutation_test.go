// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/model"
	"github.com/remora-lb/remora/test/require"
)

// TestWorldWithOtherOptionsDiffers gives the program a world that differs in one option, for all VIPs. It
// must show among frames of the world.
func TestWorldWithOtherOptionsDiffers(t *testing.T) {
	require.Root(t)
	const seed, framesEach = 2, 3000
	t.Logf("seed %d", seed)
	world := worldOf(seed)
	steps := frameSteps(next(newWorldGenerator(world, seed), framesEach)...)
	p := load(t, world)
	differs := func(t *testing.T, p *program, other *model.Tables) bool {
		t.Helper()
		subject := otherTables{p, func(*model.Tables) *model.Tables { return other }}
		c, err := newComparison(&oracle{}, subject, world)
		if err != nil {
			t.Fatal(err)
		}
		same, _, err := c.same(steps)
		if err != nil {
			t.Fatal(err)
		}
		return !same
	}
	if differs(t, p, world) {
		t.Fatal("the same world differs")
	}
	for name, change := range otherOptions {
		t.Run(name, func(t *testing.T) {
			other := copyOf(world)
			for vip, entry := range other.VIPs {
				change(&entry)
				other.VIPs[vip] = entry
			}
			if !differs(t, p, other) {
				t.Error("nothing differs")
			}
		})
	}
	for name, change := range otherTablesOfWorld {
		t.Run(name, func(t *testing.T) {
			other := copyOf(world)
			change(other)
			if !differs(t, load(t, other), other) {
				t.Error("nothing differs")
			}
		})
	}
}

// otherOptions change what a VIP does.
var otherOptions = map[string]func(*model.VIP){
	"no TCP ids":             func(v *model.VIP) { v.Options.TCPIDs = false },
	"no UDP ids":             func(v *model.VIP) { v.Options.UDPIDs = false },
	"no connection ids":      func(v *model.VIP) { v.Options.ConnectionIDs = lb.ConnectionIDsOff },
	"no source routes":       func(v *model.VIP) { v.Options.SourceRoutes = false },
	"source port":            func(v *model.VIP) { v.Options.Hash.NoSourcePort = !v.Options.Hash.NoSourcePort },
	"destination port":       func(v *model.VIP) { v.Options.Hash.KeepDestinationPort = !v.Options.Hash.KeepDestinationPort },
	"destination port alone": func(v *model.VIP) { v.Options.Hash.DestinationPortOnly = !v.Options.Hash.DestinationPortOnly },
	"no servers":             func(v *model.VIP) { v.Servers = nil },
	"no routes":              func(v *model.VIP) { v.Routes = nil },
	"numbers of servers": func(v *model.VIP) {
		others := map[uint32]lb.RealID{}
		for number, real := range v.Servers {
			others[number^1<<4|1] = real
		}
		v.Servers = others
	},
	"fragments that drop": func(v *model.VIP) { v.Options.Fragments = lb.FragmentsDrop },
	"fragments that do not pass": func(v *model.VIP) {
		if v.Options.Fragments == lb.FragmentsPass {
			v.Options.Fragments = lb.FragmentsDrop
		}
	},
}

// otherTablesOfWorld change what all VIPs share.
var otherTablesOfWorld = map[string]func(*model.Tables){
	"no prefixes": func(t *model.Tables) {
		maps.DeleteFunc(t.VIPs, func(vip lb.VIP, _ model.VIP) bool { return vip.IsPrefix() })
	},
	"no source route": func(t *model.Tables) { t.SourceRoutes = map[netip.Prefix]netip.Addr{} },
	"only short source routes": func(t *model.Tables) {
		t.SourceRoutes = maps.Clone(t.SourceRoutes)
		maps.DeleteFunc(t.SourceRoutes, func(p netip.Prefix, _ netip.Addr) bool { return p.IsSingleIP() })
	},
	"configuration id":  func(t *model.Tables) { t.QUICLB.ConfigID = (t.QUICLB.ConfigID + 1) % 7 },
	"length of numbers": func(t *model.Tables) { t.QUICLB.ServerIDBytes = t.QUICLB.ServerIDBytes%4 + 1 },
	"GUE port":          func(t *model.Tables) { t.Decap.GUEPort++ },
	"others":            func(t *model.Tables) { t.Decap.Others = (t.Decap.Others + 1) % 4 },
	"no destination":    func(t *model.Tables) { t.Decap.Destinations = nil },
	"no real is local": func(t *model.Tables) {
		for id, r := range t.Reals {
			if r.Tunnel.Encap == lb.Local {
				r.Tunnel = lb.Tunnel{Encap: lb.IPIP, Destination: r.Backend.Addr, Source: lb.DefaultTunnelSources().IPIP4}
				if r.Backend.Addr.Is6() {
					r.Tunnel.Source = lb.DefaultTunnelSources().IPIP6
				}
				t.Reals[id] = r
			}
		}
	},
}
