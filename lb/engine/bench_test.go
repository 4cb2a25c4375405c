// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/remora-lb/remora/lb"
)

// sink is a data plane that takes everything and does nothing.
type sink struct{}

func (sink) Reserve(Capacity) error                               { return nil }
func (sink) SetReals([]lb.Real) error                             { return nil }
func (sink) DeleteReals([]lb.RealID) error                        { return nil }
func (sink) SetRing(lb.RingID, []lb.Slot) (written int, _ error)  { return 0, nil }
func (sink) DeleteRing(lb.RingID) error                           { return nil }
func (sink) SetVIPs([]lb.VIPEntry) error                          { return nil }
func (sink) SetTargets([]lb.ServerTarget, []lb.RouteTarget) error { return nil }
func (sink) SetSourceRoutes([]lb.SourceRoute) error               { return nil }
func (sink) SweepFlows(func(lb.Flow) bool) error                  { return nil }
func (sink) AddFlows([]lb.Flow) (added int, _ error)              { return 0, nil }
func (sink) Want([]netip.Addr)                                    {}

// large is an engine with services of one VIP each, which have so many backends and rings of so many
// slots.
func large(b *testing.B, vips, backends int, size uint32) (*Engine, map[string][]lb.Backend) {
	b.Helper()
	cfg := DefaultConfig()
	cfg.OnMemory = func(*Memory) {}
	e, err := New(cfg, sink{}, sink{})
	if err != nil {
		b.Fatal(err)
	}
	var services []lb.Service
	all := make(map[string][]lb.Backend)
	for i := range vips {
		name := fmt.Sprintf("s%05d", i)
		vip := lb.VIP{Addr: netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}), Port: 80, Protocol: lb.TCP}
		services = append(services, lb.Service{Name: name, VIPs: []lb.ServiceVIP{
			{VIP: vip, Ring: lb.Ring{Size: size}, Tunnel: lb.DefaultTunnelSources(), Leave: lb.DefaultLeave()},
		}})
		for n := range backends {
			all[name] = append(all[name], lb.Backend{Addr: netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)}), Weight: 1})
		}
	}
	e.SetServicesAndBackends(services, "a", all)
	e.start()
	pass(b, e)
	return e, all
}

func pass(b *testing.B, e *Engine) {
	b.Helper()
	if err := e.pass(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkPass(b *testing.B) {
	e, backends := large(b, 1000, 100, 4099)
	b.Run("nothing changed", func(b *testing.B) {
		for b.Loop() {
			pass(b, e)
		}
	})
	b.Run("one backend changed", func(b *testing.B) {
		for b.Loop() {
			backends["s00500"][7].Weight ^= 3
			e.SetBackends("a", backends)
			pass(b, e)
		}
	})
}

func BenchmarkManyVIPs(b *testing.B) {
	e, backends := large(b, 10000, 2, 31)
	for i := range 100 {
		backends[fmt.Sprintf("s%05d", i)][0].Weight = 0
	}
	e.SetBackends("a", backends)
	pass(b, e)
	b.Run("due", func(b *testing.B) {
		for b.Loop() {
			e.due()
		}
	})
	b.Run("sweepIsDue", func(b *testing.B) {
		e.unswept = false
		absent := e.absences.of
		e.absences.of = nil
		for b.Loop() {
			e.sweepIsDue()
		}
		e.absences.of = absent
	})
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			e.memory(nil)
		}
	})
	b.Run("sweep", func(b *testing.B) {
		for b.Loop() {
			e.sweep()
		}
	})
	b.Run("pass", func(b *testing.B) {
		for b.Loop() {
			pass(b, e)
		}
	})
	b.Run("written", func(b *testing.B) {
		for b.Loop() {
			e.pasts.written(time.Now())
		}
	})
}
