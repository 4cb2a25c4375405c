// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/remora-lb/remora/lb"
	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

const management = "11111111-2222-3333-4444-555555555555"

const aclConfig = `acl { enabled = true default_policy = "deny" tokens { initial_management = "` + management + `" agent = "` + management + `" } }`

// newToken makes a token with these rules, once ACLs work.
func newToken(t *testing.T, c *api.Client, name, rules string) string {
	t.Helper()
	eventually(t, "policy "+name, func() error {
		_, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
		return err
	})
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
	require.NoError(t, err)
	return token.SecretID
}

// TestACLs: with the sample policy everything works, and with less nothing passes for an answer.
func TestACLs(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{Config: aclConfig})
	c := client(t, a, management)
	rules, err := os.ReadFile("../../configs/consul-policy.hcl")
	require.NoError(t, err)
	good := newToken(t, c, "remora", string(rules))
	register(t, c, "web-1", "10.0.0.1")
	put(t, c, "remora/overlay/x", "{}")
	put(t, c, "remora/services/web.yaml", "name: web")

	t.Run("the sample policy suffices", func(t *testing.T) {
		configuration := config(a)
		configuration.Client.Token = good
		configuration.Watches = watch("web")
		configuration.Overlay, configuration.Definitions = "remora/overlay/", "remora/services/"
		configuration.Claims = []source.ClaimRule{{Services: []string{"claimer"}, Prefixes: []netip.Prefix{prefix("192.0.2.0/24")}}}
		register(t, c, "claimer-1", "10.0.0.9", func(r *api.AgentServiceRegistration) { r.Name, r.Tags = "claimer", []string{"remora.vip=192.0.2.1"} })
		missing := map[string]bool{"web": true, "claimer": true, "x": true, "web.yaml": true}
		f := follow(t, configuration)
		f.await(t, "all that is read", func(u source.Update) bool {
			for _, text := range contents(t, u) {
				delete(missing, text)
			}
			return len(missing) == 0
		})
		registration := source.DefaultRegistration()
		registration.Client = configuration.Client
		runRegistrar(t, registration).Set(source.Report{Self: source.Finding{Health: source.Passing}, VIPs: map[lb.VIP]source.Finding{webVIP: {Health: source.Passing}}})
		awaitChecks(t, c, map[string]string{"remora": "passing:", "remora-vip-192.0.2.10-80-tcp": "passing:"})
		limit := newLimit(t, configuration.Client, 1, "one")
		slot, err := limit.Acquire(limited(t))
		require.NoError(t, err)
		require.NoError(t, slot.Release())
	})
	t.Run("an unknown token is an error", func(t *testing.T) {
		configuration := config(a)
		configuration.Client.Token, configuration.Watches = "99999999-2222-3333-4444-555555555555", watch("web")
		u := follow(t, configuration).await(t, "the first answer", func(source.Update) bool { return true })
		require.ErrorSays(t, u.Answer.Err, `read service "web"`, "403", "ACL not found")
	})
	t.Run("no token is no empty service", func(t *testing.T) {
		configuration := config(a)
		configuration.Watches, configuration.Overlay = watch("web"), "remora/overlay/"
		f := follow(t, configuration)
		for range 4 {
			f.await(t, "an answer", func(u source.Update) bool {
				problem := ""
				if u.Answer != nil {
					problem = u.Answer.Problem()
				} else {
					problem = u.Overlay.Problem()
				}
				if !strings.Contains(problem, "no ACL token") {
					t.Errorf("problem %q of %s", problem, describe(u))
				}
				return true
			})
		}
	})
	t.Run("a token for half of the nodes is no half service", func(t *testing.T) {
		configuration := config(a)
		configuration.Client.Token = newToken(t, c, "half", `service_prefix "" { policy = "read" } node "other" { policy = "read" }`)
		configuration.Watches = watch("web")
		u := follow(t, configuration).await(t, "the first answer", func(source.Update) bool { return true })
		if !u.Answer.Facts.FilteredByACLs || !strings.Contains(u.Answer.Problem(), "ACL") {
			t.Errorf("answer %+v", u.Answer)
		}
	})
	t.Run("a token file is rotated", func(t *testing.T) { rotate(t, a, c, good) })
}

// contents are names of what is in a whole update.
func contents(t *testing.T, u source.Update) []string {
	t.Helper()
	if a := u.Answer; a != nil && a.Problem() == "" && len(a.Instances) > 0 {
		return []string{a.Service}
	}
	var keys []string
	for _, p := range []*source.Pairs{u.Overlay, u.Definitions} {
		if p != nil && p.Problem() == "" {
			for _, pair := range p.Pairs {
				keys = append(keys, pair.Key)
			}
		}
	}
	return keys
}

// rotate replaces the token while the source reads, and does away with the old one.
func rotate(t *testing.T, a *consul.Agent, c *api.Client, good string) {
	t.Helper()
	first, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "remora"}}}, nil)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(first.SecretID+"\n"), 0o600))
	configuration := config(a)
	configuration.Client.TokenFile, configuration.Watches = file, watch("web")
	f := follow(t, configuration)
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active")
	_, err = c.ACL().TokenDelete(first.AccessorID, nil)
	require.NoError(t, err)
	register(t, c, "web-2", "10.0.0.2") // wakes the query, which the old token was good for
	f.await(t, "the end of the old token", func(u source.Update) bool {
		return u.Answer.Err != nil && strings.Contains(u.Answer.Err.Error(), "ACL not found")
	})
	require.NoError(t, os.WriteFile(file, nil, 0o600)) // as a careless writer leaves it for a moment
	require.NoError(t, os.WriteFile(file, []byte(good), 0o600))
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 1 active")
}

func put(t *testing.T, c *api.Client, key, value string) {
	t.Helper()
	_, err := c.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
	require.NoError(t, err)
}

// runRegistrar runs a registrar until the test ends.
func runRegistrar(t *testing.T, r source.Registration) *source.Registrar {
	t.Helper()
	registrar, err := source.NewRegistrar(r)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- registrar.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return registrar
}
