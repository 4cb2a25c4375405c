// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/remora-lb/remora/lb"
	"github.com/remora-lb/remora/lb/config"
	"github.com/remora-lb/remora/lb/governor"
	"github.com/remora-lb/remora/lb/store"
)

const governorName = "governor"

// judged is what is saved of the judgement of sources.
type judged struct {
	governor.Record
	// Overlaid are the services that an override in Consul froze.
	Overlaid map[string]bool `json:",omitempty"`
}

// recall is what an earlier run left of the services that Consul feeds: what it saved, and, of those
// of which it saved nothing, what is in the data plane.
func recall(s *store.Store, c *config.Config, reals []lb.Real, vips []lb.VIPEntry, log *slog.Logger) judged {
	var j judged
	load(s, governorName, governor.RecordVersion, &j, log)
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
			Source: consulSource, Service: v.Service, Known: true, Accepted: list, Offered: list,
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

// judgedSaver writes what is judged to disk, behind the back of the one who judges: of several that
// come while one is written, the last is. Its methods may be called from any goroutine.
type judgedSaver struct {
	store *store.Store
	log   *slog.Logger

	mu   sync.Mutex
	next *judged // guarded by mu; nil if all is saved
	more chan struct{}
}

func newJudgedSaver(s *store.Store, log *slog.Logger) *judgedSaver {
	return &judgedSaver{store: s, log: log, more: make(chan struct{}, 1)}
}

// save has j written soon. It does not block.
func (s *judgedSaver) save(j *judged) {
	s.mu.Lock()
	s.next = j
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// saveInterval is the least time between two writes: with many services, each is a large file.
const saveInterval = 200 * time.Millisecond

// run writes until ctx ends, and then what is left.
func (s *judgedSaver) run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush()
			return nil
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
		case <-s.more:
			s.flush()
		}
		pause.Reset(saveInterval)
	}
}

// flush writes what is to be written. A failure is no reason to stop: it costs the next start its
// memory of what is held, and the data plane has the backends.
func (s *judgedSaver) flush() {
	s.mu.Lock()
	j := s.next
	s.next = nil
	s.mu.Unlock()
	if j == nil {
		return
	}
	if err := s.store.Save(governorName, governor.RecordVersion, j); err != nil {
		s.log.Error("last known good backends not saved", "error", err)
	}
}
