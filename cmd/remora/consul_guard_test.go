// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/remora-lb/remora/lb/announce"
	"github.com/remora-lb/remora/lb/discovery/consul"
)

// TestFleetGuard: it guards only while it knows what the others announce.
func TestFleetGuard(t *testing.T) {
	balancer := func(self string, vips ...string) consul.Instance {
		i := consul.Instance{Service: consul.Service{ID: "remora", Meta: map[string]string{consul.MetaInstance: self}}}
		for _, v := range vips {
			i.Checks = append(i.Checks, consul.Check{CheckID: "remora-announces-" + v, ServiceID: "remora", Status: "passing"})
		}
		return i
	}
	answer := func(list ...consul.Instance) consul.Update {
		return consul.Update{Answer: &consul.Answer{
			Name: "remora", Service: "remora", Instances: list, Facts: consul.Facts{Status: 200, KnownLeader: true},
		}}
	}
	vip := mustVIP(t, "192.0.2.1:80/tcp")
	woken := 0
	g := &fleetGuard{log: slog.New(slog.DiscardHandler), self: "me", wake: func() { woken++ }}
	for _, step := range []struct {
		name  string
		hears consul.Update
		want  announce.Fleet
		woken int
	}{
		{"nothing", consul.Update{}, announce.FleetUnknown, 0},
		{"without itself", answer(balancer("other")), announce.FleetUnknown, 0},
		{"another announces it", answer(balancer("me"), balancer("other", "192.0.2.1-80-tcp")), announce.FleetOthers, 1},
		{"the same again", answer(balancer("me", "192.0.2.1-80-tcp"), balancer("other", "192.0.2.1-80-tcp")), announce.FleetOthers, 1},
		{"only itself", answer(balancer("me", "192.0.2.1-80-tcp"), balancer("other", "192.0.2.2-80-tcp")), announce.FleetAlone, 2},
		{"Consul is away", consul.Update{Answer: &consul.Answer{Name: "remora", Service: "remora", Err: errors.New("connection refused")}}, announce.FleetUnknown, 3},
	} {
		g.hear(step.hears)
		if got := g.of(vip); got != step.want || woken != step.woken {
			t.Errorf("%s: %d, woken %d times; want %d, %d", step.name, got, woken, step.want, step.woken)
		}
	}
	if got := (*fleetGuard)(nil).of(vip); got != announce.FleetUnknown {
		t.Errorf("no guard says %d", got)
	}
}
