// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/test/require"
	"github.com/remora-lb/remora/test/rig"
)

// generous lets everything through: the tests that use it are about what Consul says.
const generous = "governor: {radius: {reals: 100}, damping: {suppress: 0}}\n"

func register(t *testing.T, c *api.Client, n *rig.Node) {
	t.Helper()
	require.NoError(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "web-" + n.Name, Name: "web", Address: n.IPv4.String(), Port: 80,
		Check: &api.AgentServiceCheck{CheckID: "check-" + n.Name, TTL: "1h", Status: api.HealthPassing},
	}))
}

func say(t *testing.T, c *api.Client, n *rig.Node, status string) {
	t.Helper()
	require.NoError(t, c.Agent().UpdateTTL("check-"+n.Name, "said by the test", status))
}

// TestConsulDrivesTheBalancer: servers register, go into maintenance, fail, and go, while transfers
// run; then Consul is gone, and the daemon is killed and started again. No transfer ever fails.
func TestConsulDrivesTheBalancer(t *testing.T) {
	b := newConsulBed(t, rig.Config{})
	agent, c := b.startAgent(t)
	first, second, third := b.Servers[0], b.Servers[1], b.Servers[2]
	for _, n := range b.Servers {
		register(t, c, n)
	}
	b.write(t, generous, ", register: {}")
	b.launch(t, backends("active", b.Servers...)...)
	b.assertShared(t, vip4(), b.Servers...)
	b.assertShared(t, vip6(), b.Servers...)
	b.awaitRegistered(t, c)
	traffic := b.startTraffic(t)

	require.NoError(t, c.Agent().EnableServiceMaintenance("web-"+third.Name, "upgrade"))
	b.awaitMaps(t, "maintenance drains", append(backends("active", first, second), backends("draining", third)...)...)
	b.assertShared(t, vip4(), first, second)
	require.NoError(t, c.Agent().DisableServiceMaintenance("web-"+third.Name))
	b.awaitMaps(t, "the end of maintenance", backends("active", b.Servers...)...)

	say(t, c, second, api.HealthCritical)
	b.awaitMaps(t, "a critical check", append(backends("active", first, third), backends("draining", second)...)...)
	b.assertShared(t, vip6(), first, third)
	say(t, c, second, api.HealthPassing)
	b.awaitMaps(t, "a passing check", backends("active", b.Servers...)...)

	require.NoError(t, c.Agent().ServiceDeregister("web-"+first.Name))
	b.awaitMaps(t, "deregistration", append(backends("active", second, third), backends("draining", first)...)...)
	b.assertShared(t, vip4(), second, third)
	register(t, c, first)
	b.awaitMaps(t, "registration", backends("active", b.Servers...)...)

	b.overlay(t, c, third)
	require.NoError(t, agent.Kill())
	b.awaitHeld(t, "unreachable answer")
	rings, digests := b.ringsNow(t)
	for range 2 {
		require.NoError(t, b.daemon.Kill())
		b.launch(t, backends("active", b.Servers...)...)
		b.awaitSettled(t)
		again, sums := b.ringsNow(t)
		if !maps.Equal(again, rings) || !slices.Equal(sums, digests) {
			t.Errorf("the rings are others after a restart without Consul: digests %v, %v", digests, sums)
		}
	}
	b.assertShared(t, vip4(), b.Servers...)
	awaitTransfers(t, traffic)
	traffic.finish(t)

	// Consul comes back and has forgotten everything: nothing is taken away at once.
	require.NoError(t, agent.Run())
	require.NoError(t, agent.AwaitLeader(within(t)))
	b.awaitHeld(t, "empty "+first.IPv4.String(), "empty "+second.IPv4.String(), "empty "+third.IPv4.String())
	b.assertMaps(t, "Consul is empty", backends("active", b.Servers...)...)
	for _, n := range b.Servers {
		register(t, c, n)
	}
	b.awaitHeld(t)
	b.assertMaps(t, "Consul is as before", backends("active", b.Servers...)...)
}

// awaitTransfers waits until there were as many transfers as their end demands.
func awaitTransfers(t *testing.T, r *traffic) {
	t.Helper()
	waitFor(t, "transfers", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.count) < 8 || slices.Min(slices.Collect(maps.Values(r.count))) < 2 {
			return fmt.Errorf("there were %v", r.count)
		}
		return r.failed.Err()
	})
}

// awaitSettled waits until the daemon has taken over what an earlier one left.
func (b *consulBed) awaitSettled(t *testing.T) {
	t.Helper()
	b.logged(t, 0, "data plane is settled")
}

