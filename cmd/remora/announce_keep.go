// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"sync"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/engine"
)

// keeper keeps VIPs in the data plane that are not wanted any more, for as long as routers may send
// packets to them. Its methods may be called from any goroutine.
type keeper struct {
	// wake is called when what is wanted changed. It must not block.
	wake func()

	mu sync.Mutex // guards what follows
	// wanted are the VIPs of the last set; kept are those of earlier ones that may not go yet.
	wanted, kept map[lb.VIP]keptVIP
}

// keptVIP is a VIP with where it was.
type keptVIP struct {
	service  string
	vip      lb.ServiceVIP
	backends []lb.Backend
}

func newKeeper(wake func()) *keeper {
	return &keeper{wake: wake, wanted: make(map[lb.VIP]keptVIP), kept: make(map[lb.VIP]keptVIP)}
}

// seed has VIPs that an earlier run announced count as wanted before: those that are not wanted now are
// kept.
func (k *keeper) seed(vips []keptVIP) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range vips {
		k.wanted[v.vip.VIP] = v
	}
}

// complete adds the VIPs that are kept to what is wanted. Neither argument is changed. A kept VIP has
// the backends of its service, or, if that is gone, those that it had.
func (k *keeper) complete(services []lb.Service, backends map[string][]lb.Backend) ([]lb.Service, map[string][]lb.Backend) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wanted := make(map[lb.VIP]keptVIP)
	for _, s := range services {
		for _, v := range s.VIPs {
			wanted[v.VIP] = keptVIP{s.Name, v, backends[s.Name]}
			delete(k.kept, v.VIP)
		}
	}
	for vip, old := range k.wanted {
		if _, still := wanted[vip]; !still {
			k.kept[vip] = old
		}
	}
	k.wanted = wanted
	k.wake()
	services, backends = slices.Clone(services), maps.Clone(backends)
	for _, vip := range slices.SortedFunc(maps.Keys(k.kept), lb.VIP.Compare) {
		one := k.kept[vip]
		i := slices.IndexFunc(services, func(s lb.Service) bool { return s.Name == one.service })
		if i < 0 {
			i = len(services)
			services = append(services, lb.Service{Name: one.service})
			backends[one.service] = one.backends
		}
		services[i].VIPs = append(slices.Clone(services[i].VIPs), one.vip)
	}
	return services, backends
}

// configured are the VIPs that are wanted.
func (k *keeper) configured() []lb.VIP {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.wanted))
}

// release lets go of all VIPs but these, and tells whether there was one.
func (k *keeper) release(but map[lb.VIP]bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := len(k.kept)
	maps.DeleteFunc(k.kept, func(vip lb.VIP, _ keptVIP) bool { return !but[vip] })
	return len(k.kept) < before
}

// adoptedVIPs are those of the chosen VIPs that an earlier run left, with the backends that they had.
// Default tunnels are for VIPs without a backend whose tunnel would tell.
func adoptedVIPs(left engine.Status, chosen map[lb.VIP]bool, tunnels lb.TunnelSources) []keptVIP {
	var list []keptVIP
	for _, s := range left.Services {
		for _, v := range s.VIPs {
			if !chosen[v.VIP] {
				continue
			}
			kept := keptVIP{service: s.Name, vip: lb.ServiceVIP{
				VIP: v.VIP, Ring: v.Ring, Tunnel: tunnels, Flows: v.Flows, Leave: lb.DefaultLeave(), Options: v.Options,
			}}
			for _, r := range v.Reals {
				if r.Absence.Cause != engine.CauseRemoved {
					kept.adopt(r)
				}
			}
			list = append(list, kept)
		}
	}
	return list
}

// adopt adds a backend with its tunnel: another one would move its flows.
func (k *keptVIP) adopt(r engine.RealStatus) {
	b := r.Backend
	b.Down = r.Absence.Cause == engine.CauseDown
	k.backends = append(k.backends, b)
	t, six := r.Tunnel, r.Tunnel.Destination.Is6()
	switch {
	case t.Encap == lb.Local:
		return
	case t.Encap == lb.GUE && six:
		k.vip.Tunnel.GUE6 = t.Source.Addr()
	case t.Encap == lb.GUE:
		k.vip.Tunnel.GUE4 = t.Source.Addr()
	case six:
		k.vip.Tunnel.IPIP6 = t.Source
	default:
		k.vip.Tunnel.IPIP4 = t.Source
	}
	k.vip.Encap = t.Encap
	if t.Encap == lb.GUE {
		k.vip.Tunnel.GUEPort, k.vip.Tunnel.GUEChecksum = t.Port, t.Checksum
	}
}

// tunnelSources are the file's, which all its VIPs have.
func tunnelSources(c *config.Config) lb.TunnelSources {
	for _, s := range c.Services {
		for _, v := range s.VIPs {
			return v.Tunnel
		}
	}
	return lb.DefaultTunnelSources()
}
