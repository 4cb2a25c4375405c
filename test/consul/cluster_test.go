// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	source "github.com/remora-lb/remora/lb/discovery/consul"
	"github.com/remora-lb/remora/test/consul"
	"github.com/remora-lb/remora/test/require"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// TestLeaderLoss kills the leader of three servers. Until there is another, nothing that is read
// may pass for an empty service; afterwards changes are seen again.
func TestLeaderLoss(t *testing.T) {
	t.Parallel()
	cluster, err := consul.StartCluster(limited(t), 3, consul.Options{Binary: binary(t)})
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	leader, err := cluster.Leader()
	require.NoError(t, err)
	var follower *consul.Agent
	configuration := config(leader)
	for _, a := range cluster.Agents {
		if a != leader {
			follower = a
			configuration.Client.Addresses = append(configuration.Client.Addresses, a.Address)
		}
	}
	// Short, so that it reads while there is no leader.
	configuration.Watches, configuration.Wait = watch("web"), time.Second
	f := follow(t, configuration)
	c := client(t, follower, "")
	register(t, c, "web-1", "10.0.0.1")
	f.verdicts(t, "web", "web-1 10.0.0.1 1 active")

	require.NoError(t, leader.Kill())
	eventually(t, "another leader", func() error {
		now, err := cluster.Leader()
		if err == nil && now == leader {
			err = fmt.Errorf("still the old one")
		}
		return err
	})
	// Not by the agent, which waits long before it tells a new leader.
	_, err = c.Catalog().Register(&api.CatalogRegistration{
		Node: "elsewhere", Address: "10.0.0.2", Service: &api.AgentService{ID: "web-2", Service: "web", Port: 80},
	}, nil)
	require.NoError(t, err)
	problems := 0
	f.await(t, "the change after the loss", func(u source.Update) bool {
		if u.Answer.Problem() != "" {
			problems++
			return false
		}
		if len(u.Answer.Instances) == 0 {
			t.Errorf("an answer without instances passes for whole: %+v", u.Answer)
		}
		return fmt.Sprint(lines(u.Answer.Instances)) == "[web-1 10.0.0.1 1 active web-2 10.0.0.2 1 active]"
	})
	t.Logf("%d times there was no whole answer", problems)
}
