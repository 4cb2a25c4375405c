// Copyright the remora authors
// SPDX-License-Identifier: Apache-2.0

package consul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// DrainLimitConfig is how many balancers may drain at once. Start from DefaultDrainLimitConfig.
type DrainLimitConfig struct {
	// Client is how Consul is reached.
	Client ClientConfig
	// Prefix is the folder of the key-value store that the balancers share, with a slash at its
	// end. Default "remora/drain/".
	Prefix string
	// Limit is the number of balancers; all must agree on it. Default 1; at least 1.
	Limit int
	// Holder names this balancer to people who look into the folder. Required.
	Holder string
	// TTL is the time after which Consul takes the right from a balancer that has died; Consul may
	// take twice as long. Default 15 s; 10 s to 24 h.
	TTL time.Duration
}

// DefaultDrainLimitConfig is the configuration with all defaults.
func DefaultDrainLimitConfig() DrainLimitConfig {
	return DrainLimitConfig{Prefix: "remora/drain/", Limit: 1, TTL: 15 * time.Second}
}

// Validate reports all problems, each with the path of its field.
func (c DrainLimitConfig) Validate() error {
	var p problems
	p.add(c.Client.Validate())
	if c.Prefix == "" {
		p.addf("Prefix: missing")
	}
	p.add(validatePrefix("Prefix", c.Prefix))
	if c.Limit < 1 {
		p.addf("Limit: %d is less than 1", c.Limit)
	}
	if c.Holder == "" {
		p.addf("Holder: missing")
	}
	if c.TTL < 10*time.Second || c.TTL > 24*time.Hour {
		p.addf("TTL: %v is not 10s to 24h", c.TTL)
	}
	return p.err()
}

// DrainLimit hands out the right to drain, to a few balancers at once. It may be used concurrently.
type DrainLimit struct {
	config    DrainLimitConfig
	endpoints []*endpoint
}

const (
	// acquireWait is how long one query for a free slot waits, and so how long Acquire can take to
	// notice that it was called off.
	acquireWait = time.Second
	// monitorWait is how long one query that watches a slot waits.
	monitorWait = 30 * time.Second
	// monitorRetries and monitorRetryTime bridge the election of a leader; together they are
	// shorter than the least TTL.
	monitorRetries   = 3
	monitorRetryTime = 2 * time.Second
)

// NewDrainLimit makes a limit. It sends nothing.
func NewDrainLimit(c DrainLimitConfig) (*DrainLimit, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	endpoints, err := newEndpoints(c.Client, timeouts{request: monitorWait + monitorWait/16 + requestTimeout, wait: monitorWait})
	if err != nil {
		return nil, err
	}
	return &DrainLimit{config: c, endpoints: endpoints}, nil
}

// Slot is the right to drain. Release gives it back.
type Slot struct {
	semaphore *api.Semaphore
	lost      <-chan struct{}
}

// Acquire waits until this balancer may drain, and takes the right. The error is ctx's if that
// ended first, else it tells what each address said.
func (d *DrainLimit) Acquire(ctx context.Context) (*Slot, error) {
	var p problems
	for _, e := range d.endpoints {
		slot, err := d.acquireAt(ctx, e)
		if err == nil {
			return slot, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.addf("acquire the right to drain at %q: %v", e.address, cause(err))
	}
	return nil, p.err()
}

func (d *DrainLimit) acquireAt(ctx context.Context, e *endpoint) (*Slot, error) {
	semaphore, err := e.client.SemaphoreOpts(&api.SemaphoreOptions{
		Prefix: d.config.Prefix, Limit: d.config.Limit, Value: []byte(d.config.Holder),
		SessionName: "remora drain of " + d.config.Holder, SessionTTL: d.config.TTL.String(),
		SemaphoreWaitTime: acquireWait, MonitorRetries: monitorRetries, MonitorRetryTime: monitorRetryTime,
	})
	if err != nil {
		return nil, err
	}
	lost, err := semaphore.Acquire(ctx.Done())
	if err != nil {
		return nil, err
	}
	if lost == nil {
		return nil, ctx.Err()
	}
	return &Slot{semaphore, lost}, nil
}

// Lost is closed when Consul has taken the right back, or cannot confirm it: a drain that is not
// past stopping should stop.
func (s *Slot) Lost() <-chan struct{} { return s.lost }

// Release gives the right back. A right that was lost is no error. After an error the right ends
// with its session, within twice the TTL.
func (s *Slot) Release() error {
	if err := s.semaphore.Release(); err != nil && !errors.Is(err, api.ErrSemaphoreNotHeld) {
		return fmt.Errorf("release the right to drain: %v", cause(err))
	}
	return nil
}
