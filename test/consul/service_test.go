// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

// TestService follows a service through all that its servers do to it.
func TestService(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	configuration := config(a)
	configuration.Watches = watch("web")
	f := follow(t, configuration)
	f.verdicts(t, "web")

	register(t, c, "web-1", "10.0.0.1")
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active")
	register(t, c, "web-2", "10.0.0.2", func(r *api.AgentServiceRegistration) {
		r.Weights = &api.AgentWeights{Passing: 10, Warning: 3}
	})
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 10 active")

	setCheck(t, c, "web-2", api.HealthWarning)
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 3 active")
	setCheck(t, c, "web-2", api.HealthCritical)
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 10 down")
	setCheck(t, c, "web-2", api.HealthPassing)
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 10 active")

	require.NoError(t, c.Agent().EnableServiceMaintenance("web-1", "by the test"))
	f.verdicts(t, "web", "web-1 10.0.0.1 1 drain", "web-2 10.0.0.2 10 active")
	require.NoError(t, c.Agent().DisableServiceMaintenance("web-1"))
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 10 active")
	require.NoError(t, c.Agent().EnableNodeMaintenance("by the test"))
	f.verdicts(t, "web", "web-1 10.0.0.1 1 drain", "web-2 10.0.0.2 10 drain")
	require.NoError(t, c.Agent().DisableNodeMaintenance())
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active", "web-2 10.0.0.2 10 active")

	register(t, c, "web-1", "10.0.0.1", func(r *api.AgentServiceRegistration) {
		r.Meta = map[string]string{"remora-weight": "7"}
	})
	f.verdicts(t, "web", "web-1 10.0.0.1 7 active", "web-2 10.0.0.2 10 active")
	require.NoError(t, c.Agent().ServiceDeregister("web-1"))
	f.verdicts(t, "web", "web-2 10.0.0.2 10 active")
	require.NoError(t, c.Agent().ServiceDeregister("web-2"))
	f.verdicts(t, "web")
}

// TestMetaKeys: the reason why labels in meta have a dash where tags have a dot.
func TestMetaKeys(t *testing.T) {
	t.Parallel()
	c := client(t, startAgent(t, consul.Options{}), "")
	err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", Meta: map[string]string{"remora.vip": "192.0.2.1"}})
	require.ErrorSays(t, err, "Invalid Service Meta")
}

// TestSelection: tag, filter and every consistency are understood by Consul.
func TestSelection(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	for id, tags := range map[string][]string{"web-1": {"v4", "a"}, "web-2": {"v4", "b"}, "web-3": {"v6", "a"}} {
		register(t, c, id, "10.0.0."+id[len(id)-1:], func(r *api.AgentServiceRegistration) { r.Tags = tags })
	}
	for _, consistency := range []source.Consistency{source.ConsistencyDefault, source.ConsistencyStale, source.ConsistencyConsistent} {
		configuration := config(a)
		configuration.Consistency = consistency
		configuration.Watches = []source.Watch{{Name: "some", Service: "web", Tag: "v4", Filter: `"a" in Service.Tags or Service.ID == "none"`}}
		follow(t, configuration).verdicts(t, "web", "web-1 10.0.0.1 1 active")
	}
}

// TestClaims: services that claim VIPs are found in the catalogue, and forgotten with it.
func TestClaims(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	configuration := config(a)
	configuration.Claims = []source.ClaimRule{{Services: []string{"w*"}}}
	configuration.Claims[0].Prefixes = append(configuration.Claims[0].Prefixes, prefix("192.0.2.0/24"))
	f := follow(t, configuration)
	register(t, c, "web-1", "10.0.0.1", func(r *api.AgentServiceRegistration) { r.Tags = []string{"remora.vip=192.0.2.1:80/tcp"} })
	answer := f.verdicts(t, "web", "web-1 10.0.0.1 1 active")
	claimed, refused := source.Resolve(source.Catalogue{"web": answer.Instances}, configuration.Claims, nil, source.Rules{})
	if len(claimed) != 1 || len(refused) != 0 || claimed[0].Name != "web@192.0.2.1:80/tcp" || !answer.Claims {
		t.Fatalf("claimed %+v, refused %+v", claimed, refused)
	}
	require.NoError(t, c.Agent().ServiceDeregister("web-1"))
	f.verdicts(t, "web")
	// Its meta claims now, and the tag says so.
	register(t, c, "web-2", "10.0.0.2", func(r *api.AgentServiceRegistration) {
		r.Tags, r.Meta = []string{"remora"}, map[string]string{"remora-vip": "192.0.2.2"}
	})
	answer = f.verdicts(t, "web", "web-2 10.0.0.2 1 active")
	claimed, _ = source.Resolve(source.Catalogue{"web": answer.Instances}, configuration.Claims, nil, source.Rules{})
	if len(claimed) != 1 || claimed[0].Name != "web@192.0.2.2:80/tcp" {
		t.Fatalf("claimed %+v", claimed)
	}
}

// TestAgentRestart: a development agent that was killed begins its index anew.
func TestAgentRestart(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	c := client(t, a, "")
	configuration := config(a)
	configuration.Watches = watch("web")
	f := follow(t, configuration)
	for range 20 { // the index before is then certainly greater than the one after
		register(t, c, "web-1", "10.0.0.1")
		require.NoError(t, c.Agent().ServiceDeregister("web-1"))
	}
	register(t, c, "web-1", "10.0.0.1")
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active")
	require.NoError(t, a.Kill())
	f.await(t, "an error while the agent is away", func(u source.Update) bool { return u.Answer.Err != nil })
	require.NoError(t, a.Run())
	require.NoError(t, a.AwaitLeader(limited(t)))
	back := f.verdicts(t, "web")
	if !back.Facts.Backwards {
		t.Errorf("the index went backwards, and the answer does not say so: %+v", back.Facts)
	}
	register(t, c, "web-2", "10.0.0.2")
	f.verdicts(t, "web", "web-2 10.0.0.2 1 active")
}

// TestHangingAgent: an agent that answers nothing is noticed by its silence.
func TestHangingAgent(t *testing.T) {
	t.Parallel()
	a := startAgent(t, consul.Options{})
	configuration := config(a)
	configuration.Watches, configuration.Wait, configuration.Grace = watch("web"), time.Second, time.Second
	f := follow(t, configuration)
	f.verdicts(t, "web")
	require.NoError(t, a.Signal(syscall.SIGSTOP))
	u := f.await(t, "a stuck watch", func(u source.Update) bool { return u.Answer.Err != nil })
	require.ErrorSays(t, u.Answer.Err, `read service "web"`, "no answer within")
	require.NoError(t, a.Signal(syscall.SIGCONT))
	f.verdicts(t, "web")
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "http.sock")
	a := startAgent(t, consul.Options{Config: `addresses { http = "127.0.0.1 unix://` + socket + `" }`})
	configuration := config(a)
	configuration.Client.Addresses, configuration.Watches = []string{"unix://" + socket}, watch("web")
	f := follow(t, configuration)
	register(t, client(t, a, ""), "web-1", "10.0.0.1")
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active")
}
