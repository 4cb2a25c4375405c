// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// TestConsulMisbehaves plays what Consul is known to do, one after the other; each is refused by its
// rule, and the maps stay as they are.
func TestConsulMisbehaves(t *testing.T) {
	b := newConsulBed(t, rig.Config{})
	s := b.startStandIn(t)
	require.NoError(t, s.Set("web", entriesOf(b.Servers)...))
	b.write(t, "governor: {hold: 1h, radius: {reals: 100}, damping: {suppress: 2}}\n")
	all := backends("active", b.Servers...)
	b.launch(t, all...)
	for _, tc := range []struct {
		name, rule string
		step       consul.Step
	}{
		{"HTTP 500", "status", consul.Fail(500)},
		{"HTTP 429", "status", consul.TooManyRequests(1)},
		{"no leader", "no_leader", consul.NoLeader},
		{"shortened by ACLs", "filtered", consul.Filtered},
		{"half a list", "decode", consul.HalfList},
		{"null", "decode", consul.Null},
		{"a page of HTML", "decode", consul.WrongType},
		{"empty", "empty", consul.Empty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, err := b.consulStatus(t.Context())
			require.NoError(t, err)
			s.Script("web", tc.step)
			b.awaitRule(t, tc.rule, before.rule(tc.rule))
			b.assertMaps(t, tc.name, all...)
			for range 2 { // the index of one that is empty was ahead
				require.NoError(t, s.Set("web", entriesOf(b.Servers)...))
			}
			b.awaitHeld(t)
			b.assertMaps(t, "after "+tc.name, all...)
		})
	}
	t.Run("index backwards", func(t *testing.T) {
		skip := len(b.daemon.Output())
		s.Script("web", consul.AtIndex(3))
		b.logged(t, skip, "index went backwards")
		b.assertMaps(t, "backwards", all...)
		b.awaitHeld(t)
	})
	t.Run("flapping", func(t *testing.T) {
		stay, flaps := b.Servers[:2], b.Servers[2]
		without := append(backends("active", stay...), backends("draining", flaps)...)
		for range 2 {
			require.NoError(t, s.Set("web", entriesOf(stay)...))
			b.awaitMaps(t, "it goes", without...)
			require.NoError(t, s.Set("web", entriesOf(b.Servers)...))
			b.awaitMaps(t, "it comes", all...)
		}
		require.NoError(t, s.Set("web", entriesOf(stay)...))
		b.awaitMaps(t, "it goes again", without...)
		require.NoError(t, s.Set("web", entriesOf(b.Servers)...))
		b.awaitHeld(t, "damping "+flaps.IPv4.String())
		b.assertMaps(t, "it comes too often", without...)
		b.operate(t, "accept", "web")
		b.awaitMaps(t, "accepted", all...)
	})
	b.assertShared(t, vip4(), b.Servers...)
	b.assertShared(t, vip6(), b.Servers...)
}

// TestGovernorHolds: of a fleet that vanishes but for one, one server goes and the next is held;
// operators let it through, or freeze the service; a server that comes and goes stays out.
func TestGovernorHolds(t *testing.T) {
	b := newConsulBed(t, rig.Config{})
	s := b.startStandIn(t)
	first, second, third := b.Servers[0], b.Servers[1], b.Servers[2]
	set := func(servers ...*rig.Node) {
		t.Helper()
		require.NoError(t, s.Set("web", entriesOf(servers)...))
	}
	set(b.Servers...)
	b.write(t, "governor: {hold: 1h, empty_hold: 1h, radius: {percent: 0, step: 1h}}\n")
	b.launch(t, backends("active", b.Servers...)...)

	set(first)
	b.awaitHeld(t, "radius "+third.IPv4.String())
	held := append(backends("active", first, third), backends("draining", second)...)
	b.awaitMaps(t, "one may go", held...)
	b.assertShared(t, vip4(), first, third)
	require.NoError(t, b.daemon.Kill()) // what is held stays held
	b.launch(t, held...)
	b.awaitHeld(t, "radius "+third.IPv4.String())
	if out, want := b.operate(t, "accept", "web"), "web: 1 changes let through"; out != want {
		t.Errorf("accept says %q, not %q", out, want)
	}
	alone := append(backends("active", first), backends("draining", second, third)...)
	b.awaitMaps(t, "accepted", alone...)

	b.operate(t, "freeze", "192.0.2.10:80/tcp", "--for", "1h", "--reason", "audit")
	set(b.Servers...)
	b.awaitHeld(t, "freeze service", "freeze "+second.IPv4.String(), "freeze "+third.IPv4.String())
	b.assertMaps(t, "frozen", alone...)
	b.operate(t, "unfreeze", "web")
	b.awaitMaps(t, "thawed", backends("active", b.Servers...)...)

	set(first, second) // within the step of the first loss
	b.awaitHeld(t, "radius "+third.IPv4.String())
	set(b.Servers...)
	b.awaitHeld(t)
	b.assertMaps(t, "back before it was let go", backends("active", b.Servers...)...)
}
