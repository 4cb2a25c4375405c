// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"errors"
	"fmt"
	"strconv"
)

// Cluster is a few servers that elect a leader among them.
type Cluster struct {
	Agents []*Agent
}

// StartCluster runs so many servers and waits until all know a leader. Of the options only Binary
// and Config count.
func StartCluster(ctx context.Context, servers int, o Options) (*Cluster, error) {
	var c Cluster
	var join []string
	for i := range servers {
		own := Options{Binary: o.Binary, Config: o.Config, node: "server-" + strconv.Itoa(i+1), bootstrap: servers, join: join}
		a, err := start(own)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start a cluster of Consul: %w", err), c.Close())
		}
		c.Agents = append(c.Agents, a)
		join = append(join, a.options.Bind+":"+strconv.Itoa(a.ports.serf))
	}
	for _, a := range c.Agents {
		if err := a.AwaitLeader(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("start a cluster of Consul: %w", err), c.Close())
		}
	}
	return &c, nil
}

// Leader is the agent that leads, by what the first says that answers.
func (c *Cluster) Leader() (*Agent, error) {
	var errs []error
	for _, asked := range c.Agents {
		client, err := asked.Client("")
		if err != nil {
			return nil, err
		}
		leader, err := client.Status().Leader()
		if err != nil {
			errs = append(errs, fmt.Errorf("ask %s for the leader: %v", asked.Node, err))
			continue
		}
		for _, a := range c.Agents {
			if leader == a.options.Bind+":"+strconv.Itoa(a.ports.server) {
				return a, nil
			}
		}
		errs = append(errs, fmt.Errorf("leader %q, which %s names, is none of ours", leader, asked.Node))
	}
	return nil, errors.Join(errs...)
}

// Close ends all servers.
func (c *Cluster) Close() error {
	var errs []error
	for _, a := range c.Agents {
		errs = append(errs, a.Close())
	}
	return errors.Join(errs...)
}