// awaitRegistered waits until the balancer is registered, with a check for each VIP that passes and says
// the digest of the status.
func (b *consulBed) awaitRegistered(t *testing.T, c *api.Client) {
	t.Helper()
	waitFor(t, "the balancer's checks", func() error {
		s, err := b.consulStatus(t.Context())
		if err != nil {
			return err
		}
		checks, err := c.Agent().ChecksWithFilter(`ServiceName == "remora"`)
		if err != nil {
			return err
		}
		if len(checks) != 1+len(s.VIPs) {
			return fmt.Errorf("there are %d checks", len(checks))
		}
		for _, v := range s.VIPs {
			said := slices.ContainsFunc(slices.Collect(maps.Values(checks)), func(c *api.AgentCheck) bool {
				return c.Name == "VIP "+v.VIP && c.Status == api.HealthPassing && strings.Contains(c.Output, "digest "+v.Digest)
			})
			if !said {
				return fmt.Errorf("no check says the digest %s of %s: %v", v.Digest, v.VIP, checks)
			}
		}
		return nil
	})
}

// overlay drains a server by an override in the key-value store, and ends that.
func (b *consulBed) overlay(t *testing.T, c *api.Client, n *rig.Node) {
	t.Helper()
	others := slices.DeleteFunc(slices.Clone(b.Servers), func(s *rig.Node) bool { return s == n })
	override, err := json.Marshal(map[string]any{
		"service": "web", "action": "drain", "backend": n.IPv4, "author": "ada", "reason": "slow disk", "expires": time.Now().Add(time.Hour),
	})
	require.NoError(t, err)
	_, err = c.KV().Put(&api.KVPair{Key: "remora/overlay/1", Value: override}, nil)
	require.NoError(t, err)
	b.awaitMaps(t, "a drain by override", append(backends("active", others...), backends("draining", n)...)...)
	_, err = c.KV().Delete("remora/overlay/1", nil)
	require.NoError(t, err)
	b.awaitMaps(t, "the end of the override", backends("active", b.Servers...)...)

	freeze := fmt.Sprintf(`{"service": "web", "action": "freeze", "author": "ada", "reason": "audit", "expires": %q}`, time.Now().Add(time.Hour).Format(time.RFC3339))
	_, err = c.KV().Put(&api.KVPair{Key: "remora/overlay/2", Value: []byte(freeze)}, nil)
	require.NoError(t, err)
	b.awaitHeld(t, "freeze service")
	say(t, c, n, api.HealthCritical)
	b.awaitHeld(t, "freeze service", "freeze "+n.IPv4.String())
	b.assertMaps(t, "frozen", backends("active", b.Servers...)...)
	say(t, c, n, api.HealthPassing)
	_, err = c.KV().Delete("remora/overlay/2", nil)
	require.NoError(t, err)
	b.awaitHeld(t)
}

// TestReloadToConsul: a service goes from the file to Consul and back, and a file that cannot be
// used changes nothing. No connection moves.
func TestReloadToConsul(t *testing.T) {
	b := newConsulBed(t, rig.Config{})
	agent, c := b.startAgent(t)
	b.bed.write(t, b.Servers, ipv4, generous)
	b.startDaemon(t)
	conns := b.connections(t, b.Servers...)
	all := backends("active", b.Servers...)

	// Consul has no such service: what the file had stays.
	b.write(t, "")
	skip := len(b.daemon.Output())
	require.NoError(t, b.daemon.Signal(syscall.SIGHUP))
	b.logged(t, skip, "governor changed: that needs a restart")
	b.write(t, generous)
	require.NoError(t, b.daemon.Signal(syscall.SIGHUP))
	b.awaitHeld(t, "empty 10.20.0.11", "empty 10.20.0.12", "empty 10.20.0.13")
	b.assertMaps(t, "a service that is not in Consul", all...)
	for _, n := range b.Servers {
		register(t, c, n)
	}
	b.awaitHeld(t)
	require.NoError(t, c.Agent().EnableServiceMaintenance("web-"+b.Servers[0].Name, ""))
	b.awaitMaps(t, "maintenance", append(backends("draining", b.Servers[0]), backends("active", b.Servers[1:]...)...)...)

	skip = len(b.daemon.Output())
	b.writeText(t, strings.Replace(b.text(t), "service: web}", "service: a/b}", 1))
	require.NoError(t, b.daemon.Signal(syscall.SIGHUP))
	b.logged(t, skip, "is not a name in Consul")

	require.NoError(t, agent.Kill())
	b.bed.write(t, b.Servers, ipv4, generous)
	require.NoError(t, b.daemon.Signal(syscall.SIGHUP))
	b.awaitMaps(t, "back to the file", all...)
	b.awaitHeld(t)
	for _, c := range conns {
		c.assertStays(t)
	}
}

// text is the balancer's configuration.
func (b *consulBed) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.config)
	require.NoError(t, err)
	return string(text)
}
