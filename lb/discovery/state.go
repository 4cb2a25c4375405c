// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/lb/store"
)

const governorName = "governor"

// Judged is what is saved of the judgement of sources.
type Judged struct {
	governor.Record
	// Overlaid are the services that an override in Consul froze.
	Overlaid map[string]bool `json:",omitempty"`
	// Definitions are those in force, by key.
	Definitions map[string]string `json:",omitempty"`
}

// Recall is what an earlier run left of the services that Consul feeds: what it saved, and, of those
// of which it saved nothing, what is in the data plane.
func Recall(s *store.Store, c *config.Config, reals []lb.Real, vips []lb.VIPEntry, log *slog.Logger) Judged {
	var j Judged
	s.Recall(governorName, governor.RecordVersion, &j, log)
	known := make(map[string]bool)
	for _, r := range j.Services {
		known[r.Service] = r.Known
	}
	if j.At.IsZero() {
		j.At = time.Now()
	}
	for _, v := range vips {
		_, wanted := c.Sources[v.Service]
		if !wanted && claimedVIP(v.Service) == (lb.VIP{}) || known[v.Service] {
			continue
		}
		known[v.Service] = true
		j.Services = slices.DeleteFunc(j.Services, func(r governor.ServiceRecord) bool { return r.Service == v.Service })
		list := leftBackends(reals, v.VIP)
		j.Services = append(j.Services, governor.ServiceRecord{
			Source: ConsulSource, Service: v.Service, Known: true, Accepted: list, Offered: list,
		})
	}
	return j
}

// leftBackends are the backends of a VIP that the data plane has, by address.
func leftBackends(reals []lb.Real, vip lb.VIP) []governor.Backend {
	var list []governor.Backend
	for _, r := range reals {
		b := governor.Backend{Backend: lb.Backend{Addr: r.Backend.Addr, Weight: r.Backend.Weight}}
		if r.VIP != vip || r.Use == lb.RealRetired {
			continue
		}
		if r.Use == lb.RealDraining {
			b.State = governor.Drain
		}
		list = append(list, b)
	}
	// Of several with one address, an active one has its new flows.
	slices.SortStableFunc(list, func(a, b governor.Backend) int {
		if c := a.Addr.Compare(b.Addr); c != 0 {
			return c
		}
		return int(a.State) - int(b.State)
	})
	return slices.CompactFunc(list, func(a, b governor.Backend) bool { return a.Addr == b.Addr })
}

// claimedVIP is the VIP of a service that has it by its claim: its name is SERVICE@VIP. It is zero for
// services of the file, in whose names there is no such sign.
func claimedVIP(name string) lb.VIP {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return lb.VIP{}
	}
	vip, err := lb.ParseVIP(name[at+1:])
	if err != nil {
		return lb.VIP{}
	}
	return vip
}
